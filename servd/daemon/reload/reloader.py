"""Reloading: one at a time, from the text of the configuration to an outcome."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import time
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Protocol, get_args

import structlog

from servd.config.load import Loaded
from servd.config.model import Config
from servd.core.diagnostics import Diagnostic
from servd.core.errors import ConfigError, ServdError
from servd.daemon.reload.request import Outcome, OutdatedError, ReloadReport, ReloadRequest
from servd.daemon.reload.settings import SettingsChange, changed_keys, needs_restart
from servd.host.facts import inspect_host, read_texts
from servd.host.gpus import equipped, gpu_diagnostic
from servd.plan.build import build_loaded
from servd.plan.change import Change
from servd.plan.diff import diff
from servd.plan.gpus import GpuError
from servd.plan.host import Host
from servd.plan.model import Plan
from servd.plan.overrides import (
    Override,
    RefusedError,
    acted,
    effective_overrides,
    surviving,
    with_overrides,
)
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.supervisor import Supervisor
from servd.wire.shm_counters import BOUNDS

log = structlog.get_logger()


class ReloadStatistics:
    """Reloads since the daemon began: how many came out how, and how long they took in all, with
    one count for each bucket of durations.
    """

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = dict.fromkeys(get_args(Outcome), 0)
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.last_successful = True

    def add(self, report: ReloadReport) -> None:
        """One more is over."""
        self.outcomes[report.outcome] += 1
        self.buckets[bisect_left(BOUNDS, report.seconds)] += 1
        self.seconds += report.seconds
        self.last_successful = report.error is None


class Settings(Protocol):
    """What of the daemon itself a reload can change."""

    async def prepare(self, before: Config, after: Config) -> SettingsChange:
        """Everything that may fail. Raises `ServdError`."""


@dataclass(frozen=True, slots=True)
class Planned:
    """A configuration that was read, with what it says, what shall run (that, and what was set by
    hand), and the changes that this leads to.
    """

    loaded: Loaded
    file: Plan
    overrides: dict[str, Override]
    plan: Plan
    changes: tuple[Change, ...]


class Reloader:
    """Knows the configuration that is in force, and brings another one into force.

    `boot` names this run of the daemon. Whoever holds `turn` keeps reloads waiting.
    """

    def __init__(
        self,
        loaded: Loaded,
        read: Callable[[], Loaded],
        host: Host,
        supervisor: Supervisor,
        settings: Settings,
        now: Callable[[], str],
        boot: str,
    ) -> None:
        self.loaded = loaded
        self.file = Plan()
        self.overrides: dict[str, Override] = {}
        self.generation = 1
        self.boot = boot
        self._revision = 1
        self.loaded_at = now()
        self.last: ReloadReport | None = None
        self.last_act: ReloadReport | None = None
        self.history = ReloadStatistics()
        self.seen = loaded
        self.before_reading: Callable[[], None] = lambda: None
        self.after_reading: Callable[[], None] = lambda: None
        self._read = read
        self._host = host
        self._supervisor = supervisor
        self._settings = settings
        self._now = now
        self._waiting: deque[tuple[ReloadRequest, asyncio.Future[ReloadReport]]] = deque()
        self._worker: asyncio.Task[None] | None = None
        self.turn = asyncio.Lock()
        self.why_too_late = "servd is stopping"

    def request(self, request: ReloadRequest) -> asyncio.Future[ReloadReport]:
        """Asks for a reload. One runs at a time; whatever is asked for meanwhile becomes one more,
        whose report all who asked get; what is asked for by hand takes its turn.

        The future raises `RefusedError` for what cannot be done now, and `OutdatedError` where the
        revision is another.
        """
        loop = asyncio.get_running_loop()
        if self._supervisor.engine.stopping.is_set():
            answer = loop.create_future()
            answer.set_result(self._too_late(request))
            return answer
        if self._waiting and self._waiting[-1][0].joins(request):
            waiting, future = self._waiting.pop()
            self._waiting.append((waiting.joined(request), future))
        else:
            self._waiting.append((request, loop.create_future()))
        if self._worker is None or self._worker.done():
            self._worker = loop.create_task(self._work())
        return self._waiting[-1][1]

    async def _work(self) -> None:
        while self._waiting:
            request, future = self._waiting.popleft()
            try:
                async with self.turn:
                    stopping = self._supervisor.engine.stopping.is_set()
                    report = self._too_late(request) if stopping else await self._reload(request)
            except asyncio.CancelledError:
                if not future.done():
                    future.set_result(self._too_late(request))
                raise
            except (RefusedError, OutdatedError) as error:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # whoever asked may be gone: nothing is lost with it
                continue
            except Exception as error:  # whoever waits must get an answer
                log.exception("internal error")
                cause = f"internal error: {error!r}"
                report = ReloadReport("rolled_back", self._now(), request.why, error=cause)
                self._note(request, report)
                with contextlib.suppress(Exception):  # the same may be in its way
                    self.after_reading()
            if not future.done():
                future.set_result(report)

    async def stop(self) -> None:
        """Ends a reload that is under way: everything of it is undone."""
        if self._worker is not None:
            self._worker.cancel()
            await asyncio.wait({self._worker})
        for request, future in self._waiting:
            if not future.done():
                future.set_result(self._too_late(request))
        self._waiting.clear()

    def _too_late(self, request: ReloadRequest) -> ReloadReport:
        return ReloadReport("rolled_back", self._now(), request.why, error=self.why_too_late)

    @property
    def busy(self) -> bool:
        """Whether a reload is under way."""
        return self._worker is not None and not self._worker.done()

    @property
    def revision(self) -> str:
        """Another for everything that was applied: an entity tag (RFC 9110) for who wants to change
        just what they have seen.
        """
        return f"{self.boot}-{self._revision}"

    async def plan(self, roll: Collection[str] = ()) -> Planned:
        """What a reload would do now. Raises `ConfigError`."""
        return await asyncio.to_thread(self._plan, ReloadRequest("plan", roll=frozenset(roll)))

    def restart_needed(self, after: Config) -> tuple[str, ...]:
        """Keys in which `after` differs from what the daemon was started with, in vain."""
        return needs_restart(changed_keys(self.loaded.config, after))

    def _plan(self, request: ReloadRequest) -> Planned:
        """Reads and compares; in a thread, since files may be slow.

        Raises `ConfigError` and `RefusedError`.
        """
        loaded = self._load() if request.read else self.loaded
        running = self._supervisor.plan
        if request.read:
            ports = ports_of(running)
            environ = self._host.environ
            host = inspect_host(loaded.config, environ, ports=True, known_ports=ports)
            file = build_loaded(loaded, host, running.runtime_dir)
        else:
            file = with_new_certificates(self.file) if request.certificates else self.file
        overrides = surviving(self.overrides, self.loaded.config, loaded.config)
        gone = request.roll - file.by_name.keys()
        if gone and not request.read:
            raise RefusedError(f'there is no service "{min(gone)}" any more')
        if request.act is not None:
            overrides = acted(overrides, request.act, file)
        overrides = effective_overrides(overrides, file)
        plan = self._equipped(loaded, with_overrides(file, overrides), request)
        roll = request.roll | (_all_that_roll(plan) if request.roll_all else frozenset())
        return Planned(loaded, file, overrides, plan, diff(running, plan, roll))

    def _equipped(self, loaded: Loaded, plan: Plan, request: ReloadRequest) -> Plan:
        """Raises `ConfigError` where the file asks for too many GPUs, `RefusedError` where what is
        done by hand does.
        """
        try:
            return equipped(loaded, plan, self._host.environ, self._supervisor.plan)[0]
        except GpuError as error:
            if request.by_hand:
                raise RefusedError(str(error)) from None
            raise ConfigError([gpu_diagnostic(loaded, error)]) from None

    def _load(self) -> Loaded:
        self.seen = self._read()
        return self.seen.require()

    async def _reload(self, request: ReloadRequest) -> ReloadReport:
        started = time.monotonic()
        if request.seen is not None and self.revision not in request.seen:
            raise OutdatedError("what runs has changed since it was looked at")
        log.info("reload started", why=request.why)
        self.before_reading()
        try:
            report = await self._outcome(request)
        except RefusedError as error:
            log.warning("reload refused", why=request.why, error=str(error))
            self.after_reading()
            raise
        seconds = round(time.monotonic() - started, 3)
        report = dataclasses.replace(report, seconds=seconds, since=self.loaded_at)
        self._note(request, report)
        self.after_reading()
        return report

    def _note(self, request: ReloadRequest, report: ReloadReport) -> None:
        """Keeps what became of it, and says it."""
        if request.by_hand:
            self.last_act = report
        else:
            self.last = report
            self.history.add(report)
        _tell(report)

    async def _outcome(self, request: ReloadRequest) -> ReloadReport:
        now, why = self._now(), request.why
        try:
            planned = await asyncio.to_thread(self._plan, request)
        except ConfigError as error:
            details = tuple(diagnostic.summary() for diagnostic in error.diagnostics)
            first = details[0] if details else str(error)
            trace = "\n".join(d.trace for d in error.diagnostics if d.trace).splitlines()
            return ReloadReport(
                "invalid", now, why, error=first, details=details, last_lines=tuple(trace)
            )
        except RefusedError:
            raise
        except ServdError as error:
            return ReloadReport("invalid", now, why, error=str(error))
        log.info("reload planned", why=why, changes=_in_brief(planned.changes))
        before, after = self.loaded.config, planned.loaded.config
        changed_settings = changed_keys(before, after)
        restart = needs_restart(changed_settings)
        try:
            settings = await self._settings.prepare(before, after)
        except ServdError as error:
            return ReloadReport("rolled_back", now, why, planned.changes, error=str(error))
        try:
            drains = await self._supervisor.apply(
                planned.changes, planned.plan, retry=not request.by_hand
            )
        except ApplyError as error:
            await settings.undo()
            return ReloadReport(
                "rolled_back",
                now,
                why,
                planned.changes,
                error=str(error),
                service=error.service,
                last_lines=error.last_lines,
            )
        except asyncio.CancelledError:
            await settings.undo()
            raise
        await settings.commit()
        for warning in planned.loaded.warnings:
            tell_warning(warning)
        changed = bool(planned.changes or changed_settings)
        self.file, self.overrides = planned.file, planned.overrides
        self.loaded = dataclasses.replace(
            planned.loaded, config=_kept(planned.loaded.config, before, restart)
        )
        if changed:
            self.generation += 1
            self._revision += 1
            self.loaded_at = now
        outcome: Outcome = "applied" if changed else "unchanged"
        return ReloadReport(
            outcome, now, why, planned.changes, restart_needed=restart, drains=tuple(drains)
        )


def tell_warning(warning: Diagnostic) -> None:
    """Something that a person should know of a configuration that runs all the same."""
    trace = {"exception": warning.trace} if warning.trace else {}
    log.warning("config warning", warning=warning.summary(), **trace)


def with_new_certificates(plan: Plan) -> Plan:
    """`plan` with the content that the certificate and key files of rotating services have now."""
    services = []
    for service in plan.services:
        tls = service.definition.tls
        if tls is not None and service.tls is not None and tls.rotate:
            texts = read_texts((tls.certfile, tls.keyfile))
            pair = (texts.get(tls.certfile, ""), texts.get(tls.keyfile, ""))
            fresh = dataclasses.replace(service.tls, certificate=pair[0], key=pair[1])
            services.append(dataclasses.replace(service, tls=fresh))
        else:
            services.append(service)
    return dataclasses.replace(plan, services=tuple(services))


def _all_that_roll(plan: Plan) -> set[str]:
    """Every service, but for tasks that run once."""
    return {s.name for s in plan.services if not (s.is_task and s.definition.run == "once")}


def ports_of(plan: Plan) -> dict[str, int]:
    """Ports that were chosen for commands that bind themselves: they keep them."""
    return {
        service.name: service.addresses[0].port
        for service in plan.services
        if service.binds_itself and service.addresses and service.addresses[0].kind == "tcp"
    }


def _kept(after: Config, before: Config, restart: Collection[str]) -> Config:
    """`after`, but for the keys that only a restart applies: those are as they were."""
    names = [key.removeprefix("daemon.") for key in restart]
    kept = {name: getattr(before.daemon, name) for name in names}
    return after.model_copy(update={"daemon": after.daemon.model_copy(update=kept)})


def _in_brief(changes: Collection[Change]) -> list[str]:
    return [f"{change.sign} {change.service} {change.kind}" for change in changes]


def _tell(report: ReloadReport) -> None:
    """The reload as one event, with everything that a person needs to act."""
    fields: dict[str, Any] = {
        "outcome": report.outcome,
        "why": report.why,
        "seconds": report.seconds,
        "changes": _in_brief(report.changes),
    }
    if report.restart_needed:
        fields["restart_needed"] = list(report.restart_needed)
    if report.error is None:
        log.info("reload finished", **fields)
        return
    for name in ("error", "service"):
        if getattr(report, name) is not None:
            fields["failed_service" if name == "service" else name] = getattr(report, name)
    for name in ("details", "last_lines"):
        if getattr(report, name):
            fields[name] = list(getattr(report, name))
    log.error("reload failed", **fields)
