"""The daemon's interface to its admin API."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from servd.config.model import AdminConfig
from servd.core.handed_socket import HandedSocket
from servd.core.instances import NO_ADMIN
from servd.core.paths import admin_address
from servd.daemon.reload.settings import SettingsChange


def api_address(config: AdminConfig, runtime_dir: str) -> str:
    """Returns where the API answers, as `--admin` takes it, or "none"."""
    return str(admin_address(config.listen, runtime_dir)) if config.enabled else NO_ADMIN


class Admin(Protocol):
    """The server of the admin API."""

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Binds its addresses, or takes the `handed` sockets. Raises `StartError`."""

    async def start(self, daemon: Any) -> None:
        """Starts to serve `daemon`, a `servd.daemon.view.DaemonView`."""

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares other addresses. Raises `StartError`."""

    def mend(self) -> list[str]:
        """Makes removed unix sockets again, and returns their paths. Raises `StartError`."""

    def handed(self) -> list[HandedSocket]:
        """Returns its sockets, for the daemon that replaces this one."""

    def hand_over(self, keys: Collection[str]) -> None:
        """Gives the sockets with these keys to that daemon."""

    def own(self) -> None:
        """Takes full ownership of sockets from the previous daemon."""

    async def stop(self) -> None:
        """Answers the requests in progress, and no more."""
