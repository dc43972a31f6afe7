"""Reloads the configuration, one reload at a time: from its text to an outcome."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any, Protocol

import structlog

from servd.config.load import Loaded
from servd.config.model import Config
from servd.core import gc_tuning
from servd.core.diagnostics import Diagnostic
from servd.core.errors import ConfigError, ServdError
from servd.core.events import Event
from servd.daemon.reload.desired import DesiredState
from servd.daemon.reload.held_up import HeldUpError, HeldUpReloads
from servd.daemon.reload.planner import Planned, Planner
from servd.daemon.reload.queue import ReloadQueue
from servd.daemon.reload.request import Outcome, OutdatedError, ReloadReport, ReloadRequest
from servd.daemon.reload.settings import SettingsChange, changed_keys, needs_restart, setting_rows
from servd.daemon.reload.statistics import ReloadStatistics
from servd.daemon.reload.untold import UntoldReport
from servd.plan.change import Change
from servd.plan.diff import diff
from servd.plan.fingerprint import fingerprint
from servd.plan.model import Plan
from servd.plan.overrides import FollowLoad, RefusedError
from servd.plan.render_changes import SettingRow
from servd.supervisor.apply.mode import MANUAL, RELOAD, ApplyMode
from servd.supervisor.apply.transaction import ApplyError
from servd.supervisor.supervisor import Supervisor

log = structlog.get_logger()


class Settings(Protocol):
    """The daemon's own settings."""

    async def prepare(self, before: Config, after: Config) -> SettingsChange:
        """Prepares all that may fail. Raises `ServdError`."""


class ReloadObserver(Protocol):
    """Follows the files that reloads read, and what they bring into force."""

    def before_reading(self) -> None:
        """Called before files are read."""

    def watch(self, seen: Loaded, desired: DesiredState) -> None:
        """Watches what was read last, and what is in force."""

    def before_applying(self, plan: Plan) -> None:
        """Called before `plan` is applied."""

    def after_reload(self, seen: Loaded, desired: DesiredState) -> None:
        """Called after a reload: `seen` was read last, `desired` is in force."""


