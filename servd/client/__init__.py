"""`servd.depends`: HTTP clients that reach the services a service depends on."""

from __future__ import annotations

from servd.client.depends import depends, depends_sync

__all__ = ["depends", "depends_sync"]
