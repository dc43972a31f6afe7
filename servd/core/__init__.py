"""Leaves that every package may use, workers too: they import only the standard library.
Uses: the standard library.
Used by: every package.
"""
