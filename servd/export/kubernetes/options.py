"""The choices of an export to Kubernetes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from servd.config.model import Config
from servd.core.quick_dataclass import dataclass
from servd.export.containers.options import RUNTIME_FOLDER
from servd.export.fate import Engine

Scaling = Literal["cpu", "in-flight", "keda"]

PRE_STOP_SECONDS = 5
"""Endpoints of a pod that ends are still used for so long: meanwhile it serves everything."""

_SLEEP_SINCE = (1, 30)
"""The first version in which `preStop.sleep` is on by default."""


@dataclass(frozen=True, slots=True)
class KubernetesOptions:
    """What the command line chooses. `name` is that of the whole."""

    image: str
    name: str = "servd"
    whole: bool = False
    namespace: str = ""
    version: tuple[int, int] = _SLEEP_SINCE
    scaling: Scaling = "cpu"
    service_monitor: bool = False
    live_config: bool = False

    @property
    def engine(self) -> Engine:
        """The engine."""
        return "kubernetes"

    @property
    def scales(self) -> bool:
        """Pods are scaled, and not the workers in them."""
        return True

    def daemon(self, table: Mapping[str, Any], config: Config) -> dict[str, Any]:
        """Returns what `[daemon]` is in a pod."""
        found = {**table, "runtime_dir": RUNTIME_FOLDER, "watch": self.live_config}
        if self.has_sleep:
            found.pop("stop_delay", None)  # the preStop sleep is as long
        else:
            found["stop_delay"] = self.pre_stop_seconds(config)
        return {**found, "log": {**table.get("log", {}), "format": "json"}}

    @property
    def has_sleep(self) -> bool:
        """Whether the cluster has a preStop sleep; otherwise servd itself waits."""
        return self.version >= _SLEEP_SINCE

    def pre_stop_seconds(self, config: Config) -> int:
        """Returns how long a pod that ends goes on serving before it drains."""
        return max(PRE_STOP_SECONDS, math.ceil(config.daemon.stop_delay or 0))
