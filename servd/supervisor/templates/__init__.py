"""Templates: processes that have imported what workers need, and fork them.

Uses: `supervisor.io`, `plan`, `host`, `wire`.
Used by: `supervisor`, `daemon`, `__main__`.
"""
