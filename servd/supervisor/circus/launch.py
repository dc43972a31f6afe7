"""What the processes of a generation are started with: arguments, environment, spec."""

from __future__ import annotations

import dataclasses
import os
import socket
from collections.abc import Mapping

from servd.core.quick_dataclass import dataclass
from servd.plan.gpus import VISIBLE
from servd.plan.model import ServicePlan
from servd.plan.threads import thread_limit
from servd.supervisor.circus.worker_context import WorkerContext
from servd.wire import names
from servd.wire.worker_spec import SocketSpec, WorkerSpec

_PROGRAM = os.path.join(
    os.path.dirname(os.path.dirname(os.path.dirname(__file__))), "worker", "program.py"
)


@dataclass(frozen=True, slots=True)
class Launch:
    """How a generation's workers are started. Without `accept`, those of an app get ready first."""

    plan: ServicePlan
    generation: int
    sockets: tuple[tuple[SocketSpec, socket.socket], ...]
    context: WorkerContext
    accept: bool = True

    @property
    def accepts_at_once(self) -> bool:
        """Whether a worker accepts once its app has started. A health check has to pass first, and
        warm-up requests have to be answered.
        """
        waits = self.plan.health is not None or self.plan.warmup is not None
        return self.accept and (self.plan.app is None or not waits)

    def argv(self, channel: int) -> list[str]:
        """The command line of a worker that reads its spec from the descriptor `channel`."""
        if self.plan.app is not None:
            return [*self.plan.argv_of("servd.worker"), str(channel)]
        return [self.plan.python, "-I", "-S", _PROGRAM, str(channel)]

    def gpus_of(self, slot: int) -> tuple[str, ...]:
        """The ids of the GPUs of the worker in `slot`."""
        return self.plan.gpus_of(slot)

    def environment(self, slot: int, notify_path: str) -> dict[str, str]:
        """The complete environment of the worker in `slot`."""
        called, room = self.plan.gpu_names, self.context.gpus
        shown = [room.visible(gpu, called.get(gpu, gpu)) for gpu in self.gpus_of(slot)]
        visible = {VISIBLE: ",".join(shown)} if shown else {}
        return {
            **self.plan.environment,
            **thread_limit(self.plan, slot),
            **visible,
            names.WORKER: str(slot),
            names.GENERATION: str(self.generation),
            names.NOTIFY_SOCKET: notify_path,
        }

    def spec(self, slot: int, seat: int, inherited: Mapping[str, int]) -> WorkerSpec:
        """The spec of the worker in `slot`, with the seat `seat` on the board of its service.
        `inherited`: its descriptors by name.
        """
        plan = self.plan
        identity = plan.identity
        affinity = identity.affinity
        return WorkerSpec(
            service=plan.name,
            worker=slot,
            generation=self.generation,
            stop_signal=plan.stop_signal,
            sockets=tuple(
                dataclasses.replace(item, fd=sock.fileno()) for item, sock in self.sockets
            ),
            app=plan.app,
            argv=tuple(a.replace("{worker}", str(slot)) for a in plan.command),
            rlimits=identity.rlimits,
            cpus=affinity[slot % len(affinity)] if affinity else (),
            no_new_privs=identity.account is not None or identity.gid is not None,
            tls=plan.tls,
            accept=self.accepts_at_once,
            watchdog=plan.watchdog,
            tells_sources=self.context.sources is not None,
            seat=seat,
            **inherited,
        )
