"""Leaves that every package may use: errors, diagnostics, addresses, binding, paths, graphs,
secrets. Workers use them too, so they import only the standard library.

Uses: the standard library.
Used by: every package.
"""
