"""The process that loads, serves and drains an app; it also runs in other interpreters.
Uses: the standard library, uvicorn, `http`, `wire`, `core`.
Used by: nothing: the supervisor starts it as a process.
"""
