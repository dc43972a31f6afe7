"""What workers say: their channel, their notifications, their output.

Uses: `wire`, `core`.
Used by: `supervisor`.
"""
