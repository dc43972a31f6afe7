"""Uvicorn on bound sockets: the base of the workers' and the admin API's servers, the acceptor, TLS
contexts.

Uses: uvicorn, `wire`, `core`.
Used by: `worker`, `admin`, `supervisor` (TLS alone).
"""
