"""The ASGI middleware of a worker: deadlines, limits, counting, the access log.
Uses: `wire`, `core`.
Used by: `worker`.
"""
