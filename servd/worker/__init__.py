"""The process that runs an app: loads it, serves it, drains it. Starts fast, and runs in other
interpreters too.

Uses: the standard library, uvicorn, `http`, `wire`, `core`.
Used by: nothing: the supervisor starts it as a process.
"""
