"""The server of `servd dashboard`: a daemon's page on a loopback port.
Uses: `admin` (the page's files), `control`.
Used by: `cli.commands.dashboard`.
"""
