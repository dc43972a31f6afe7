"""Facts of the machine, gathered for planning: CPUs, users, files, GPUs; and what `servd doctor`
checks.

Uses: `plan`, `config`, `core`.
Used by: `supervisor` (identity), `bento`, `daemon`, `cli`.
"""
