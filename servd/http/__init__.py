"""Uvicorn on bound sockets: the base of all servers, the acceptor, TLS contexts.
Uses: uvicorn, `wire`, `core`.
Used by: `worker`, `admin`, `supervisor` (TLS alone).
"""
