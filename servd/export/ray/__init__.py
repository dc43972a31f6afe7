"""The configuration of Ray Serve, as plain values. Ray need not be installed.
Uses: `plan`, `config`, `core`, `engines`, `export`.
Used by: `cli`.
"""
