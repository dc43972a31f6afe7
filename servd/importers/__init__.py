"""Imports the files of other tools: what they say, as the tables of a servd file.

Each module reads one format into `Imported`, which is a value: nothing is run, but for a JavaScript
file of PM2. What has no counterpart stands in `left`, with its place.

Used by: `cli`.
"""
