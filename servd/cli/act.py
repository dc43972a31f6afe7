"""Actions of the daemon: sends the request, shows its progress and prints the outcome."""

from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import click

from servd.cli.admin_options import admin_client, admin_options
from servd.cli.render.outcome import show_outcome
from servd.cli.render.output import say
from servd.control.client import AdminClient, Answer
from servd.core.errors import Exit, ServdError, UsageError
from servd.core.events import Event
from servd.core.quick_dataclass import dataclass

SHORTEST = 0.1
"""Minimum of `--timeout`, since a request takes time."""

AT_ONCE = 0.4
"""Actions that end within this many seconds show no progress."""

_LAST_STEPS = (Event.RELOAD_FINISHED, Event.RELOAD_FAILED, Event.RELOAD_REFUSED)
_WORKER_STEPS = {
    Event.WORKER_STARTED, Event.WORKER_READY, Event.WORKER_DIED, Event.WORKER_HUNG,
    Event.WORKER_NOT_RECYCLED, Event.WORKER_KEPT, Event.WORKER_HEALTHY_AGAIN,
    Event.WORKER_DRAINING, Event.WORKER_ENDED, Event.WORKER_KILLED,
}  # fmt: skip
_SERVICE_STEPS = {
    Event.SERVICE_WAITING, Event.SERVICE_STARTING, Event.SERVICE_ROLLING, Event.SERVICE_DEGRADED,
    Event.SERVICE_BACKOFF, Event.SERVICE_STOPPED, Event.SERVICE_FAILED, Event.SERVICE_COMPLETED,
    Event.SERVICE_CANNOT_START, Event.TASK_COMPLETED,
}  # fmt: skip
_EVENTS = "/v1/events?lines=0"


@dataclass(frozen=True, slots=True)
class ActOptions:
    """How to request an action and show its outcome."""

    config: str | None
    admin: str | None
    wait_drained: bool
    timeout: float | None
    quiet: bool
    as_json: bool


