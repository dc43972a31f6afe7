"""Text to `Config`: parsed with places, merged, interpolated, validated. Pure but for `find` and
`files`.

Uses: pydantic, `core`.
Used by: every package of the daemon side.
"""
