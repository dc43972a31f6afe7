"""Rules about the configuration as a whole: one small pure function a rule."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from servd import graph
from servd.config.address import EVERY_V4, EVERY_V6, Address
from servd.config.declared import RUN_ALIKE
from servd.config.explain import did_you_mean
from servd.config.layers import Layers
from servd.config.merge import is_file_target
from servd.config.model import Config
from servd.config.scalars import joined, print_duration, shown
from servd.config.service import Service
from servd.config.tree import Path, dotted
from servd.diagnostics import Diagnostic, Severity

SELF_BINDING = ("{port}", "{host}", "{uds}")
"""Placeholders of a command that binds its own address."""

_SHORTEST = {
    "watchdog": 0.2,
    "timeouts.headers": 0.1,
    "timeouts.body": 0.1,
    "timeouts.request": 0.001,
    "timeouts.request_total": 0.001,
    "health.interval": 0.1,
    "health.timeout": 0.01,
    "limits.max_age": 1.0,
}
"""Seconds that a time has to have at least."""

_NOT_OF_COMPONENTS = (
    "kind", "run", "ready", "activation", "stop_signal", "socket", "public_url", "proxy",
    "root_path", "tls",
)  # fmt: skip
_MOST_GPUS = 1024
_RUNNERS = ("app", "command", "bento")
_APP = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_WEB_ADDRESS = re.compile(r"https?://[^/\s]")
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


@dataclass(frozen=True, slots=True)
class Checked:
    """What the rules look at: the configuration as far as it is valid, and what was written."""

    config: Config
    layers: Layers
    damaged: bool = False
    homes: Mapping[str, Path] = field(default_factory=dict)
    """Where the settings of those services stand that the file does not name: components."""

    def at(self, path: Path) -> Path:
        """Where in the file the value stands that counts at `path`."""
        home = self.homes.get(str(path[1])) if path[:1] == ("services",) and path[1:] else None
        if home is None:
            return path
        own: Path = (*home, *path[2:])
        ways: list[Path] = [own, ("defaults", *path[2:])] if path[2:] else [own]
        if path[2:] and path[2] in RUN_ALIKE:
            ways.insert(1, (*home[:2], *path[2:]))
        return next((way for way in ways if self.layers.own(way)), own)

    def own(self, path: Path) -> bool:
        """Whether the file says something at `path` of just this service."""
        home = self.homes.get(str(path[1]))
        return self.layers.own((*home, *path[2:]) if home is not None else path)

    def problem(
        self,
        path: Path,
        message: str,
        hint: str = "",
        *,
        at_key: bool = False,
        severity: Severity = "error",
        code: str = "invalid",
    ) -> Diagnostic:
        """A diagnostic at the value of `path` (or its key)."""
        path = self.at(path)
        node, exact = self.layers.nearest(path)
        if not exact and not isinstance(node.value, dict):
            path = self.layers.resolved(path)  # `listen = ":80"` has no item 0
            exact = True
        place = node.key_place if at_key or not exact else node.place
        return Diagnostic(place, message, dotted(path), hint, severity, code)

    def written(self, path: Path) -> bool:
        """Whether somebody wrote something at `path`, valid or not."""
        return self.layers.nearest(path)[1]


Rule = Callable[[Checked], Iterator[Diagnostic]]


def check(checked: Checked) -> list[Diagnostic]:
    """What every rule finds."""
    return [diagnostic for rule in RULES for diagnostic in rule(checked)]


def something_to_run(checked: Checked) -> Iterator[Diagnostic]:
    """A service has exactly one of app, command and bento."""
    for name in checked.config.services.keys() - checked.homes.keys():
        path: Path = ("services", name)
        given = [key for key in _RUNNERS if checked.written((*path, key))]
        if not given and not checked.damaged:
            yield checked.problem(
                path, "nothing to run", 'write app = "module:app", command or bento', at_key=True
            )
        for key in given:
            if checked.layers.nearest((*path, key))[0].value in ("", ()):
                yield checked.problem((*path, key), "must not be empty")
        if len(given) > 1:
            yield checked.problem(
                (*path, given[1]), f"{joined(given)}: only one can run", at_key=True
            )


def app_is_a_target(checked: Checked) -> Iterator[Diagnostic]:
    """An app is "module:attr" or "path/file.py:app"."""
    for name, service in checked.config.services.items():
        if not service.app:
            continue
        path: Path = ("services", name, "app")
        target, _, attribute = service.app.rpartition(":")
        if is_file_target(service.app):
            if not _ATTRIBUTE.fullmatch(attribute):
                yield checked.problem(path, f"{shown(attribute)} is not the name of an attribute")
        elif not _APP.fullmatch(service.app):
            hint = f'did you mean "{service.app}:app"?' if not target else ""
            yield checked.problem(
                path,
                f'{shown(service.app)} is neither "module:attr" nor "path/file.py:app"',
                hint,
            )


def bentos_make_sense(checked: Checked) -> Iterator[Diagnostic]:
    """A BentoML service is not asked for what only an app has; nobody else has components."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name)
        if service.components and not service.bento:
            message = "only a BentoML service has components"
            yield checked.problem((*path, "components"), message, at_key=True)
        for key in ("factory", "interface", "preload"):
            if service.bento and checked.own((*path, key)):
                message = "means nothing for a BentoML service: its class is the app"
                yield checked.problem((*path, key), message, at_key=True)
        for key in _NOT_OF_COMPONENTS:
            if name in checked.homes and checked.own((*path, key)):
                message = "means nothing for a component, which only its service calls"
                yield checked.problem((*path, key), message, at_key=True)


