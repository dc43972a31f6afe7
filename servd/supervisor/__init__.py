"""Makes what runs equal to a plan: services, their generations, their workers.

Uses: `plan`, `host`, `config`, `http`, `wire`, `core`.
Used by: `daemon`, `admin` (reading).
"""
