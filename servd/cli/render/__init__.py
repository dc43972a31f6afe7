"""What commands print: diagnostics, tables, outcomes.
Uses: rich, `control`, `core`.
Used by: `cli`.
"""
