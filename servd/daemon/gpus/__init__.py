"""What the daemon knows of the GPUs, by its helper process, and what it shows of it.

Uses: `host` (starts the helper), `supervisor` (which processes are whose), `wire`, `core`.
Used by: `daemon`, `admin`.
"""
