"""What apps import: `servd.depends`, their HTTP clients for other services, and `servd.loading`.
Uses: httpx, `wire`, `core`.
Used by: apps.
"""

from __future__ import annotations

from servd.client.depends import depends, depends_sync
from servd.client.loading import loading

__all__ = ["depends", "depends_sync", "loading"]
