"""Listening sockets, owned by addresses and counted by use.

Uses: `plan`, `core`.
Used by: `supervisor`, `daemon`.
"""
