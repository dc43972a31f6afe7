"""Kubernetes manifests of a configuration, as plain values.
Uses: `plan`, `config`, `core`, `export`.
Used by: `cli`.
"""
