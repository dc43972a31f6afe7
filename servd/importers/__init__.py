"""Imports the files of other tools: what they say, as the tables of a servd file.

Each module reads one format into `Imported`, a value. Nothing is run but a JavaScript file of PM2.
Uses: `config`.
Used by: `cli`.
"""
