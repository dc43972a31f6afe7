"""Circus, extended by its own seams: arbiter, watcher, process. The only package that imports
Circus.

Uses: circus, `supervisor.io`, `supervisor.respawn`.
Used by: `supervisor`.
"""

from servd.supervisor.circus import faults as _faults  # noqa: F401  # first: it imports Circus
