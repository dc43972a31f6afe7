"""The choices of an export to Compose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from servd.config.model import Config
from servd.core.quick_dataclass import dataclass
from servd.export.containers.options import RUNTIME_FOLDER
from servd.export.fate import Engine


@dataclass(frozen=True, slots=True)
class ComposeOptions:
    """What the command line chooses. `name` is that of the whole, `folder` where the Compose file
    will be. `files`: configurations are files beside it, and not in it.
    """

    image: str
    folder: str
    name: str = "servd"
    whole: bool = False
    files: bool = False

    @property
    def engine(self) -> Engine:
        """The engine."""
        return "compose"

    @property
    def scales(self) -> bool:
        """Workers are scaled, in their container."""
        return False

    def daemon(self, table: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """Returns what `[daemon]` is in a container."""
        log = {**table.get("log", {}), "format": "json"}
        return {**table, "runtime_dir": RUNTIME_FOLDER, "watch": False, "log": log}
