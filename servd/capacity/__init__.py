"""Forecasts how many workers and CPUs a load needs, by queueing theory. Pure.

Uses: `plan`.
Used by: `admin`, `cli`.
"""
