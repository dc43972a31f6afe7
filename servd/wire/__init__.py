"""Protocols between daemon and workers: variable names, the worker's spec, notifications, inherited
descriptors and shared-memory counters.

Uses: the standard library.
Used by: daemon side and worker side.
"""
