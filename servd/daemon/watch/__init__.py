"""Watches files, sources and certificates, whose changes ask for reloads, and the clock.

Uses: watchfiles, `config`, `plan`.
Used by: `daemon`.
"""
