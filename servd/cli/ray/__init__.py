"""What commands do with Ray Serve: at the dashboard of a cluster, over HTTP, without Ray.
Uses: httpx, `export`, `engines`, `daemon`, `plan`, `config`, `core`.
Used by: `cli`.
"""
