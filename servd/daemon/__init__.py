"""The daemon: one asyncio loop that owns everything, from the first start to the exit status.

Uses: `supervisor`, `host`, `plan`, `config`, `wire`, `core`.
Used by: `admin` (reading, and its requests), `cli`.
"""
