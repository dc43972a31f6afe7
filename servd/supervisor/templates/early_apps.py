"""Loads apps of services with `preload` beside the imports of the daemon: a template forks the
process as soon as the configuration is known, and a generation takes it over when it would have
begun it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence

from servd.core.processes import adopt_orphans, descendants_of
from servd.core.quick_dataclass import dataclass
from servd.plan.model import ServicePlan
from servd.supervisor.app_folders import make_app_folders
from servd.supervisor.io.pipes import open_pipes
from servd.supervisor.templates.forked import ForkedProcess, kill_with_group
from servd.supervisor.templates.requests import streams_of, template_request, template_spec
from servd.supervisor.templates.start import MODULE, StartedTemplate, early_for
from servd.supervisor.templates.template import answer_of, request_fork, require_child
from servd.wire.fork_request import LOAD, ForkRequest, send

_GENERATION = 1


@dataclass(slots=True)
class EarlyApp:
    """A process that loads the app of a service: what it was asked with, and the daemon's ends of
    what it has got: its socket, what it writes, and the answer to the request.
    """

    service: str
    request: ForkRequest
    spec: str
    socket: socket.socket
    reading: Mapping[str, int]
    answer: int

    def claim(self) -> StartedTemplate:
        """Returns it, as a template that was asked to load its app. Raises OSError when there is
        none; its descriptors are closed then.
        """
        try:
            process = self._process()
        except OSError:
            self._close()
            raise
        os.close(self.answer)
        return StartedTemplate(process, self.socket)

    def _process(self) -> ForkedProcess:
        process = answer_of(self.answer)
        require_child(process.pid)
        return process

    def drop(self) -> None:
        """Has it end, with what the app's import has started. Whoever adopts it reaps it."""
        with contextlib.suppress(OSError):
            process = self._process()
            for pid in [*descendants_of([process.pid])][1:]:
                with contextlib.suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            kill_with_group(process)
            process.poll()
        self._close()

    def _close(self) -> None:
        self.socket.close()
        for descriptor in (self.answer, *self.reading.values()):
            os.close(descriptor)


class EarlyApps:
    """Those that no generation has taken yet."""

    def __init__(self) -> None:
        self._waiting: dict[str, EarlyApp] = {}

    def begin(self, plans: Sequence[ServicePlan], at_once: int) -> None:
        """Begins to load the apps of the `plans` that can be, `at_once` at most."""
        with contextlib.suppress(OSError):  # their generations try it again, and report it
            for plan in [plan for plan in plans if _can_begin(plan)][:at_once]:
                self._waiting[plan.name] = _begun(plan)

    def take(self, plan: ServicePlan, generation: int) -> EarlyApp | None:
        """Returns that of a generation, once. Ends one that was asked for something else."""
        found = self._waiting.pop(plan.name, None)
        if found is None:
            return None
        asked = (found.request, found.spec)
        if asked == (template_request(plan, generation), template_spec(plan, generation).to_json()):
            return found
        found.drop()
        return None

    def drop(self) -> None:
        """Ends all of them."""
        while self._waiting:
            _, app = self._waiting.popitem()
            app.drop()


def _can_begin(plan: ServicePlan) -> bool:
    """Whether its generation would begin with it, from the template that started with the daemon,
    and without waiting for other services.
    """
    if not plan.preloads or plan.depends_on or not plan.workers:
        return False
    return early_for(plan.argv_of(MODULE), plan.environment) is not None


def _begun(plan: ServicePlan) -> EarlyApp:
    """Asks for the process, and for its app: both are read when they can be. Raises OSError."""
    early = early_for(plan.argv_of(MODULE), plan.environment)
    assert early is not None
    adopt_orphans()
    make_app_folders(plan)
    early.socket.setblocking(False)  # it reads once it has imported its own
    request, spec = template_request(plan, _GENERATION), template_spec(plan, _GENERATION).to_json()
    with contextlib.ExitStack() as undo, contextlib.ExitStack() as handed:
        reading, writing = open_pipes(streams_of(plan), undo, handed)
        os.set_blocking(writing["events"], False)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handed.callback(theirs.close)
        undo.callback(ours.close)
        passed = [writing["stdout"], writing["stderr"], theirs.fileno()]
        send(ours, json.dumps({"do": LOAD, "spec": spec}), [writing["events"]])
        answer = request_fork(early.socket, request, passed)
        undo.pop_all()
    return EarlyApp(plan.name, request, spec, ours, reading, answer)
