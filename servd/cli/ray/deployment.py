"""Deploys to Ray Serve: group by group, in the order of the graph, and back if one fails."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from servd.cli.ray.applications import (
    AppConfig,
    RunningApplication,
    running_applications,
    waves,
)
from servd.core.errors import ServdError

POLL_SECONDS = 0.5
_LAST_LINES = 12


class DeployFailedError(ServdError):
    """An application does not run, for the reason in the message."""


class ServeApi(Protocol):
    """What is used of the dashboard."""

    def details(self) -> dict[str, Any]:
        """Returns what Ray Serve runs."""

    def put(self, document: Mapping[str, Any]) -> None:
        """Has Ray Serve run these applications."""


class Deployment:
    """Leads a cluster from the applications that it runs to others. `options` are those of the
    whole document; `clock` and `pause` measure and let pass time; `tell` shows a line.
    """

    def __init__(
        self,
        dashboard: ServeApi,
        options: Mapping[str, Any],
        *,
        patience: float,
        tell: Callable[[str], None],
        clock: Callable[[], float],
        pause: Callable[[float], None],
    ) -> None:
        self._dashboard, self._options, self._patience = dashboard, options, patience
        self._tell, self._clock, self._pause = tell, clock, pause

    def apply(
        self,
        before: Mapping[str, RunningApplication],
        wanted: Mapping[str, AppConfig],
        needs: Mapping[str, Sequence[str]],
        changed: Iterable[str],
    ) -> None:
        """Applies the changes. Raises `DeployFailedError` at the first application that fails."""
        present = {name: each.config for name, each in before.items() if each.config is not None}
        for group in waves(wanted, needs, set(changed)):
            moved = with_routes_freed(group, present, wanted, before)
            present |= {name: wanted[name] for name in moved}
            self._put(present)
            self._wait({name: wanted[name] for name in moved})
        gone = [name for name, each in before.items() if each.is_ours and name not in wanted]
        if gone:
            self._put({name: each for name, each in present.items() if name not in gone})
            self._wait_gone(gone)

    def put_back(self, before: Mapping[str, RunningApplication]) -> None:
        """Puts the applications back that ran before. Raises `DeployFailedError`."""
        present = {name: each.config for name, each in before.items() if each.config is not None}
        self._put(present)
        self._wait({n: config for n, config in present.items() if before[n].status == "RUNNING"})

    def _put(self, applications: Mapping[str, AppConfig]) -> None:
        self._dashboard.put({**self._options, "applications": list(applications.values())})

    def _wait(self, wanted: Mapping[str, AppConfig]) -> None:
        """Waits until the applications run with their configurations."""
        shown: dict[str, str] = {}
        end = self._clock() + self._patience
        while True:
            found = running_applications(self._dashboard.details())
            waiting: list[str] = []
            for name, config in wanted.items():
                each = found.get(name)
                is_new = each is not None and each.has(config)
                text = _progress(each) if each is not None and is_new else "waiting"
                if shown.get(name) != text:
                    shown[name] = text
                    self._tell(f"{name}  {text}")
                if each is not None and is_new and each.status == "DEPLOY_FAILED":
                    raise DeployFailedError(f"{name} failed:\n{last_lines(each.message)}")
                if not (each is not None and is_new and each.status == "RUNNING"):
                    waiting.append(f"{name} ({text})")
            if not waiting:
                return
            if self._clock() > end:
                raise DeployFailedError(
                    f"not running after {self._patience:g} s: {', '.join(waiting)}"
                )
            self._pause(POLL_SECONDS)

    def _wait_gone(self, names: Sequence[str]) -> None:
        end = self._clock() + self._patience
        while left := [n for n in names if n in running_applications(self._dashboard.details())]:
            if self._clock() > end:
                raise DeployFailedError(f"still there: {', '.join(left)}")
            self._pause(POLL_SECONDS)
        for name in names:
            self._tell(f"{name}  removed")


def with_routes_freed(
    group: Sequence[str],
    present: dict[str, AppConfig],
    wanted: Mapping[str, AppConfig],
    before: Mapping[str, RunningApplication],
) -> list[str]:
    """Returns the applications that are deployed together with a group, since they have the routes
    that it gets: Ray wants routes to be unique. Takes those from `present` that are removed anyway.
    Raises `DeployFailedError` if a route belongs to somebody else.
    """
    moved = list(group)
    for name in moved:  # grows meanwhile
        route = wanted[name]["route_prefix"]
        for other in [o for o, config in present.items() if config.get("route_prefix") == route]:
            if route is None or other in moved:
                continue
            if not before[other].is_ours:
                raise DeployFailedError(f"{name} cannot have {route}: {other} has that route")
            if other in wanted:
                moved.append(other)
            else:
                del present[other]
    return moved


def _progress(each: RunningApplication) -> str:
    return f"{each.status} {each.ready}/{each.desired}" if each.desired else each.status


def last_lines(message: str) -> str:
    """Returns the end of a message of Ray, which has the reason."""
    lines = [line.rstrip() for line in message.splitlines() if line.strip()]
    return "\n".join(lines[-_LAST_LINES:]) or "Ray gives no reason"
