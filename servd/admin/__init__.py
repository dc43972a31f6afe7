"""The admin API: a FastAPI application with its sockets, server and page.
Uses: fastapi, `daemon`, `http` and everything below.
Used by: `cli`, which passes it to the daemon.
"""
