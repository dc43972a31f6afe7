"""`Config` and facts of the machine to `Plan`, two plans to changes. Pure: no I/O, no clock, no
random.

Uses: `config`, `wire`, `core`.
Used by: `host`, `bento`, `supervisor` and everything above.
"""
