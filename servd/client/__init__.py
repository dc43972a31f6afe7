"""`servd.depends`: an app's HTTP clients for the services that it depends on.
Uses: httpx, `wire`, `core`.
Used by: apps.
"""

from __future__ import annotations

from servd.client.depends import depends, depends_sync

__all__ = ["depends", "depends_sync"]
