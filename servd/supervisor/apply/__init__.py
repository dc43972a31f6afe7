"""Applies a list of changes as one: prepared, then committed or undone.

Uses: the rest of `supervisor`.
Used by: `supervisor.supervisor`.
"""
