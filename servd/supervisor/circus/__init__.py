"""Circus, extended by its own seams: arbiter, watcher, process. The only package that imports
Circus.

Uses: circus, `supervisor.io`, `supervisor.respawn`.
Used by: `supervisor`.
"""
