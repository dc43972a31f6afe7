"""Plans of services as values."""

from __future__ import annotations

from typing import Any

from servd.config.model import Config
from servd.plan.build import build
from servd.plan.host import Account, Host
from servd.plan.model import Plan

HOST = Host(
    cpus=(0, 1),
    usable_cpus=2,
    environ={"PATH": "/bin"},
    accounts={"www": Account("www", 33, 33, (33,), "/var/www")},
    env_files={"/a.env": {"A": "1"}, "/b.env": {"A": "2"}},
    pem_files={"c1": "cert 1", "k1": "key 1", "c2": "cert 2", "k2": "key 2", "ca": "authority"},
    ports={"model": 4567},
    python="/py",
)


def plan_of(services: dict[str, Any], host: Host = HOST, secrets: Any = frozenset()) -> Plan:
    config = Config.model_validate({"services": services})
    return build(config, host, "/run/x", secrets)
