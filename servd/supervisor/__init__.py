"""Makes the running services, their generations and their workers equal to a plan.

Uses: `plan`, `host`, `config`, `http`, `wire`, `core`.
Used by: `daemon`, `admin` (reading).
"""