def _seconds(_: click.Context, __: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    from servd.config.scalars import parse_duration

    try:
        seconds = float(text) if text.isdecimal() else parse_duration(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    if seconds < SHORTEST:
        raise click.BadParameter(f"must be at least {SHORTEST:g} s")
    return seconds


def seconds_option(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Returns the option `--timeout` with this help text; the command gets seconds, or None."""
    return click.option("--timeout", callback=_seconds, metavar="DURATION", help=text)


def act_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that all actions share; the command gets them as one `ActOptions`."""

    def called(**given: Any) -> int:
        options = ActOptions(**{field.name: given.pop(field.name) for field in fields(ActOptions)})
        status: int = command(options=options, **given)
        return status

    called.__doc__ = command.__doc__
    called.__click_params__ = getattr(command, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the outcome as JSON."),
        click.option("-q", "--quiet", is_flag=True, help="Print the outcome only, no progress."),
        seconds_option(
            "Stop waiting after this time, such as 30s; the action continues.  [default: no limit]"
        ),
        click.option(
            "--wait-drained", is_flag=True, help="Wait until all old workers have exited."
        ),
    ):
        called = option(called)
    return admin_options(called)


def now_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--now`."""
    text = "Cut old workers short that answer requests, where a third generation would wait. "
    text += "Holds for every reload that waits at the time."
    return click.option("--now", is_flag=True, help=text)(command)


def only_if(**given: bool) -> dict[str, Any]:
    """Returns the options that are set: an older daemon does not know them."""
    return {name: value for name, value in given.items() if value}


def act(options: ActOptions, route: str, unchanged: str = "", **body: Any) -> int:
    """Sends an action to the daemon, as `AdminClient.post` does, and returns the exit status.
    `unchanged` is the message if there was nothing to do.
    """
    return _act(admin_client(options.config, options.admin), options, route, unchanged, body)


def _act(
    client: AdminClient, options: ActOptions, route: str, unchanged: str, body: dict[str, Any]
) -> int:
    body = {"wait_drained": options.wait_drained, **body}
    answer = watched(client, lambda: client.post(route, **body), options)
    if answer is None:
        return Exit.FAILED
    return show_outcome(answer, as_json=options.as_json, unchanged=unchanged)


def act_on_each(
    options: ActOptions, names: Sequence[str], verb: str, unchanged: str = "", **body: Any
) -> int:
    """Acts on several services, one after another; returns the first exit status that is not 0."""
    routes = {name: service_route(name, verb) for name in names}
    client = admin_client(options.config, options.admin)
    statuses = [
        _act(client, options, route, f"{name} {unchanged}" if unchanged else "", body)
        for name, route in routes.items()
    ]
    return next(filter(None, statuses), Exit.OK)


def service_route(name: str, verb: str) -> str:
    """Returns the route of an action on one service. Raises `UsageError` for an empty name."""
    from urllib.parse import quote

    if not name:
        raise UsageError("service name is missing")
    return f"/v1/services/{quote(name, safe='')}/{verb}"


def watched(client: AdminClient, ask: Callable[[], Answer], options: ActOptions) -> Answer | None:
    """Returns the answer and shows the progress meanwhile. After the timeout, says so and returns
    None.
    """
    deadline = None if options.timeout is None else time.monotonic() + options.timeout
    heard: queue.SimpleQueue[Answer | Exception | dict[str, Any]] = queue.SimpleQueue()
    if not options.quiet:
        _listen(client, heard, 1.0 if options.timeout is None else min(1.0, options.timeout / 2))

    def work() -> None:
        try:
            heard.put(ask())
        except Exception as error:
            heard.put(error)

    threading.Thread(target=work, daemon=True).start()
    progress = Progress()
    while True:
        try:
            item = heard.get(timeout=progress.patience(deadline))
        except queue.Empty:
            if deadline is not None and time.monotonic() >= deadline:
                say(f"not finished after {options.timeout:g} s; it continues (see `servd status`)")
                return None
            progress.show()
            continue
        if isinstance(item, Answer):
            if progress.shows:
                _hear_out(heard, progress)
            return item
        if isinstance(item, Exception):
            raise item
        progress.add(item)


def _hear_out(heard: queue.SimpleQueue[Any], progress: Progress) -> None:
    """Shows the events that happened before the answer, which may have overtaken them."""
    end = time.monotonic() + AT_ONCE
    while not progress.over and (left := end - time.monotonic()) > 0:
        try:
            item = heard.get(timeout=left)
        except queue.Empty:
            return
        if isinstance(item, dict):
            progress.add(item)


def _listen(client: AdminClient, heard: queue.SimpleQueue[Any], patience: float) -> None:
    """Puts every event into `heard`; returns when that has begun, or after `patience` seconds."""
    begun = threading.Event()

    def work() -> None:
        try:
            for data in client.follow(_EVENTS):
                begun.set()
                if data:
                    heard.put(json.loads(data))
        except (ServdError, ValueError):
            return
        finally:
            begun.set()

    threading.Thread(target=work, daemon=True).start()
    begun.wait(patience)


class Progress:
    """Progress lines, held back until an action takes longer than `AT_ONCE`."""

    def __init__(self) -> None:
        self._held: list[str] = []
        self._begun = time.monotonic()
        self.shows = False
        self.over = False

    def patience(self, deadline: float | None) -> float | None:
        """Returns how many seconds to wait for the next event; None for no limit."""
        now = time.monotonic()
        times = [] if self.shows else [self._begun + AT_ONCE]
        times += [] if deadline is None else [deadline]
        return max(0.0, min(times) - now) if times else None

    def add(self, event: dict[str, Any]) -> None:
        """Adds an event; the last step of a reload sets `over`."""
        self.over = event["event"] in _LAST_STEPS
        if line := described(event):
            self._held.append(line)
        if self.shows:
            self.show()

    def show(self) -> None:
        """Shows the held lines; later lines appear immediately."""
        if time.monotonic() < self._begun + AT_ONCE:
            return
        self.shows = True
        for line in self._held:
            say(line)
        self._held.clear()


def described(event: dict[str, Any]) -> str:
    """Returns a daemon event as a progress line; empty for other events."""
    name, lead = event["event"], f"  {event.get('service')}"
    step = name.partition(" ")[2]  # of "worker ready"
    if name in _WORKER_STEPS:
        after = f" after {event['seconds']:.1f} s" if name == Event.WORKER_READY else ""
        reason = f": {event['reason']}" if "reason" in event else ""
        worker = f"worker {event['worker']} (generation {event['generation']})"
        return f"{lead} {worker} {step}{after}{reason}"
    if name == Event.RELOAD_WAITS:
        return f"  {name}: {event['reason']}"
    if name in _SERVICE_STEPS:
        cause = event.get("error") or event.get("reason") or event.get("waiting_for")
        return f"{lead} {step}" + (f": {cause}" if cause else "")
    return ""
