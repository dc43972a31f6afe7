"""The client of the admin API, and how it finds the daemon of a configuration. Without click.

Uses: `config`, `core`.
Used by: `cli`, `embed`.
"""
