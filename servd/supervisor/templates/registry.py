"""The templates that workers of several services are forked from."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from servd.core.quick_dataclass import dataclass
from servd.plan.model import ServicePlan
from servd.supervisor.templates.described import DescribedCode, Describing
from servd.supervisor.templates.early_apps import EarlyApps
from servd.supervisor.templates.start import (
    ARGV,
    MODULE,
    StartedTemplate,
    start,
    take_early,
    variables_at_start,
)
from servd.supervisor.templates.template import Template

_START_SECONDS = 10.0
_MAX_FAILURES = 3
"""Templates that ended by themselves, after which workers are started without one."""

IDLE_SECONDS = 5.0
"""Time without a start of a worker after which a template ends: it would only hold memory, and the
next start waits some tenths of a second for another one. Where a service has only one worker, its
clients would wait too: such a service keeps its template.
"""


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """An interpreter, and the variables that it was started with."""

    argv: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


def _key(argv: tuple[str, ...], environment: Mapping[str, str]) -> TemplateKey:
    return TemplateKey(argv, tuple(sorted(variables_at_start(environment).items())))


class Templates:
    """Starts templates where they pay, and ends those that have been idle for `idle_seconds`.
    `changed` is called when one can be used, or no longer.
    """

    def __init__(
        self,
        changed: Callable[[], object] = lambda: None,
        *,
        enabled: bool = True,
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        self._changed = changed
        self._idle_seconds = idle_seconds
        self._enabled = enabled and sys.platform == "linux"
        self._running: dict[TemplateKey, Template] = {}
        self._timers: dict[TemplateKey, asyncio.TimerHandle] = {}
        self._failures: Counter[TemplateKey] = Counter()
        self._kept_by: Counter[TemplateKey] = Counter()
        self._early: TemplateKey | None = None
        self._described: list[DescribedCode] = []
        self.early_apps = EarlyApps()

    def adopt_early(self, apps: EarlyApps | None = None) -> None:
        """Takes over the template that was started before the daemon's loop, and the apps that are
        being loaded since.
        """
        self.early_apps = apps or self.early_apps
        early = take_early()
        if early is not None:
            started, variables = early
            self._early = _key(ARGV, variables)
            self._adopt(self._early, started)

    def add_described(self, processes: Iterable[Describing], plans: Sequence[ServicePlan]) -> None:
        """Takes over processes that have described the code of BentoML services; ends those that
        fit none of the `plans`: they may hold a model, and a device.
        """
        for process in processes:
            code = DescribedCode(process)
            if self._enabled and any(map(code.fits, plans)):
                self._described.append(code)
            else:
                code.end()

    def described(self, plan: ServicePlan) -> DescribedCode | None:
        """Returns one that can become a worker by `plan`."""
        return next((each for each in self._described if each.fits(plan)), None)

    def end_unused(self) -> None:
        """Ends the processes of the start that nobody has taken."""
        self.early_apps.drop()
        described, self._described = self._described, []
        for each in described:
            each.end()

    def key_of(self, plan: ServicePlan) -> TemplateKey | None:
        """Returns what a template for a service needs; None if it should have none: it pays for
        several workers, or where it is there already.
        """
        if plan.app is None or not self._enabled:
            return None
        key = _key(tuple(plan.argv_of(MODULE)), plan.environment)
        pays = key == self._early or plan.workers > 1 or key in self._running
        return key if pays else None

    def keep(self, key: TemplateKey | None) -> None:
        """Lets a template be idle for as long as it is kept."""
        if key is not None:
            self._kept_by[key] += 1

    def let_go(self, key: TemplateKey | None) -> None:
        """Takes back one `keep`."""
        if key is None:
            return
        self._kept_by[key] -= 1
        template = self._running.get(key)
        if template is not None and template.is_ready:
            self._look_in(self._idle_seconds, key)

    def get(self, key: TemplateKey | None) -> tuple[bool, Template | None]:
        """Returns whether a worker can be started now, and the template to fork it from, if any.
        Starts a template that is missing.
        """
        if key is None or self._failures[key] >= _MAX_FAILURES:
            return True, None
        template = self._running.get(key)
        if template is None or not template.is_alive:
            template = self._start(key)
            if template is None:
                return True, None
        elif template.is_ready:
            self._look_in(self._idle_seconds, key)
        return template.is_ready, template

    def _start(self, key: TemplateKey) -> Template | None:
        try:
            return self._adopt(key, start(key.argv, dict(key.variables)))
        except OSError:
            return None

    def _adopt(self, key: TemplateKey, started: StartedTemplate) -> Template | None:
        """Looks after a template from now on; returns None if it has ended, or the kernel lacks
        pidfd_open(2).
        """
        try:
            template = Template(*started, self._on_change)
        except OSError:
            self._failures[key] += 1
            started.process.kill()
            started.process.wait()
            return None
        self._running[key] = template
        self._look_in(_START_SECONDS, key)
        return template

    def _look_in(self, seconds: float, key: TemplateKey) -> None:
        if (before := self._timers.get(key)) is not None:
            before.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._look, key)

    def _look(self, key: TemplateKey) -> None:
        """Ends a template that nobody has used since, or that does not get ready."""
        if self._running[key].is_ready:
            if not self._kept_by[key]:
                del self._timers[key]
                self._running.pop(key).close()
        else:
            self._running[key].kill()

    def _on_change(self) -> None:
        for key, template in list(self._running.items()):
            if not template.is_alive:
                del self._running[key]
                self._timers.pop(key).cancel()
                self._failures[key] += not template.is_ready
        self._changed()

    def close(self) -> None:
        """Ends all of them."""
        self._enabled = False
        self.end_unused()
        for key in list(self._running):
            self._timers.pop(key).cancel()
            self._running.pop(key).end()
