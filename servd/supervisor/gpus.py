"""Whether there is room on the GPUs of a worker: what the driver measures, and who starts there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Hashable, Iterator
from dataclasses import dataclass as mutable_dataclass
from typing import Protocol

import structlog

from servd.config.scalars import print_size
from servd.core.events import Event
from servd.core.printable import visible as printable
from servd.core.processes import name_of, owner_of
from servd.core.quick_dataclass import dataclass
from servd.plan.gpu_faults import Quarantine
from servd.plan.gpu_inventory import gib
from servd.plan.gpu_requests import GpuRequest, request_of
from servd.plan.model import ServicePlan
from servd.supervisor.gpu_peaks import GpuPeaks, Kind, kind_of
from servd.wire.gpus import Gpu, GpuHolder, GpuSnapshot

log = structlog.get_logger()

_SNAPSHOTS_UNTIL_SEEN = 2
"""Snapshots after which what a worker has taken shows: the next one may have been made before."""

_MOST_HOLDERS = 3
"""Processes that a reason names."""


@dataclass(frozen=True, slots=True)
class GpuWait:
    """Why a worker cannot start yet. `is_turn`: others start on its GPU, which takes as long as it
    takes. `is_lasting`: nothing but a person ends it. `key` stays while only figures change.
    """

    text: str
    key: Hashable
    is_turn: bool = False
    is_lasting: bool = False

    @property
    def is_timed(self) -> bool:
        """Whether a start fails that waits so for too long."""
        return not (self.is_turn or self.is_lasting)


@dataclass(frozen=True, slots=True)
class HeldMemory:
    """What a process holds of all GPUs together: bytes (0: unknown), and its name if the driver
    tells it.
    """

    memory: int = 0
    name: str = ""


class StartingWorker(Protocol):
    """A worker process, as far as GPUs are concerned."""

    slot: int

    def __hash__(self) -> int: ...
    @property
    def pid(self) -> int: ...


@mutable_dataclass(slots=True)
class _User:
    """A worker that lives, and its GPUs. `seen_from`: the snapshot in which what it holds shows;
    None while it starts.
    """

    request: GpuRequest
    slot: int
    pid: int
    gpus: tuple[str, ...]
    kind: Kind
    seen_from: int | None = None

    @property
    def is_counted(self) -> bool:
        """Whether its memory is declared, so that no other such worker starts beside it."""
        return self.request.memory is not None

    def __str__(self) -> str:
        return f"{self.request.service} worker {self.slot}"


class GpuRoom:
    """Says when a worker may start on its GPUs: with declared memory one at a time on each, and
    only where the driver measures that much as free. While nothing is measured, the plan counts
    alone. `look`: asks for new figures soon. `peaks`: the bytes that a worker of a service took at
    most of one GPU. `quarantine`: GPUs on which none starts. `known`: what the driver told last,
    however old.
    """

    def __init__(
        self, wake: Callable[[], object] = lambda: None, look: Callable[[], object] = lambda: None
    ) -> None:
        self.snapshot: GpuSnapshot | None = None
        self.known: GpuSnapshot | None = None
        self.peaks: dict[str, int] = {}
        self._peaks = GpuPeaks(self.peaks)
        self.quarantine = Quarantine({})
        self.look = look
        self._wake = wake
        self._taken = 0
        self._news = asyncio.Event()
        self._held: dict[Hashable, dict[str, int]] = {}
        self._owners: dict[int, Hashable | None] = {}
        self._users: dict[Hashable, _User] = {}
        self._holds_up = False

    # what is measured

    def take(self, snapshot: GpuSnapshot | None) -> None:
        """Continues by new figures; None: nothing is known any more."""
        self.snapshot = snapshot
        if snapshot is not None:
            self.known = snapshot
        self._taken += 1
        self._owners = self._all_owners(snapshot) if snapshot is not None and self._users else {}
        self._held = self._measure(snapshot) if snapshot is not None and self._users else {}
        for worker, held in self._held.items():
            self._note_peak(self._users[worker], max(held.values()))
        news, self._news = self._news, asyncio.Event()
        news.set()
        self._wake_up()

    def _note_peak(self, user: _User, peak: int) -> None:
        """Keeps the peak of a service, and says once that more is taken than was declared."""
        request = user.request
        service, memory = request.service, request.memory
        before = self.peaks.get(service, 0)
        self._peaks.note(service, user.kind, peak)
        if memory is not None and before <= request.need(0) < peak:
            details = {"declared": print_size(memory), "peak": f"{gib(peak)}GiB"}
            log.warning(Event.GPU_MEMORY_ABOVE_DECLARED, service=service, **details)

    def _all_owners(self, snapshot: GpuSnapshot) -> dict[int, Hashable | None]:
        """Returns which worker each process is of, once for all workers that are looked after."""
        if not snapshot.names_processes:
            return {}
        pids = {holder.pid for gpu in snapshot.gpus for holder in gpu.holders}
        return {pid: self._owner(pid) for pid in pids}

    def _measure(self, snapshot: GpuSnapshot) -> dict[Hashable, dict[str, int]]:
        """Returns the bytes that each worker holds, with the processes that it started, by the name
        of the GPU.
        """
        found: dict[Hashable, dict[str, int]] = {}
        for gpu in snapshot.gpus if snapshot.names_processes else ():
            for holder in gpu.holders:
                worker = self._owners.get(holder.pid) if holder.memory else None
                if worker is not None and holder.memory is not None:
                    held = found.setdefault(worker, {})
                    held[gpu.visible] = held.get(gpu.visible, 0) + holder.memory
        return found

    async def figures(self, worker: Hashable) -> AsyncIterator[dict[str, int]]:
        """Yields the bytes that a worker holds, by the name of the GPU, whenever new figures come:
        from the first that are made after this call. Empty: it holds none, or that is not known.
        """
        first = self._taken + _SNAPSHOTS_UNTIL_SEEN
        while True:
            await self._news.wait()
            if self._taken >= first:
                yield self._held.get(worker, {})

    def memory_of(self, pids: Collection[int]) -> int:
        """Returns the bytes that some processes hold together, as far as that is known."""
        if self.snapshot is None or not self.snapshot.names_processes:
            return 0
        holders = (holder for gpu in self.snapshot.gpus for holder in gpu.holders)
        return sum(holder.memory or 0 for holder in holders if holder.pid in pids)

    async def holders(self, worker: Hashable) -> AsyncIterator[dict[int, HeldMemory] | None]:
        """Yields what each process of a worker holds, by pid, whenever new figures come; None: that
        is not known.
        """
        while True:
            await self._news.wait()
            yield self._holders_of(worker)

    def _holders_of(self, worker: Hashable) -> dict[int, HeldMemory] | None:
        if self.snapshot is None or not self.snapshot.names_processes:
            return None
        found: dict[int, HeldMemory] = {}
        for gpu in self.snapshot.gpus:
            for holder in gpu.holders:
                if self._owners.get(holder.pid) == worker:
                    memory = found.get(holder.pid, HeldMemory()).memory + (holder.memory or 0)
                    found[holder.pid] = HeldMemory(memory, holder.name)
        return found

    def _owner(self, pid: int) -> Hashable | None:
        """Returns the worker that a process is, or that has started it."""
        workers = {user.pid: worker for worker, user in self._users.items()}
        found = owner_of(pid, workers)
        return workers[found] if found is not None else None

    def visible(self, gpu: str, name: str) -> str:
        """Returns what a GPU that was called `name` is called now: its number may have shifted."""
        known = self.snapshot.by_id.get(gpu) if self.snapshot is not None else None
        return known.number if known is not None and known.number and name.isdigit() else name

    def _id(self, name: str) -> str:
        """Returns the id of a GPU that a plan calls `name`: a number, if it knew no better."""
        found = self.snapshot.find(name) if self.snapshot is not None else None
        return found.id if found is not None else name

    # who starts

    def why_not(self, plan: ServicePlan, gpus: tuple[str, ...]) -> GpuWait | None:
        """Returns why no worker of a service may start on these GPUs now; None if one may."""
        request = request_of(plan) if gpus else None
        if request is None:
            return None
        found = next(self._reasons(_User(request, 0, 0, gpus, kind_of(plan)), plan), None)
        self._holds_up = self._holds_up or found is not None
        return found

    def _reasons(self, newcomer: _User, plan: ServicePlan) -> Iterator[GpuWait]:
        known = self.snapshot.gpus if self.snapshot is not None else ()
        for gpu in newcomer.gpus:
            if reason := self.quarantine.reason(gpu, known):
                name = self.visible(gpu, plan.gpu_names.get(gpu, gpu))
                text = f"GPU {name} is in quarantine: {reason}"
                yield GpuWait(text, ("quarantine", gpu), is_lasting=True)
        for gpu in newcomer.gpus:
            if newcomer.is_counted and not plan.is_task:
                yield from self._turn(gpu, plan)
        if newcomer.request.memory is None or self.snapshot is None:
            return
        for name in newcomer.gpus:
            gpu_ = self.snapshot.find(name)
            if gpu_ is not None and gpu_.total:
                yield from self._lack(gpu_, newcomer.request)

    def _turn(self, gpu: str, plan: ServicePlan) -> Iterator[GpuWait]:
        for user in self._users.values():
            starts = user.is_counted and user.seen_from is None
            if starts and self._id(gpu) in map(self._id, user.gpus):
                name = self.visible(gpu, plan.gpu_names.get(gpu, gpu))
                text = f"GPU {name}: waits until {user} is ready"
                yield GpuWait(text, ("turn", gpu, str(user)), is_turn=True)

    def _lack(self, gpu: Gpu, request: GpuRequest) -> Iterator[GpuWait]:
        """Yields a reason if too little of a GPU is free."""
        needed, free = request.need(gpu.total), max(0, gpu.free - self._unseen(gpu.id, gpu.total))
        if free >= needed:
            return
        assert request.memory is not None
        asked = request.memory if free < request.memory else needed
        text = f"GPU {gpu.visible}: {gib(free)} of {gib(asked)} GiB free"
        holders: list[GpuHolder] = []
        if self.snapshot is not None and self.snapshot.names_processes:
            holders = sorted(gpu.holders, key=lambda each: -(each.memory or 0))[:_MOST_HOLDERS]
        texts = [text, *map(self._holder_text, holders)]
        yield GpuWait(", ".join(texts), (gpu.id, *(holder.pid for holder in holders)))

    def _unseen(self, gpu: str, total: int) -> int:
        """Returns the bytes that workers which started lately may have taken since the snapshot."""
        return sum(
            user.request.need(total)
            for user in self._users.values()
            if gpu in map(self._id, user.gpus)
            and user.request.memory is not None
            and (user.seen_from is None or self._taken < user.seen_from)
        )

    def _holder_text(self, holder: GpuHolder) -> str:
        worker = self._owner(holder.pid)
        much = f"{gib(holder.memory)} GiB" if holder.memory is not None else "some"
        if worker is not None:
            return f"{much} held by {self._users[worker]} (pid {holder.pid})"
        name = printable(holder.name or name_of(holder.pid) or "a program")
        return f"{much} held by pid {holder.pid} ({name}, not servd's)"

    def started(self, worker: StartingWorker, plan: ServicePlan, gpus: tuple[str, ...]) -> None:
        """A worker was started: no other starts on its GPUs until it is `settled`."""
        request = request_of(plan) if gpus else None
        if request is not None:
            seen = self._taken + _SNAPSHOTS_UNTIL_SEEN if plan.is_task else None
            self._users[worker] = _User(request, worker.slot, worker.pid, gpus, kind_of(plan), seen)

    def settled(self, worker: Hashable) -> None:
        """A worker is ready, or will not become it."""
        user = self._users.get(worker)
        if user is not None and user.seen_from is None:
            user.seen_from = self._taken + _SNAPSHOTS_UNTIL_SEEN
            self._forget_peaks(user)
            self._wake_up(changed=True)

    def gone(self, worker: Hashable) -> None:
        """A worker has been reaped."""
        user = self._users.pop(worker, None)
        if user is not None:
            self._forget_peaks(user)
            self._wake_up(changed=True)

    def _forget_peaks(self, user: _User) -> None:
        """Forgets what workers took that others have replaced."""
        service = user.request.service
        running = (
            each.kind
            for each in self._users.values()
            if each.request.service == service and each.seen_from is not None
        )
        self._peaks.forget_others(service, running)

    def changed(self) -> None:
        """A GPU has been released."""
        self._wake_up()

    def _wake_up(self, *, changed: bool = False) -> None:
        if not self._holds_up:
            return
        self._holds_up = False
        self._wake()
        if changed and self._holds_up:
            self.look()
