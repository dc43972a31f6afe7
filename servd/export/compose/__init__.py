"""Exports a configuration for Docker Compose. Pure.

Uses: `export.kubernetes` (what a container of servd is), `plan`.
Used by: `cli`.
"""
