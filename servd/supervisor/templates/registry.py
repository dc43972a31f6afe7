"""The templates that workers of several services are forked from."""

from __future__ import annotations

import asyncio
import sys
from collections import Counter
from collections.abc import Callable, Mapping

from servd.core.quick_dataclass import dataclass
from servd.plan.model import ServicePlan
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

_KEPT_SECONDS = 5.0
"""Time that a template which no service needs is kept: a reload may need it again."""


@dataclass(frozen=True, slots=True)
class TemplateKey:
    """An interpreter, and the variables that it was started with."""

    argv: tuple[str, ...]
    variables: tuple[tuple[str, str], ...]


def _key(argv: tuple[str, ...], environment: Mapping[str, str]) -> TemplateKey:
    return TemplateKey(argv, tuple(sorted(variables_at_start(environment).items())))


class Templates:
    """Starts templates where they pay, and ends those that nobody uses. `changed` is called when
    one can be used, or no longer.
    """

    def __init__(
        self, changed: Callable[[], object] = lambda: None, *, enabled: bool = True
    ) -> None:
        self._changed = changed
        self._enabled = enabled and sys.platform == "linux"
        self._running: dict[TemplateKey, Template] = {}
        self._timers: dict[TemplateKey, asyncio.TimerHandle] = {}
        self._users: Counter[TemplateKey] = Counter()
        self._failures: Counter[TemplateKey] = Counter()
        self._early: TemplateKey | None = None
        self._dropping: asyncio.TimerHandle | None = None

    def adopt_early(self) -> None:
        """Takes over the template that was started before the daemon's loop."""
        early = take_early()
        if early is not None:
            started, variables = early
            self._early = _key(ARGV, variables)
            if self._adopt(self._early, started) is not None:
                self._drop_later()

    def key_of(self, plan: ServicePlan) -> TemplateKey | None:
        """Returns what a template for a service needs; None if it should have none: it pays for
        several workers, or where it is there already.
        """
        if plan.app is None or not self._enabled:
            return None
        key = _key(tuple(plan.argv_of(MODULE)), plan.environment)
        pays = key == self._early or plan.workers > 1 or key in self._running
        return key if pays else None

    def use(self, key: TemplateKey | None) -> None:
        """Keeps the template of `key` until `leave`."""
        if key is not None:
            self._users[key] += 1

    def leave(self, key: TemplateKey | None) -> None:
        """Allows the end of the template of `key`."""
        if key is not None:
            self._users[key] -= 1
            self._drop_later()

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
        return template.is_ready, template

    def _start(self, key: TemplateKey) -> Template | None:
        try:
            return self._adopt(key, start(key.argv, dict(key.variables)))
        except OSError:
            self._failures[key] += 1
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
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(_START_SECONDS, self._check_started, template)
        return template

    def _check_started(self, template: Template) -> None:
        if not template.is_ready:
            template.kill()

    def _on_change(self) -> None:
        for key, template in list(self._running.items()):
            if not template.is_alive:
                del self._running[key]
                self._timers.pop(key).cancel()
                self._failures[key] += not template.is_ready
        self._changed()

    def _drop_later(self) -> None:
        if self._dropping is None:
            loop = asyncio.get_running_loop()
            self._dropping = loop.call_later(_KEPT_SECONDS, self._drop_unused)

    def _drop_unused(self) -> None:
        self._dropping = None
        for key in [key for key in self._running if self._users[key] <= 0]:
            self._timers.pop(key).cancel()
            self._running.pop(key).close()

    def close(self) -> None:
        """Ends all of them."""
        self._enabled = False
        if self._dropping is not None:
            self._dropping.cancel()
        for key in list(self._running):
            self._timers.pop(key).cancel()
            self._running.pop(key).end()
