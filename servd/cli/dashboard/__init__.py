"""`servd dashboard`: the page of a daemon on a loopback port.

Uses: `admin` (the page's files), `control`.
Used by: `cli.commands.dashboard`.
"""
