"""From a request to an outcome: read, plan, apply, report; one at a time.

Uses: `supervisor`, `host`, `plan`, `config`.
Used by: `daemon`, `admin`.
"""
