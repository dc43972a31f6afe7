"""Replacing the daemon by a newly started one, seen from both sides.

Uses: `supervisor`, `daemon.reload`.
Used by: `daemon`, `admin`, `cli`.
"""
