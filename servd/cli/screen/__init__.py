"""Full-screen views in a terminal: `servd top` and `servd status --watch`.
Uses: `cli.render`, `control`, `core`.
Used by: `cli.commands`.
"""
