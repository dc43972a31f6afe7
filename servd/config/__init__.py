"""Text to `Config`: parsed, merged, interpolated, validated. Only `find` and `files` are impure.
Uses: pydantic, `core`.
Used by: every package of the daemon side.
"""
