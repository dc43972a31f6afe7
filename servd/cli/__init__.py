"""The command line. Each command is imported when it runs.
Uses: click, everything below.
Used by: `servd.__main__`.
"""
