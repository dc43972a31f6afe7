"""The version of servd, kept apart so that `servd --version` imports nothing else."""

__version__ = "0.1.0"
