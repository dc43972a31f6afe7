"""What the daemon needs of the part that answers for it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from servd.config.model import AdminConfig
from servd.core.handed_socket import HandedSocket
from servd.daemon.reload.settings import SettingsChange


class Admin(Protocol):
    """The part that answers whoever asks the daemon for something."""

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Takes its address: what was handed over, or a new one. Raises `StartError`."""

    async def start(self, daemon: Any) -> None:
        """Starts answering for `daemon`, a `servd.daemon.view.DaemonView`."""

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares another address. Raises `StartError`."""

    def handed(self) -> list[HandedSocket]:
        """The sockets, for a daemon that takes the place of this one."""

    def hand_over(self, keys: Collection[str]) -> None:
        """That daemon has those with these keys."""

    def own(self) -> None:
        """The daemon that the sockets are of has left them to this one."""

    async def stop(self) -> None:
        """Answers what has been asked, and nothing more."""
