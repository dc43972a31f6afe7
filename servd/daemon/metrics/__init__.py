"""Measures the services and the daemon, and renders metrics for Prometheus.

Uses: `supervisor`, `wire`.
Used by: `daemon`, `admin`.
"""
