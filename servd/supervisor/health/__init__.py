"""Looks after workers: readiness, probes, watchdog, memory, and recycling those that must go.

Uses: `supervisor.circus`, `supervisor.io`.
Used by: `supervisor`.
"""
