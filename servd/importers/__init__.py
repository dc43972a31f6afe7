"""Converts configurations of other tools to the tables of a servd file.

Each module reads one format into `Imported`, a value. Only JavaScript files of PM2 are executed.
Uses: `config`.
Used by: `cli`.
"""