class Reloader:
    """Owns the desired state, and brings into force what the queue asks for. `boot` names this run
    of the daemon. Holding `turn` keeps reloads waiting. `last` is the last reload that changed
    something or failed; an unchanged one does not hide it:
    `unchanged_at` is its time.
    """

    def __init__(
        self,
        desired: DesiredState,
        read: Callable[[], Loaded],
        planner: Planner,
        queue: ReloadQueue,
        supervisor: Supervisor,
        settings: Settings,
        observer: ReloadObserver,
        now: Callable[[], str],
        boot: str,
    ) -> None:
        self.desired = desired
        self.boot = boot
        self.last: ReloadReport | None = None
        self.unchanged_at: str | None = None
        self.last_act: ReloadReport | None = None
        self.history = ReloadStatistics()
        self.turn = asyncio.Lock()
        self._untold = UntoldReport()
        self._seen = desired.loaded
        self._read = read
        self._planner = planner
        self._queue = queue
        self._supervisor = supervisor
        self._held_up = HeldUpReloads(queue, supervisor)
        self._settings = settings
        self._observer = observer
        self._now = now
        self._begun = asyncio.Event()
        self._at_work = False
        self._key = secrets.token_bytes(32)
        self._worker = asyncio.get_running_loop().create_task(self._work())

    async def begin(self, mode: ApplyMode) -> None:
        """Applies the desired state where nothing runs yet. Raises as `Supervisor.apply`."""
        async with self.turn:
            plan = self.desired.plan
            await self._supervisor.apply(diff(self._supervisor.plan, plan), plan, mode)
        self._begun.set()

    def watch(self) -> None:
        """Starts to watch for what calls for a reload."""
        self._observer.watch(self._seen, self.desired)

    async def _work(self) -> None:
        while True:
            request, future = await self._queue.take()
            self._at_work = True
            try:
                report = await self._served(request)
            except asyncio.CancelledError:
                if not future.done():
                    future.set_result(self._queue.refused(request))
                raise
            except HeldUpError as error:
                self._held_up.park(request, future, error)
                self._is_over()  # whoever is told sees what it waits for
            except (RefusedError, OutdatedError) as error:
                if not future.done():
                    future.set_exception(error)
                    future.exception()  # the caller may be gone
            else:
                if not future.done():
                    future.set_result(report)
            finally:
                self._at_work = False

    async def _served(self, request: ReloadRequest) -> ReloadReport:
        """Returns the report of a request. Raises as `_outcome`."""
        try:
            await self._begun.wait()  # a signal may come before the first start
            async with self.turn:
                if self._supervisor.context.stopping.is_set():
                    return self._queue.refused(request)
                return await self._told_already(request) or await self._reload(request)
        except (RefusedError, OutdatedError, HeldUpError):
            raise
        except Exception as error:  # the caller must get an answer
            log.exception(Event.INTERNAL_ERROR)
            cause = f"internal error: {error!r}"
            since = self.desired.loaded_at
            report = ReloadReport("rolled_back", self._now(), request.why, error=cause, since=since)
            self._record(request, report)
            self._is_over()
            return report

    async def stop(self) -> None:
        """Cancels a reload that is under way, and undoes all of it."""
        self._held_up.stop()
        self._worker.cancel()
        await asyncio.wait({self._worker})
        self._queue.close()

    @property
    def is_busy(self) -> bool:
        """Whether a reload is under way, or waits for its turn."""
        return self._at_work or not self._queue.is_empty

    @property
    def is_reloading(self) -> bool:
        """Whether a reload is under way; one that waits for a drain is not."""
        return self._at_work or self._queue.has_next

    @property
    def revision(self) -> str:
        """An entity tag (RFC 9110) of what is applied, to change only what a caller has seen."""
        return self._revision_of(self.desired)

    def _revision_of(self, desired: DesiredState) -> str:
        return f"{self.boot}-{desired.revision}"

    async def plan(self, *, roll: bool = False) -> Planned:
        """Returns what a reload would do now, or one that replaces every service (`roll`). Raises
        `ConfigError`.
        """
        return await self._planned(ReloadRequest("plan", roll_all=roll), tag=True)

    def settings(self, after: Loaded) -> tuple[SettingRow, ...]:
        """Returns what `after` changes of the settings in force."""
        return setting_rows(self.desired.loaded, after)

    def restart_needed(self, after: Config) -> tuple[str, ...]:
        """Returns the keys of `after` that differ from the settings in force and need a restart."""
        return needs_restart(changed_keys(self.desired.loaded.config, after))

    async def _planned(self, request: ReloadRequest, *, tag: bool) -> Planned:
        """Plans with what the programs that would change bind now: how each is replaced depends on
        it. The others are not looked at. Raises as `_plan`.
        """
        addresses = self._supervisor.addresses
        try:
            planned = await asyncio.to_thread(self._plan, request, tag=tag)
        except ServdError:
            if not await addresses.look():
                raise
        else:
            if not await addresses.look({change.service for change in planned.changes}):
                return planned
        return await asyncio.to_thread(self._plan, request, tag=tag)

    def _plan(self, request: ReloadRequest, *, tag: bool) -> Planned:
        """Plans, with the plan's tag only on demand: it is made of the whole configuration.

        Raises `ConfigError` and `RefusedError`.
        """
        plan = self._supervisor.addresses.with_found(self.desired.plan)
        desired = replace(self.desired, plan=plan)
        loaded = desired.loaded
        with gc_tuning.paused():
            if request.read:
                self._seen = self._read()
                loaded = self._seen.require()
            planned = self._planner.next(loaded, desired, request)
        if not tag:
            return planned
        kinds = [(change.service, change.kind) for change in planned.changes]
        values = (planned.desired.plan, loaded.config, loaded.digest, kinds)
        made_of = fingerprint(self._key, *values)
        return replace(planned, tag=f"{self._revision_of(desired)}.{made_of}")

    async def _told_already(self, request: ReloadRequest) -> ReloadReport | None:
        """Returns the report of the reload that the request came into, if that is its answer."""
        if not self._untold.may_answer(request):
            return None
        try:
            return self._untold.take((await asyncio.to_thread(self._read)).digest)
        except ServdError:
            return None

    async def _reload(self, request: ReloadRequest) -> ReloadReport:
        started = time.monotonic()
        seen = request.seen
        if seen is not None and self.revision not in {tag.partition(".")[0] for tag in seen}:
            raise OutdatedError("the running state changed after it was read")
        log.info(Event.RELOAD_STARTED, reason=request.why)
        self._observer.before_reading()
        try:
            report = await self._outcome(request)
        except (RefusedError, OutdatedError) as error:
            log.warning(Event.RELOAD_REFUSED, reason=request.why, error=str(error))
            self._is_over()
            raise
        seconds = round(time.monotonic() - started, 3)
        report = replace(report, seconds=seconds, since=self.desired.loaded_at)
        self._record(request, report)
        self._is_over()
        return self._untold.answer(request, report, self._seen.digest)

    def _is_over(self) -> None:
        """Tells the observer; a fault there does not change what became of the reload."""
        try:
            self._observer.after_reload(self._seen, self.desired)
        except Exception:
            log.exception(Event.INTERNAL_ERROR)

    def _record(self, request: ReloadRequest, report: ReloadReport) -> None:
        """Keeps the report, and logs it."""
        if isinstance(request.act, FollowLoad):
            pass  # nobody's act
        elif request.by_hand:
            self.last_act = report
        else:
            if report.outcome != "unchanged" or self.last is None:
                self.last, self.unchanged_at = report, None
            else:
                self.unchanged_at = report.at
            self.history.add(report)
        _log_outcome(report)

    async def _outcome(self, request: ReloadRequest) -> ReloadReport:
        """Plans and applies. Raises `RefusedError`, `OutdatedError` and `HeldUpError`."""
        report = ReloadReport("rolled_back", self._now(), request.why)
        try:
            planned = await self._planned(request, tag=request.seen is not None)
        except RefusedError:
            raise
        except ServdError as error:
            return _invalid(report, error)
        if request.seen is not None and request.seen.isdisjoint((self.revision, planned.tag)):
            raise OutdatedError("the configuration or a file that it reads changed after the plan")
        self._held_up.check(request, planned.changes)
        report = replace(report, changes=planned.changes, by_hand_ends=planned.by_hand_ends)
        log.info(Event.RELOAD_PLANNED, reason=request.why, changes=_in_brief(planned.changes))
        try:
            drains = await self._apply(planned, MANUAL if request.by_hand else RELOAD)
        except ApplyError as error:
            lines = error.last_lines
            return replace(report, error=str(error), service=error.service, last_lines=lines)
        except ServdError as error:
            return replace(report, error=str(error))
        told = self.desired.loaded.warnings if request.is_retry else ()
        for warning in (*planned.desired.loaded.warnings, *planned.warnings):
            if warning not in told:
                log_warning(warning)
        return self._bring_into_force(planned, replace(report, drains=tuple(drains)))

    async def _apply(self, planned: Planned, mode: ApplyMode) -> list[asyncio.Task[Any]]:
        """Raises `ServdError` after undoing everything, the daemon's own settings too."""
        before, after = self.desired.loaded.config, planned.desired.loaded.config
        settings = await self._settings.prepare(before, after)
        self._observer.before_applying(planned.desired.plan)
        try:
            drains = await self._supervisor.apply(planned.changes, planned.desired.plan, mode)
        except BaseException:
            await settings.undo()
            raise
        await settings.commit()
        return drains

    def _bring_into_force(self, planned: Planned, report: ReloadReport) -> ReloadReport:
        """Makes the planned state the desired one."""
        loaded, before = planned.desired.loaded, self.desired
        changed_settings = changed_keys(before.loaded.config, loaded.config)
        restart = needs_restart(changed_settings)
        settings = setting_rows(before.loaded, loaded)
        changed = bool(planned.changes or changed_settings)
        config = _kept(loaded.config, before.loaded.config, restart)
        self.desired = replace(
            planned.desired,
            loaded=replace(loaded, config=config),
            loaded_at=report.at if changed else before.loaded_at,
            revision=before.revision + changed,
        )
        outcome: Outcome = "applied" if changed else "unchanged"
        return replace(report, outcome=outcome, settings=settings, restart_needed=restart)


