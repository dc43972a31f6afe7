"""What BentoML's configuration says of a server, under servd's names."""

from __future__ import annotations

import os
from typing import Any

from servd.wire.worker_spec import BentoSpec

_DEFAULT_TIMEOUT_SECONDS = 60.0
_DEFAULT_BACKLOG = 2048
"""BentoML's defaults: such a value counts as undeclared."""


def server_settings(config: dict[str, Any], declared: dict[str, Any]) -> dict[str, Any]:
    """Returns what `config` says of a server; None or nothing for what it leaves open. `declared`
    is the part of `config` that stands in the code.
    """
    traffic, own = config.get("traffic") or {}, declared.get("traffic") or {}
    timeout, backlog = traffic.get("timeout"), config.get("backlog")
    http, address = config.get("http") or {}, declared.get("http") or {}
    host = address.get("host") or unless_default(http.get("host"), "0.0.0.0")  # noqa: S104
    return {
        "timeout": timeout if timeout != _DEFAULT_TIMEOUT_SECONDS or "timeout" in own else None,
        "max_concurrency": traffic.get("max_concurrency"),
        "backlog": backlog if backlog != _DEFAULT_BACKLOG or "backlog" in declared else None,
        "host": str(host or ""),
        "port": address.get("port") or unless_default(http.get("port"), 3000),
        "tls": _tls(config.get("ssl") or {}),
    }


def leave_to_servd(config: dict[str, Any], spec: BentoSpec) -> None:
    """Turns off what servd does for a server: the access log; deadlines and limits unless `spec`
    keeps them.
    """
    config.setdefault("logging", {}).setdefault("access", {})["enabled"] = False
    traffic = config.setdefault("traffic", {})
    if not spec.keeps_timeout:
        traffic["timeout"] = None
    if not spec.keeps_concurrency:
        traffic["max_concurrency"] = None


def unless_default(value: Any, default: Any) -> Any:
    """Returns `value` if BentoML's own configuration changed it, else None."""
    return value if value is not None and value != default else None


def _tls(ssl: dict[str, Any]) -> dict[str, str] | None:
    """Returns paths and policies under servd's names. BentoML's default ciphers count as unset."""
    if not (ssl.get("enabled") or ssl.get("certfile")):
        return None
    reqs = ("none", "optional", "required")[int(ssl.get("cert_reqs") or 0)]
    ciphers = ssl.get("ciphers") or ""
    return {
        "certfile": _absolute(ssl.get("certfile")),
        "keyfile": _absolute(ssl.get("keyfile")),
        "keyfile_password": ssl.get("keyfile_password") or "",
        "ca_certs": _absolute(ssl.get("ca_certs")),
        "client_auth": reqs,
        "ciphers": "" if ciphers == "TLSv1" else ciphers,
    }


def _absolute(path: str | None) -> str:
    return os.path.abspath(path) if path else ""
