"""Exports a plan to other process managers.
Uses: `plan`, `config`, `core`.
Used by: `cli`.
"""
