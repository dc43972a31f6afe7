"""What there is to measure, and its form for Prometheus.

Uses: `supervisor`, `wire`.
Used by: `daemon`, `admin`.
"""