def _invalid(report: ReloadReport, error: ServdError) -> ReloadReport:
    """Returns the report of a configuration that cannot be planned."""
    report = replace(report, outcome="invalid", error=str(error))
    if not isinstance(error, ConfigError):
        return report
    details = tuple(diagnostic.summary() for diagnostic in error.diagnostics)
    trace = "\n".join(d.trace for d in error.diagnostics if d.trace).splitlines()
    first = details[0] if details else str(error)
    return replace(report, error=first, details=details, last_lines=tuple(trace))


def log_warning(warning: Diagnostic) -> None:
    """Logs a warning about a configuration that runs all the same."""
    trace = {"exception": warning.trace} if warning.trace else {}
    log.warning(Event.CONFIG_WARNING, warning=warning.summary(), **trace)


def _kept(after: Config, before: Config, restart: Collection[str]) -> Config:
    """Returns `after` with the old values of keys that only a restart applies."""
    names = [key.removeprefix("daemon.") for key in restart]
    kept = {name: getattr(before.daemon, name) for name in names}
    return after.model_copy(update={"daemon": after.daemon.model_copy(update=kept)})


def _in_brief(changes: Collection[Change]) -> list[str]:
    return [f"{change.sign} {change.service} {change.kind}" for change in changes]


def _log_outcome(report: ReloadReport) -> None:
    """Logs the reload as one event, with all that a person needs to act."""
    fields: dict[str, Any] = {
        "outcome": report.outcome,
        "reason": report.why,
        "seconds": report.seconds,
        "changes": _in_brief(report.changes),
    }
    if report.restart_needed:
        fields["restart_needed"] = list(report.restart_needed)
    if report.by_hand_ends:
        fields["by_hand_ends"] = [end.service for end in report.by_hand_ends]
    if report.error is None:
        log.info(Event.RELOAD_FINISHED, **fields)
        return
    fields["error"] = report.error
    if report.service is not None:
        fields["failed_service"] = report.service
    for name, lines in (("details", report.details), ("last_lines", report.last_lines)):
        if lines:
            fields[name] = list(lines)
    log.error(Event.RELOAD_FAILED, **fields)
