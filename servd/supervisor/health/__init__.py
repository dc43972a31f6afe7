"""Looks after workers: readiness, probes, watchdog, memory, and recycling.

Uses: `supervisor.circus`, `supervisor.io`.
Used by: `supervisor`.
"""
