"""What is done around each request: deadlines, limits, counting, the access log.

Uses: `wire`, `core`.
Used by: `worker`.
"""
