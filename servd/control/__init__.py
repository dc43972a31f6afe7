"""The client of the admin API, and the search for the daemon of a configuration. Without click.
Uses: `config`, `core`.
Used by: `cli`, `embed`.
"""
