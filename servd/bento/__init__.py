"""BentoML on the daemon's side: asks the code of services what it declares, in another process.

Uses: `host`, `plan`, `config`, `wire`, `core`.
Used by: `cli`.
"""
