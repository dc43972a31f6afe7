"""What the daemon and its workers agree on: variable names, the worker's spec, notifications,
inherited descriptors and the shared-memory counters.

Uses: the standard library.
Used by: daemon side and worker side.
"""
