"""The choices of an export to Kubernetes, and the values that its objects share."""

from __future__ import annotations

import math
from typing import Any, Literal

from servd.config.load import Loaded
from servd.config.model import Config
from servd.core.quick_dataclass import dataclass
from servd.plan.host import Host
from servd.plan.model import Plan

KubernetesObject = dict[str, Any]

Scaling = Literal["cpu", "in-flight", "keda"]

CONFIG_FOLDER = "/etc/servd"
CONFIG_FILE = f"{CONFIG_FOLDER}/servd.toml"
RUNTIME_FOLDER = "/run/servd"
APP_FOLDER = "/app"
TLS_FOLDER = "/run/tls"
USER = 10001

PRE_STOP_SECONDS = 5
"""Endpoints of a pod that ends are still used for so long: meanwhile it serves everything."""

MARGIN_SECONDS = 5
"""Beyond everything that servd waits for, before the kubelet kills the container."""

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
    def has_sleep(self) -> bool:
        """Whether the cluster has a preStop sleep; otherwise servd itself waits."""
        return self.version >= _SLEEP_SINCE

    def pre_stop_seconds(self, config: Config) -> int:
        """Returns how long a pod that ends goes on serving before it drains."""
        return max(PRE_STOP_SECONDS, math.ceil(config.daemon.stop_delay or 0))


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
