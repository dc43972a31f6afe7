"""What a container of servd is, whatever engine runs it: its services, configuration and secrets.

Uses: `plan`, `config`, `core`, `export`.
Used by: `export.kubernetes`, `export.compose`, `export.ray`, `export.dockerfile`, `cli`.
"""
