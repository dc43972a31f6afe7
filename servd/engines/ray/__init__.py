"""Ray Serve: what runs in its replicas. Ray is imported only in functions that run in a cluster.
Uses: Ray, httpx, uvicorn, `worker`, `client`, `wire`, `core`.
Used by: Ray, `export`, `cli`, `client` at run time.
"""
