"""What a daemon is started with."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from servd.config.load import Loaded
from servd.config.model import AdminConfig
from servd.daemon.handover import HandedSocket
from servd.daemon.predecessor import Predecessor
from servd.daemon.settings import SettingsChange
from servd.early_signals import EarlySignals

if TYPE_CHECKING:
    from servd.daemon.daemon import Daemon


class Admin(Protocol):
    """The part that answers whoever asks the daemon for something."""

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Takes its address: what was handed over, or a new one. Raises `StartError`."""

    async def start(self) -> None:
        """Answers from now on."""

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


@dataclass(frozen=True, slots=True)
class Launching:
    """What the daemon is started with: the configuration, how to read it again, who answers for
    it, which signals came early, and where to live when the configuration does not say. In
    development, sources are watched. `give_up` ends a reading that is under way, since the daemon
    stops. The `predecessor` is a daemon whose place this one shall take.
    """

    loaded: Loaded
    read: Callable[[], Loaded]
    admin: Callable[[Daemon], Admin]
    early: EarlySignals
    runtime_dir: str | None = None
    watches_sources: bool = False
    give_up: Callable[[], None] = lambda: None
    predecessor: Predecessor | None = None
