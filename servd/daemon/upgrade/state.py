"""What a daemon leaves to the one that takes its place, as one document: descriptors by their
numbers, which the new process inherits, and what cannot be read from the configuration. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from servd.config.model import Config
from servd.core.errors import ServdError
from servd.core.handed_socket import HandedSocket
from servd.plan.overrides import Override
from servd.supervisor.apply.inherit import InheritedService


@dataclass(frozen=True, slots=True)
class OverrideRecord:
    """What was set by hand while the file said `file`."""

    workers: int | None
    stopped: bool
    file: int | str


@dataclass(frozen=True, slots=True)
class UpgradeState:
    """The document. `runtime_dir_setting` is what the file says of the folder; `made` are folders
    that are to be removed at the end; `chosen` ports are those of addresses without one, `ports`
    those of programs that bind themselves; `inherited` sockets were handed to the first daemon,
    `stored` ones are what systemd keeps; `generation` and `digest` are of the configuration.
    """

    pid: int
    version: str
    runtime_dir: str
    runtime_dir_setting: str
    lock: int
    made: list[str]
    sockets: list[HandedSocket]
    admin: list[HandedSocket]
    inherited: dict[str, list[int]]
    chosen: dict[str, int]
    stored: dict[str, str]
    ports: dict[str, int]
    generation: int
    digest: str
    numbers: dict[str, int]
    services: dict[str, InheritedService]
    by_hand: dict[str, OverrideRecord]

    @property
    def descriptors(self) -> list[int]:
        """Everything that the new process has to inherit."""
        sockets = [item.fd for item in (*self.sockets, *self.admin)]
        return [self.lock, *sockets, *(fd for fds in self.inherited.values() for fd in fds)]

    def overrides(self, config: Config) -> dict[str, Override]:
        """What was set by hand, and that `config` does not say in another way than before."""
        return {
            name: Override(item.workers, item.stopped)
            for name, item in self.by_hand.items()
            if name in config.services and config.services[name].workers == item.file
        }

    def to_json(self) -> bytes:
        """One line."""
        return _DOCUMENT.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> UpgradeState:
        """Raises `ServdError` for what another version of servd has written in another way."""
        try:
            return _DOCUMENT.validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise ServdError(
                f"what the running servd hands over is not understood ({where}: {first['msg']}):"
                " restart it"
            ) from None


_DOCUMENT = TypeAdapter(UpgradeState)
