"""Facts of the machine for planning (CPUs, users, files, GPUs), and the checks of `servd doctor`.
Uses: `plan`, `config`, `core`.
Used by: `supervisor` (identity), `bento`, `daemon`, `cli`.
"""
