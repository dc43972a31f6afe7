"""What the code of BentoML services declares, and the configuration of their components.
Uses: `config`, `core`.
Used by: `config`, `plan`, `bento`.
"""