def commands_make_sense(checked: Checked) -> Iterator[Diagnostic]:
    """What only apps have is not asked of a command, and binding is possible as it is asked for."""
    for name, service in checked.config.services.items():
        if not service.command:
            continue
        path: Path = ("services", name)
        if not service.command[0]:
            yield checked.problem((*path, "command"), "the program's name is empty")
        if service.tls is not None:
            yield checked.problem(
                (*path, "tls"),
                "a command ends TLS by itself; servd does it for apps only",
                at_key=True,
            )
        for key in ("concurrency", "queue", "max_requests", "max_requests_jitter"):
            limited = service.limits is not None and getattr(service.limits, key)
            if limited and checked.own((*path, "limits", key)):
                yield checked.problem(
                    (*path, "limits", key),
                    "the requests of a command are its own: servd limits those of apps only",
                )
        yield from _binding_makes_sense(checked, path, service)
        yield from _workers_can_be_asked(checked, path, service)


def _workers_can_be_asked(checked: Checked, path: Path, service: Service) -> Iterator[Diagnostic]:
    """Workers on one socket cannot be told apart from outside."""
    if service.health is None:
        return
    if service.kind == "task":
        if checked.own((*path, "health")):
            yield checked.problem((*path, "health"), "a task is well when it ends well")
    elif not binds_itself(service) and service.workers not in (0, 1):
        yield checked.problem(
            (*path, "health" if checked.own((*path, "health")) else "command"),
            "any of the workers that share the socket may answer a probe of its health",
            "write health = false, or workers = 1",
        )


def times_make_sense(checked: Checked) -> Iterator[Diagnostic]:
    """No time is so short that a daemon would do nothing else, or a worker never live."""
    for name, service in checked.config.services.items():
        for key, shortest in _SHORTEST.items():
            value: Any = service
            for step in key.split("."):
                value = getattr(value, step, None)
            if value is not None and value < shortest:
                yield checked.problem(
                    ("services", name, *key.split(".")),
                    f"{print_duration(value)} is too short: it can be {print_duration(shortest)}",
                )


def limits_make_sense(checked: Checked) -> Iterator[Diagnostic]:
    """No limit stands alone that means nothing without another."""
    for name, service in checked.config.services.items():
        limits, timeouts = service.limits, service.timeouts
        for needing, needed in (("queue", "concurrency"), ("max_requests_jitter", "max_requests")):
            if limits is not None and getattr(limits, needing) and not getattr(limits, needed):
                yield checked.problem(
                    ("services", name, "limits", needing), f"means nothing without {shown(needed)}"
                )
        first, whole = timeouts.request, timeouts.request_total
        if first is not None and whole is not None and first > whole:
            yield checked.problem(
                ("services", name, "timeouts", "request"),
                "is longer than request_total, which ends every request before",
            )


def gpus_make_sense(checked: Checked) -> Iterator[Diagnostic]:
    """A number of GPUs is a whole one, or the share of one that workers have in common."""
    places: list[tuple[Path, object]] = [
        (("services", name, "gpus"), service.gpus)
        for name, service in checked.config.services.items()
    ]
    for path, asked in places:
        if isinstance(asked, float) and (asked < 0 or (asked > 1 and asked != int(asked))):
            yield checked.problem(
                path, f"{asked:g} GPUs: write a whole number, or a share of one such as 0.5"
            )
    there = checked.config.daemon.gpus
    if isinstance(there, float) and not (there == int(there) and 0 <= there <= _MOST_GPUS):
        yield checked.problem(
            ("daemon", "gpus"), f"{there:g}: a machine has a whole number of GPUs"
        )


