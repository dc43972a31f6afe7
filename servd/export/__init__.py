"""The same plan for other engines.

Uses: `plan`, `config`, `core`.
Used by: `cli`.
"""
