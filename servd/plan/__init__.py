"""`Config` and facts of the machine to `Plan`; two plans to changes. Pure: no I/O, clock or random.
Uses: `config`, `wire`, `core`.
Used by: `host`, `bento`, `supervisor` and everything above.
"""
