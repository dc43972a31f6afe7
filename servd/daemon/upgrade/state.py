"""What a daemon passes to its replacement, as one document: descriptors by number, which the new
process inherits, and what the configuration does not say. Pure.
"""

from __future__ import annotations

import functools
from dataclasses import field
from typing import TYPE_CHECKING

from servd.config.model import Config
from servd.core.errors import ServdError
from servd.core.handed_socket import HandedSocket
from servd.core.quick_dataclass import dataclass
from servd.plan.overrides import Override
from servd.supervisor.apply.inherit import InheritedService
from servd.wire.gpus import GpuSnapshot

if TYPE_CHECKING:
    from pydantic import TypeAdapter


@dataclass(frozen=True, slots=True)
class OverrideRecord:
    """A manual override, set while the configuration declared `file`."""

    workers: int | None
    stopped: bool
    file: int | str


@dataclass(frozen=True, slots=True)
class UpgradeState:
    """The document. `runtime_dir_setting` is the configured folder; `made` are folders to remove at
    the end; `chosen` are ports of addresses without one, `ports` those of commands that bind
    themselves; `inherited` sockets were passed to the first daemon, `stored` ones are kept by
    systemd; `workers` are the numbers of services that follow their load; `generation` (the
    revision) and `digest` are the configuration's; `gpus` are those of each worker, and
    `gpu_peaks` the bytes that one took of a GPU at most, by service; `gpu_quarantine` are the GPUs
    that have failed, with the reasons; `known_gpus` is what the driver told last.
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
    workers: dict[str, int] = field(default_factory=dict)
    gpus: dict[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    gpu_peaks: dict[str, int] = field(default_factory=dict)
    gpu_quarantine: dict[str, str] = field(default_factory=dict)
    known_gpus: GpuSnapshot | None = None

    @property
    def descriptors(self) -> list[int]:
        """All descriptors that the new process inherits."""
        sockets = [item.fd for item in (*self.sockets, *self.admin)]
        return [self.lock, *sockets, *(fd for fds in self.inherited.values() for fd in fds)]

    def overrides(self, config: Config) -> dict[str, Override]:
        """Returns the manual overrides of services that `config` declares as before."""
        return {
            name: Override(item.workers, item.stopped)
            for name, item in self.by_hand.items()
            if name in config.services and config.services[name].workers == item.file
        }

    def to_json(self) -> bytes:
        """Returns one line."""
        return _document().dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> UpgradeState:
        """Raises `ServdError` for an incompatible document of another version of servd."""
        from pydantic import ValidationError

        try:
            return _document().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(step) for step in first["loc"])
            raise ServdError(
                f"cannot read the state of the running servd ({where}: {first['msg']}): restart it"
            ) from None


@functools.cache
def _document() -> TypeAdapter[UpgradeState]:
    """Returns what reads and writes the document; made when a daemon is replaced."""
    from pydantic import TypeAdapter

    return TypeAdapter(UpgradeState)
