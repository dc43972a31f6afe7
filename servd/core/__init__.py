"""Leaves that every other package may use: errors, diagnostics with their places, addresses,
binding, paths, graphs, secrets. Values and small functions; the worker side uses them too, so
they import the standard library alone.

Uses: the standard library.
Used by: every package.
"""
