"""One command a file: NAME is `command` in `NAME.py`.
Uses: the rest of `cli` and everything below.
Used by: `cli.main`, by name.
"""
