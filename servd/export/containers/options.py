"""The choices of an export, whatever engine runs the containers, and where things are in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from servd.config.load import Loaded
from servd.config.model import Config
from servd.core.quick_dataclass import dataclass
from servd.export.fate import Engine
from servd.plan.host import Host
from servd.plan.model import Plan

CONFIG_FOLDER = "/etc/servd"
CONFIG_FILE = f"{CONFIG_FOLDER}/servd.toml"
RUNTIME_FOLDER = "/run/servd"
APP_FOLDER = "/app"
TLS_FOLDER = "/run/tls"
USER = 10001


class ContainerOptions(Protocol):
    """What the configuration of a container depends on, in any engine."""

    @property
    def engine(self) -> Engine:
        """Returns the engine."""

    @property
    def name(self) -> str:
        """Returns the name of the whole."""

    @property
    def whole(self) -> bool:
        """Returns whether all services are in one container."""

    @property
    def scales(self) -> bool:
        """Returns whether the engine decides on the number of containers, by `autoscale`."""

    def daemon(self, table: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """Returns what `[daemon]` is in a container."""


@dataclass(frozen=True, slots=True)
class ExportSource:
    """A configuration `as_written`, and completed with what the code of BentoML services declares,
    with its plan. Paths below `folder` are below /app in the image.
    """

    as_written: Loaded
    loaded: Loaded
    plan: Plan
    host: Host
    folder: str
