"""Where a watcher's workers come from: a template of many services, one that has loaded their app,
or their program.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Mapping
from typing import Protocol

from servd.config.service import ServiceLog
from servd.plan.model import ServicePlan
from servd.supervisor.circus.launch import Launch
from servd.supervisor.circus.outputs import ProcessOutputs
from servd.supervisor.circus.start_limiter import StartLimiter
from servd.supervisor.exit_text import describe
from servd.supervisor.io.pipes import open_pipes
from servd.supervisor.templates.forked import Forking, kill_with_group
from servd.supervisor.templates.registry import TemplateKey, Templates
from servd.supervisor.templates.requests import (
    identity_options,
    streams_of,
    template_environment,
    template_request,
    template_spec,
)
from servd.supervisor.templates.start import MODULE, StartedTemplate, start
from servd.supervisor.templates.template import Template, TemplateError

_ABORT_SECONDS = 1.0
"""Time for a template that takes too long to print where it is."""


class WorkerSource(Protocol):
    """Provides what the next worker is forked from."""

    @property
    def template(self) -> Forking | None:
        """The template."""

    def prepare(self, launch: Launch) -> bool:
        """Returns whether a worker can be started now; otherwise begins what it needs. Raises
        OSError, once, when that has failed.
        """

    def print_to(self, options: ServiceLog) -> None:
        """What is printed goes to the file of `options` from now on, if they name one."""

    def close(self) -> None:
        """No more workers are started."""


def worker_source(
    plan: ServicePlan, templates: Templates, limiter: StartLimiter, changed: Callable[[], object]
) -> WorkerSource:
    """Returns the source for a generation with `plan`."""
    if plan.preloads:
        return PreloadedApp(templates, limiter, changed)
    return SharedRuntime(templates, templates.key_of(plan))


class SharedRuntime:
    """A template that has imported what all workers need; or none, for programs. The process that
    has described the code of a BentoML service is better still, for one worker.
    """

    def __init__(self, templates: Templates, key: TemplateKey | None) -> None:
        self.template: Forking | None = None
        self._templates = templates
        self._key = key
        self._keeps = False

    def prepare(self, launch: Launch) -> bool:
        """Implements `WorkerSource`."""
        self._keep(wanted=launch.plan.workers == 1)
        if (described := self._templates.described(launch.plan)) is not None:
            self.template = described
            return True
        can_start, self.template = self._templates.get(self._key)
        return can_start

    def _keep(self, *, wanted: bool) -> None:
        if wanted != self._keeps:
            self._keeps = wanted
            act = self._templates.keep if wanted else self._templates.let_go
            act(self._key)

    def print_to(self, options: ServiceLog) -> None:
        """Implements `WorkerSource`."""

    def close(self) -> None:
        """Implements `WorkerSource`."""
        self._keep(wanted=False)


class PreloadedApp:
    """A template of its own, which loads the app before the first worker is forked. One that could
    not load it is used for the workers that wait, which report why, and then replaced.
    """

    def __init__(
        self, templates: Templates, limiter: StartLimiter, changed: Callable[[], object]
    ) -> None:
        self.template: Template | None = None
        self._templates = templates
        self._limiter = limiter
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._outputs: ProcessOutputs | None = None
        self._events = -1
        self._spec = ""
        self._overdue: asyncio.TimerHandle | None = None
        self._is_late = False
        self._seconds = 0.0

    def prepare(self, launch: Launch) -> bool:
        """Implements `WorkerSource`."""
        template = self.template
        if template is None:
            can_start, base = self._base(launch)
            if can_start:
                self._begin(launch, base)
            return False
        if not template.is_alive:
            self._raise_failure(template)
            return False  # it is killed, and not reaped yet
        if template.loaded is False:
            self._loop.call_soon(self._drop, template)
        return template.loaded is not None

    def _base(self, launch: Launch) -> tuple[bool, Template | None]:
        """A template that imports the runtime is the shortest way to one that loads the app."""
        return self._templates.get(self._templates.key_of(launch.plan))

    def _begin(self, launch: Launch, base: Template | None) -> None:
        started, reading = self._early(launch) or self._fresh(launch, base)
        try:
            self.template = Template(*started, self._has_changed)
        except OSError:
            self._abandon(started, reading)
            raise
        self._limiter.enter(self)
        self._seconds = launch.plan.startup
        self._overdue = self._loop.call_later(launch.plan.startup, self._abort)
        self._outputs = ProcessOutputs(launch)
        self._outputs.open(reading, pid=self.template.pid)

    def _abandon(self, started: StartedTemplate, reading: Mapping[str, int]) -> None:
        """Ends a template that cannot be looked after: the kernel may lack pidfd_open(2)."""
        started.socket.close()
        kill_with_group(started.process)
        started.process.wait()
        for descriptor in reading.values():
            os.close(descriptor)
        self._close_events()

    def _close_events(self) -> None:
        if self._events >= 0:
            os.close(self._events)
            self._events = -1

    def _early(self, launch: Launch) -> tuple[StartedTemplate, Mapping[str, int]] | None:
        """Returns one that has been loading the app beside the imports of the daemon."""
        early = self._templates.early_apps.take(launch.plan, launch.generation)
        if early is None:
            return None
        try:
            return early.claim(), early.reading
        except OSError:
            return None

    def _fresh(
        self, launch: Launch, base: Template | None
    ) -> tuple[StartedTemplate, Mapping[str, int]]:
        plan = launch.plan
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as handed:
            reading, writing = open_pipes(streams_of(plan), undo, handed)
            os.set_blocking(writing["events"], False)
            started = self._fork(launch, base, writing) or self._start(launch, writing)
            undo.pop_all()
            self._events = os.dup(writing["events"])
        self._spec = template_spec(plan, launch.generation).to_json()
        return started, reading

    @staticmethod
    def _fork(
        launch: Launch, base: Template | None, writing: dict[str, int]
    ) -> StartedTemplate | None:
        if base is None:
            return None
        request = template_request(launch.plan, launch.generation)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                passed = [writing["stdout"], writing["stderr"], theirs.fileno()]
                return StartedTemplate(base.fork(request, passed), ours)
            except OSError as error:
                ours.close()
                if not isinstance(error, TemplateError):
                    raise
                return None

    @staticmethod
    def _start(launch: Launch, writing: dict[str, int]) -> StartedTemplate:
        plan = launch.plan
        return start(
            plan.argv_of(MODULE),
            template_environment(plan, launch.generation),
            stdout=writing["stdout"],
            stderr=writing["stderr"],
            directory=plan.directory,
            **identity_options(plan),
        )

    def _has_changed(self) -> None:
        template = self.template
        if template is None:
            return
        if template.is_alive and template.is_ready and self._events >= 0:
            events, self._events = self._events, -1
            try:
                template.load(self._spec, events)
            except OSError:
                template.kill()
            os.close(events)
            return
        if template.loaded is not None or not template.is_alive:
            self._is_over()
            self._changed()

    def _is_over(self) -> None:
        """It has loaded the app, or will not."""
        self._limiter.leave(self)
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _abort(self) -> None:
        self._is_late = True
        if self.template is not None:
            self.template.abort()
            self._overdue = self._loop.call_later(_ABORT_SECONDS, self.template.kill)

    def _raise_failure(self, template: Template) -> None:
        status = template.status
        if self._is_late:
            reason = f"the app was not imported within {self._seconds:g} s (timeouts.startup)"
        elif status is None:
            return
        else:
            reason = f"the template, which imports the app, {describe(status)}"
        self._drop(template)
        raise OSError(errno.ECHILD, reason)

    def _drop(self, template: Template) -> None:
        """Ends a template; the next worker needs another one."""
        if template is not self.template:
            return
        self.template = None
        self._is_late = False
        self._is_over()
        self._close_events()
        template.kill()
        if self._outputs is not None:
            self._outputs.close()
            self._outputs = None

    def print_to(self, options: ServiceLog) -> None:
        """Implements `WorkerSource`."""
        if self._outputs is not None:
            self._outputs.print_to(options)

    def close(self) -> None:
        """Implements `WorkerSource`."""
        if self.template is not None:
            self._drop(self.template)
