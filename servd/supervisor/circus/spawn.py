"""Starts the process of a worker: forks it from a template, or runs its program."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
from collections.abc import Callable
from dataclasses import field

from servd.core.quick_dataclass import dataclass
from servd.plan.model import IdentityPlan
from servd.supervisor.circus.launch import Launch
from servd.supervisor.io.notify_socket import NotifySocket
from servd.supervisor.io.pipes import open_pipes
from servd.supervisor.templates.forked import Child, Forking
from servd.supervisor.templates.requests import fork_request, identity_options, streams_of
from servd.supervisor.templates.template import TemplateError
from servd.wire.shm_counters import CounterView


@dataclass(slots=True)
class Spawned:
    """A process that has been started, and the daemon's ends of what it has got. `inherited`: its
    descriptors by name, with the numbers that its spec gives them.
    """

    child: Child
    notify: NotifySocket
    channel: socket.socket
    outputs: dict[str, int]
    counters: CounterView | None = None
    seat: int = 0
    inherited: dict[str, int] = field(default_factory=dict)


def spawn(
    launch: Launch,
    slot: int,
    template: Forking | None,
    notified: Callable[[dict[str, str]], None],
) -> Spawned:
    """Starts the worker in `slot`, which waits for its spec. Raises OSError with the cause."""
    context, identity = launch.context, launch.plan.identity
    owner = identity.account.uid if identity.account is not None else None
    counters: CounterView | None = None
    seat = 0
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as handed:
        notify = NotifySocket(context.notify_folder, owner, notified, context.budget)
        undo.callback(notify.close)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        undo.callback(ours.close)
        handed.callback(theirs.close)
        outputs, writing = open_pipes(streams_of(launch.plan), undo, handed)
        inherited: dict[str, int] = {}
        if launch.plan.app is not None:
            inherited["events"] = writing["events"]
            os.set_blocking(inherited["events"], False)
            memory = context.counters.open(launch.plan.name)
            counters, seat = memory.reading, memory.seat
            inherited |= {"counters": memory.descriptor, "board": memory.board}
            undo.callback(context.counters.close, launch.plan.name, counters)
            handed.callback(os.close, memory.descriptor)
        sockets = [sock.fileno() for _, sock in launch.sockets]
        process = _Process(launch, slot, notify.path, theirs.fileno(), writing)
        descriptors = [*sockets, *inherited.values()]
        child = process.fork(template, descriptors) or process.run(descriptors)
        undo.pop_all()
    return Spawned(child, notify, ours, outputs, counters, seat, inherited)


@dataclass(frozen=True, slots=True)
class _Process:
    launch: Launch
    slot: int
    notify_path: str
    channel: int
    writing: dict[str, int]

    def fork(self, template: Forking | None, descriptors: list[int]) -> Child | None:
        """Forks it; returns None where that cannot be done, and running a program can."""
        if template is None:
            return None
        plan = self.launch.plan
        request = fork_request(
            plan,
            self.launch.environment(self.slot, self.notify_path),
            f"servd: worker {self.slot} of {plan.name}",
            numbers=tuple(descriptors),
            has_identity=plan.preloads,
        )
        stdio = [self.writing["stdout"], self.writing["stderr"]]
        passed = [*stdio, self.channel, *descriptors]
        try:
            return template.fork(request, passed)
        except TemplateError:
            if plan.preloads:
                raise
            return None

    def run(self, descriptors: list[int]) -> Child:
        """Runs its program."""
        return subprocess.Popen(
            self.launch.argv(self.channel),
            stdin=subprocess.DEVNULL,
            stdout=self.writing["stdout"],
            stderr=self.writing["stderr"],
            pass_fds=[self.channel, *descriptors],
            cwd=self.launch.plan.directory,
            env=self.launch.environment(self.slot, self.notify_path),
            start_new_session=True,
            **identity_options(self.launch.plan),
        )


def raise_limits(pid: int, identity: IdentityPlan) -> None:
    """Raises hard limits beyond the daemon's own where the config says so: the process sets its
    limits, but only the daemon may be privileged to raise them.
    """
    for name, value in identity.rlimits:
        kind = getattr(resource, f"RLIMIT_{name.upper()}", None)
        highest = resource.getrlimit(kind)[1] if kind is not None else -1
        if kind is not None and highest != -1 and (value == -1 or value > highest):
            with contextlib.suppress(ValueError, OSError):  # the process reports it
                resource.prlimit(pid, kind, (value, value))
