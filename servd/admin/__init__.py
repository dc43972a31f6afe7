"""The admin API: a FastAPI application, its sockets, its server, its page.

Uses: fastapi, `daemon`, `http` and everything below.
Used by: `cli`, which hands it to the daemon.
"""
