"""What the daemon prints on a terminal once everything is ready: what to open, how to stop it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from servd.core.address import Address

if TYPE_CHECKING:
    from servd.daemon.status import ServiceStatus

_DEFAULT_CONFIGS = ("servd.toml", "servd.yaml", "servd.yml")
_EVERY_HOST = re.compile(r"(?<=://)(0\.0\.0\.0|\[::\])(?=:)")
_PAGE = "servd page"


def welcome(services: Sequence[ServiceStatus], page: str) -> str:
    """Returns the URL of each service that has one, and `page`, which says how to open the page of
    the daemon ("" for no page).
    """
    rows = [(each.name, f"{url}{_trouble(each)}") for each in services if (url := _url(each))]
    if page:
        rows.append((_PAGE, page))
    width = max([len(name) for name, _ in rows], default=0)
    lines = [f"  {name:<{width}}  {shown}" for name, shown in rows]
    return "\n".join(["", *lines, "", "Press Ctrl+C to stop.", ""])


def page_of(admin: Address | None, config: str, api: str) -> str:
    """Returns the page's URL where `admin.listen` is a TCP address, else the command that opens it.
    `config` is the path of the configuration, `api` the address of the API.
    """
    if admin is not None and admin.kind == "tcp":
        return _for_browsers(f"http://{admin}" if admin.host else f"http://localhost:{admin.port}")
    if config in _DEFAULT_CONFIGS:
        return "run `servd dashboard`"
    option = f"--admin {api}" if config.startswith("<") else f"--config {config}"
    return f"run `servd dashboard {option}`"


def _url(service: ServiceStatus) -> str:
    """Returns what to open, "" for a service without a URL."""
    urls = [url for url in service.listen if url.startswith(("http://", "https://"))]
    return service.public_url or next(map(_for_browsers, urls), "")


def _for_browsers(url: str) -> str:
    """Names an address of this machine where a server listens on every one."""
    return _EVERY_HOST.sub("localhost", url)


def _trouble(service: ServiceStatus) -> str:
    return "" if service.state == "ready" else f"  ({service.state})"