def tasks_are_commands(checked: Checked) -> Iterator[Diagnostic]:
    """A task is one program that runs to its end."""
    for name, service in checked.config.services.items():
        if service.kind != "task":
            continue
        path: Path = ("services", name)
        if not service.command and (service.app or service.bento):
            runner = "app" if service.app else "bento"
            message = f"{shown(runner)} never ends: a task is a command that runs to its end"
            yield checked.problem((*path, "kind"), message)
        if service.workers not in (0, 1, "auto"):
            yield checked.problem((*path, "workers"), "a task runs once, in one process")


def binds_itself(service: Service) -> bool:
    """Whether a command binds its address by itself rather than taking a socket from servd."""
    if service.activation != "auto":
        return service.activation == "self"
    return any(word in argument for argument in service.command for word in SELF_BINDING)


def _binding_makes_sense(checked: Checked, path: Path, service: Service) -> Iterator[Diagnostic]:
    if binds_itself(service):
        if service.workers not in (0, 1):
            yield checked.problem(
                (*path, "workers"),
                "a command that binds its own address can have one worker only",
                "use {fd} or LISTEN_FDS to share a socket",
            )
        kinds = {address.kind for address in service.listen}
        for word, kind in (("{port}", "unix"), ("{uds}", "tcp")):
            if kinds == {kind} and any(word in argument for argument in service.command):
                yield checked.problem(
                    (*path, "command"), f"{word} has no value: the service listens on {kind}"
                )
        return
    if service.ready in ("port", "http") and any(a.kind != "internal" for a in service.listen):
        yield checked.problem(
            (*path, "ready"),
            "servd binds the address, so anything that shares it may answer a probe",
            'use "notify" or "started"',
        )
    if service.activation == "fd" and any(
        word in argument for argument in service.command for word in SELF_BINDING
    ):
        yield checked.problem(
            (*path, "activation"),
            'with activation = "fd" servd binds: {port}, {host} and {uds} have no meaning',
        )


def dependencies_exist(checked: Checked) -> Iterator[Diagnostic]:
    """Every dependency is another service, named once, with a condition that it can meet."""
    names = sorted(checked.config.services)
    for name, service in checked.config.services.items():
        seen: set[str] = set()
        for index, dependency in enumerate(service.depends_on):
            path: Path = ("services", name, "depends_on", index)
            target = checked.config.services.get(dependency.service)
            if target is None and _is_component(dependency.service, checked.config):
                continue  # what components there are, only the code knows
            if dependency.service == name:
                yield checked.problem(path, "the service depends on itself", code="cycle")
            elif target is None:
                hint = did_you_mean(dependency.service, names)
                message = f"there is no service {shown(dependency.service)}"
                yield checked.problem(path, message, hint, code="unknown_dependency")
            elif dependency.service in seen:
                yield checked.problem(path, f"{shown(dependency.service)} is listed twice")
            elif dependency.condition == "completed" and target.kind != "task":
                message = f'{shown(dependency.service)} never completes: it is no kind = "task"'
                yield checked.problem(path, message)
            seen.add(dependency.service)


def _is_component(name: str, config: Config) -> bool:
    """Whether it may be a component of a BentoML service that has not been asked yet."""
    entry = config.services.get(name.partition(".")[0])
    return "." in name and entry is not None and bool(entry.bento) and not _is_expanded(config)


def _is_expanded(config: Config) -> bool:
    return any("." in name for name in config.services)


def no_cycles(checked: Checked) -> Iterator[Diagnostic]:
    """No service needs itself, by however many steps; the message shows the path."""
    services = checked.config.services
    needs = {
        name: [d.service for d in service.depends_on if d.service in services and d.service != name]
        for name, service in services.items()
    }
    for cycle in graph.cycles(needs):
        index = [d.service for d in services[cycle[0]].depends_on].index(cycle[1])
        yield checked.problem(
            ("services", cycle[0], "depends_on", index),
            f"the services need each other: {' -> '.join(cycle)}",
            code="cycle",
        )


def names_differ(checked: Checked) -> Iterator[Diagnostic]:
    """No two names are the same but for case: files and metrics would fall together."""
    node, exact = checked.layers.nearest(("services",))
    first: dict[str, str] = {}
    for name in sorted(node.table) if exact else ():
        known = first.setdefault(name.lower(), name)
        if known != name:
            yield checked.problem(
                ("services", name), f"differs from {shown(known)} only in case", at_key=True
            )


def addresses_are_free(checked: Checked) -> Iterator[Diagnostic]:
    """No two services listen on one address."""
    listeners = [
        (("services", name, "listen", index), address)
        for name, service in sorted(checked.config.services.items())
        for index, address in enumerate(service.listen)
    ]
    for (first_path, first), (path, address) in itertools.combinations(listeners, 2):
        if overlap(first, address):
            other = checked.layers.nearest(first_path)[0].place
            whose = "it already" if first_path[1] == path[1] else f"services.{first_path[1]}"
            message = f"{address} is taken: {whose} listens on {first} ({other})"
            yield checked.problem(path, message, code="address")


