"""Engines that run services in place of servd's daemon.
Uses: `worker`, `client`, `wire`, `core`.
Used by: `export`, `cli`, `client` at run time.
"""
