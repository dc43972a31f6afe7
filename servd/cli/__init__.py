"""The command line. A command is imported when it runs.

Uses: click, everything below.
Used by: `servd.__main__`.
"""
