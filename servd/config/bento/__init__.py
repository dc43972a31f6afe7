"""What the code of BentoML services declares, and how the file configures its components.

Uses: `config`, `core`.
Used by: `config`, `plan`, `bento`.
"""
