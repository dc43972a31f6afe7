"""Notices that the process which did the work of a worker has ended, while its front lives on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from servd.core.printable import visible
from servd.core.processes import descendants_of, name_of, started_at
from servd.core.quick_dataclass import dataclass
from servd.plan.gpu_inventory import gib
from servd.supervisor.gpus import HeldMemory

PATIENCE_SECONDS = 5.0
"""Time for a worker to start another process in place of one that has ended."""


_FIRST_LOOKS = 2
"""Looks in which what a worker held when it became ready shows: the first may be of before."""

_LONGEST_LOOK_SECONDS = 2.0
"""The most that counts of the time between two looks: the daemon may have been stopped."""


@dataclass(frozen=True, slots=True)
class _Engine:
    """A process that has held memory of GPUs: so many bytes at most (0: unknown), from when to
    when, and its start, by which another one with its pid is told apart.
    """

    name: str
    memory: int
    begun: float
    last: float
    started: int | None


class EngineWatch:
    """Compares what the processes of one worker hold of its GPUs from look to look. Engines are
    those that held some when it became ready: later ones may be the children of single requests.
    `leader` is the worker's own process. `started`, `name` and `family` look at processes.
    """

    def __init__(
        self,
        leader: int,
        started: Callable[[int], int | None] = started_at,
        name: Callable[[int], str] = name_of,
        family: Callable[[Collection[int]], Iterable[int]] = descendants_of,
    ) -> None:
        self._leader = leader
        self._started, self._name, self._family = started, name, family
        self._engines: dict[int, _Engine] = {}
        self._looks = 0
        self._missed = 0.0
        self._looked: float | None = None

    def unknown(self) -> None:
        """Nothing is known of the GPUs at the moment."""
        self._looked = None

    def look(self, held: Mapping[int, HeldMemory], now: float) -> str:
        """Returns which process has ended, and that no other one has taken its place in time; "" if
        all is well. `held` is what each process of the worker holds.
        """
        self._looks += 1
        for pid, one in held.items():
            if pid in self._engines or self._looks <= _FIRST_LOOKS:
                self._note(pid, one, now)
        if held or not (gone := self._gone()) or self._has_newer(gone):
            self._looked = None
            return ""
        if self._looked is None:
            self._looked, self._missed = now, 0.0
        self._missed += min(now - self._looked, _LONGEST_LOOK_SECONDS)
        self._looked = now
        if self._missed < PATIENCE_SECONDS:
            return ""
        pid, engine = max(gone.items(), key=lambda item: item[1].memory)
        much = f" with {gib(engine.memory)} GiB" if engine.memory else ""
        return f"engine: pid {pid} ({visible(engine.name)}){much} ended"

    def _note(self, pid: int, one: HeldMemory, now: float) -> None:
        known = self._engines.get(pid)
        if known is None:
            name = one.name or self._name(pid) or "a program"
            known = _Engine(name, one.memory, now, now, self._started(pid))
        self._engines[pid] = replace(known, memory=max(one.memory, known.memory), last=now)

    def _gone(self) -> dict[int, _Engine]:
        """The engines that have ended, unless one lives that may only have freed its memory. One
        that had some for a moment was none, but a helper.
        """
        others = {
            pid: engine
            for pid, engine in self._engines.items()
            if pid != self._leader and engine.last - engine.begun >= PATIENCE_SECONDS
        }
        ended = {
            pid: engine
            for pid, engine in others.items()
            if engine.started is None or self._started(pid) != engine.started
        }
        return ended if len(ended) == len(others) else {}

    def _has_newer(self, gone: Mapping[int, _Engine]) -> bool:
        """Whether the worker has a process that may be about to take the place of an engine: it was
        started after those that have ended.
        """
        begun = max((engine.started or 0 for engine in gone.values()), default=0)
        others = (pid for pid in self._family([self._leader]) if pid != self._leader)
        return any((self._started(pid) or 0) > begun for pid in others)
