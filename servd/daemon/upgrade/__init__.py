"""Replaces the daemon by a newly started one: both sides of it.

Uses: `supervisor`, `daemon.reload`.
Used by: `daemon`, `admin`, `cli`.
"""
