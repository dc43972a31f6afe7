"""BentoML in the daemon: queries the code of services for its declarations, in another process.
Uses: `host`, `plan`, `config`, `wire`, `core`.
Used by: `cli`.
"""
