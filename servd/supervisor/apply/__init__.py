"""A list of changes, applied as one: prepared, committed, or undone.

Uses: the rest of `supervisor`.
Used by: `supervisor.supervisor`.
"""
