"""Carries events and workers' lines to the log, to followers and to hooks.

Uses: structlog, `config`, `wire`, `core`.
Used by: `daemon`, `admin`, `cli` (rendering).
"""
