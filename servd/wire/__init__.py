"""What daemon and workers say to each other: names, specification, notifications, counters.
Uses: the standard library.
Used by: daemon side and worker side.
"""
