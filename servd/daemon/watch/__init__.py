"""What changes outside and asks for a reload: files, sources, certificates, the clock.

Uses: watchfiles, `config`, `plan`.
Used by: `daemon`.
"""