def overlap(first: Address, second: Address) -> bool:
    """Whether both addresses cannot be bound at the same time."""
    if first.kind != second.kind or first.kind == "internal":
        return False
    if first.kind != "tcp":
        return first == second
    if first.port != second.port or first.port == 0:
        return False
    return first.host == second.host or _covers(first, second) or _covers(second, first)


def _covers(wide: Address, narrow: Address) -> bool:
    """Whether `wide` is every interface of the family of `narrow`."""
    if wide.host == "":
        return True
    return (wide.host == EVERY_V4 and ":" not in narrow.host) or (
        wide.host == EVERY_V6 and ":" in narrow.host
    )


def internal_stands_alone(checked: Checked) -> Iterator[Diagnostic]:
    """No address can stand beside "internal", which says that there is none."""
    for name, service in checked.config.services.items():
        if len(service.listen) > 1:
            for index, address in enumerate(service.listen):
                if address.kind == "internal":
                    yield checked.problem(
                        ("services", name, "listen", index), '"internal" cannot be one of a list'
                    )


def tls_is_complete(checked: Checked) -> Iterator[Diagnostic]:
    """TLS has a certificate and a key, and client certificates something to be checked by."""
    for name, service in checked.config.services.items():
        if service.tls is None:
            continue
        path: Path = ("services", name, "tls")
        for key in ("certfile", "keyfile"):
            node, written = checked.layers.nearest((*path, key))
            if not getattr(service.tls, key) and (not written or node.value == ""):
                yield checked.problem(path, f'"{key}" is missing here', at_key=True, code="missing")
        if service.tls.client_auth != "none" and not service.tls.ca_certs:
            yield checked.problem(
                (*path, "client_auth"), 'client certificates are checked by "ca_certs": set it'
            )


def admin_is_guarded(checked: Checked) -> Iterator[Diagnostic]:
    """The admin API listens on TCP with a token only."""
    admin = checked.config.admin
    if admin.listen is not None and admin.listen.kind not in ("unix", "tcp"):
        yield checked.problem(("admin", "listen"), 'write "unix:PATH" or "HOST:PORT"')
    guarded = admin.token or admin.token_file
    if admin.token and admin.token_file:
        yield checked.problem(("admin", "token_file"), "write either token or token_file")
    if admin.listen is not None and admin.listen.kind == "tcp" and not guarded:
        yield checked.problem(
            ("admin", "listen"), "TCP needs a token", "set admin.token or admin.token_file"
        )
    if admin.metrics is not None and admin.metrics.kind not in ("unix", "tcp"):
        yield checked.problem(("admin", "metrics"), 'write "HOST:PORT" or "unix:PATH"')


def hooks_do_something(checked: Checked) -> Iterator[Diagnostic]:
    """A hook has either a command or a URL."""
    for index, hook in enumerate(checked.config.hooks):
        if bool(hook.command) == bool(hook.url):
            yield checked.problem(("hooks", index), "write either command or url")
        if hook.url and not _WEB_ADDRESS.match(hook.url):
            yield checked.problem(
                ("hooks", index, "url"), "write an address that begins with http:// or https://"
            )
        if hook.timeout <= 0:
            yield checked.problem(("hooks", index, "timeout"), "a call needs some time")


def something_is_served(checked: Checked) -> Iterator[Diagnostic]:
    """A configuration without services does nothing."""
    if not checked.config.services and not checked.damaged:
        if checked.written(("services",)):
            return
        yield checked.problem(
            (), "there is no service", 'add one: [services.web] with app = "module:app"'
        )


def dependencies_run(checked: Checked) -> Iterator[Diagnostic]:
    """A dependency that is kept stopped keeps its dependents waiting."""
    for name, service in checked.config.services.items():
        for index, dependency in enumerate(service.depends_on):
            target = checked.config.services.get(dependency.service)
            if target is not None and target.workers == 0:
                yield checked.problem(
                    ("services", name, "depends_on", index),
                    f"{shown(dependency.service)} is kept stopped (workers = 0): this will wait",
                    severity="warning",
                )


RULES: tuple[Rule, ...] = (
    something_to_run,
    app_is_a_target,
    bentos_make_sense,
    commands_make_sense,
    times_make_sense,
    limits_make_sense,
    gpus_make_sense,
    tasks_are_commands,
    dependencies_exist,
    no_cycles,
    names_differ,
    addresses_are_free,
    internal_stands_alone,
    tls_is_complete,
    admin_is_guarded,
    hooks_do_something,
    something_is_served,
    dependencies_run,
)
