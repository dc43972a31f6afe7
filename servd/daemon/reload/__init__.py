"""Reloads, from request to report: read, plan, apply; one at a time.

Uses: `supervisor`, `host`, `plan`, `config`.
Used by: `daemon`, `admin`.
"""
