"""Rules about the whole configuration: one pure function for each rule."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from servd.config.check_external import autoscale_makes_sense, externals_are_elsewhere
from servd.config.check_gpus import gpus_make_sense
from servd.config.check_health import probes_make_sense
from servd.config.check_models import warmups_reach_their_worker
from servd.config.check_runners import (
    app_is_a_target,
    apps_are_asked_over_http,
    bentos_make_sense,
    commands_make_sense,
    keys_fit_what_runs,
    preload_makes_sense,
    something_to_run,
    tasks_are_commands,
)
from servd.config.explain import did_you_mean
from servd.config.model import Config
from servd.config.scalars import print_duration, shown
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.validation_context import Rule, ValidationContext
from servd.core import graph
from servd.core.diagnostics import Diagnostic, Place

_SHORTEST_SECONDS = {
    "watchdog": 0.2, "timeouts.headers": 0.1, "timeouts.body": 0.1, "timeouts.request": 0.001,
    "timeouts.request_total": 0.001, "health.interval": 0.1, "health.timeout": 0.01,
    "limits.max_age": 1.0, "timeouts.stall": 1.0, "warmup.timeout": 0.1,
}  # fmt: skip
"""Shortest valid value of each time."""

_WEB_ADDRESS = re.compile(r"https?://[^/\s]")


def check(checked: ValidationContext) -> list[Diagnostic]:
    """Returns the diagnostics of all rules."""
    return [diagnostic for rule in RULES for diagnostic in rule(checked)]


def times_make_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """Times are long enough for workers and the daemon to work."""
    for name, service in checked.config.services.items():
        for key, shortest in _SHORTEST_SECONDS.items():
            value: Any = service
            for step in key.split("."):
                value = getattr(value, step, None)
            if value is not None and value < shortest:
                least = print_duration(shortest)
                message = f"must be at least {least}, got {print_duration(value)}"
                yield checked.problem(("services", name, *key.split(".")), message)

        yield from _times_agree(checked, ("services", name), service)


def _times_agree(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    """Warns about a time that another one overrides."""
    health, restart = service.health, service.restart
    if health is not None and health.timeout > health.interval:
        yield from _longer(
            checked, (*path, "health"), "timeout", "interval", "a slow probe delays the next one"
        )
    if restart.backoff > restart.backoff_max:
        yield from _longer(
            checked, (*path, "restart"), "backoff", "backoff_max", "it is limited to that"
        )


def _longer(
    checked: ValidationContext, table: Path, key: str, other: str, effect: str
) -> Iterator[Diagnostic]:
    if checked.is_written((*table, key)):
        message = f"is longer than {other}: {effect}"
        yield checked.problem((*table, key), message, severity="warning")


def urls_are_some(checked: ValidationContext) -> Iterator[Diagnostic]:
    """`public_url` is a web address."""
    for name, service in checked.config.services.items():
        if service.public_url and not _WEB_ADDRESS.match(service.public_url):
            message = "must begin with http:// or https://"
            yield checked.problem(("services", name, "public_url"), message)


def limits_make_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A limit that needs another one has it."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name)
        for needing, needed in (("queue", "concurrency"), ("max_requests_jitter", "max_requests")):
            limits = service.limits
            if limits is not None and getattr(limits, needing) and not getattr(limits, needed):
                message = f"has no effect without {shown(needed)}"
                yield checked.problem((*path, "limits", needing), message)
        first, whole = service.timeouts.request, service.timeouts.request_total
        if first is not None and whole is not None and first > whole:
            message = "must not be longer than request_total"
            yield checked.problem((*path, "timeouts", "request"), message)


def dependencies_exist(checked: ValidationContext) -> Iterator[Diagnostic]:
    """Each dependency is another service, named once, with a condition that it can meet."""
    names = sorted(checked.config.services)
    for name, service in checked.config.services.items():
        seen: set[str] = set()
        for index, dependency in enumerate(service.depends_on):
            path: Path = ("services", name, "depends_on", index)
            target = checked.config.services.get(dependency.service)
            if target is None and _is_component(dependency.service, checked.config):
                continue  # only the code knows its components
            if dependency.service == name:
                yield checked.problem(path, "the service depends on itself", code="cycle")
            elif target is None:
                hint = did_you_mean(dependency.service, names)
                message = f"unknown service {shown(dependency.service)}"
                yield checked.problem(path, message, hint, code="unknown_dependency")
            elif dependency.service in seen:
                yield checked.problem(path, f"{shown(dependency.service)} is listed twice")
            elif dependency.condition == "completed" and target.kind != "task":
                message = (
                    f'{shown(dependency.service)} is not a task (kind = "task") and never completes'
                )
                yield checked.problem(path, message)
            seen.add(dependency.service)


def _is_component(name: str, config: Config) -> bool:
    """Returns whether it can be a component of a BentoML service whose code is not queried yet."""
    entry = config.services.get(name.partition(".")[0])
    is_expanded = any("." in each for each in config.services)
    return "." in name and entry is not None and bool(entry.bento) and not is_expanded


def no_cycles(checked: ValidationContext) -> Iterator[Diagnostic]:
    """No service depends on itself, directly or not; the message shows the path."""
    services = checked.config.services
    needs = {
        name: [d.service for d in service.depends_on if d.service in services and d.service != name]
        for name, service in services.items()
    }
    for cycle in graph.cycles(needs):
        index = [d.service for d in services[cycle[0]].depends_on].index(cycle[1])
        message = f"dependency cycle: {' -> '.join(cycle)}"
        path: Path = ("services", cycle[0], "depends_on", index)
        yield checked.problem(path, message, code="cycle")


def names_differ(checked: ValidationContext) -> Iterator[Diagnostic]:
    """No two names differ only in case: their files and metrics would collide."""
    node, exact = checked.layers.nearest(("services",))
    first: dict[str, str] = {}
    for name in sorted(node.table) if exact else ():
        known = first.setdefault(name.lower(), name)
        if known != name:
            message = f"differs from {shown(known)} only in case"
            yield checked.problem(("services", name), message, at_key=True)


def internal_stands_alone(checked: ValidationContext) -> Iterator[Diagnostic]:
    """The address "internal" is the only address of its service."""
    for name, service in checked.config.services.items():
        for index, address in enumerate(service.listen):
            if address.kind == "internal" and len(service.listen) > 1:
                path: Path = ("services", name, "listen", index)
                yield checked.problem(path, '"internal" cannot be combined with other addresses')


def tls_is_complete(checked: ValidationContext) -> Iterator[Diagnostic]:
    """TLS has a certificate, and authorities if it asks for client certificates."""
    for name, service in checked.config.services.items():
        if service.tls is None or service.command or service.external:
            continue
        path: Path = ("services", name, "tls")
        node, written = checked.layers.nearest((*path, "certfile"))
        if not service.tls.certfile and (not written or node.value == ""):
            yield checked.problem(path, 'missing key "certfile"', at_key=True, code="missing")
        if service.tls.client_auth != "none" and not service.tls.ca_certs:
            message = 'requires "ca_certs" to verify client certificates'
            yield checked.problem((*path, "client_auth"), message)


def admin_is_guarded(checked: ValidationContext) -> Iterator[Diagnostic]:
    """The admin API has a token if it listens on TCP."""
    admin = checked.config.admin
    if admin.listen is not None and admin.listen.kind not in ("unix", "tcp"):
        yield checked.problem(("admin", "listen"), 'must be "unix:PATH" or "HOST:PORT"')
    if admin.token and admin.token_file:
        yield checked.problem(("admin", "token_file"), "set either token or token_file, not both")
    guarded = admin.token or admin.token_file
    if admin.listen is not None and admin.listen.kind == "tcp" and not guarded:
        hint = "set admin.token or admin.token_file"
        yield checked.problem(("admin", "listen"), "a TCP address requires a token", hint)
    if admin.metrics is not None and admin.metrics.kind not in ("unix", "tcp"):
        yield checked.problem(("admin", "metrics"), 'must be "HOST:PORT" or "unix:PATH"')


def hooks_do_something(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A hook has either a command or a URL."""
    for index, hook in enumerate(checked.config.hooks):
        if bool(hook.command) == bool(hook.url):
            yield checked.problem(("hooks", index), "set either command or url")
        if hook.url and not _WEB_ADDRESS.match(hook.url):
            message = "must begin with http:// or https://"
            yield checked.problem(("hooks", index, "url"), message)
        if hook.timeout <= 0:
            yield checked.problem(("hooks", index, "timeout"), "must be longer than 0s")


def something_is_served(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A configuration has a service."""
    is_empty = not checked.config.services and not checked.is_written(("services",))
    top = checked.layers.file
    explained = top.table.keys() - Config.model_fields.keys()  # such as [service.web]
    if is_empty and not checked.damaged and not explained:
        hint = 'add [services.web] with app = "module:app"'
        message = "no services are configured"
        yield Diagnostic(Place(top.place.file), message, hint=hint)


def dependencies_run(checked: ValidationContext) -> Iterator[Diagnostic]:
    """Warns about dependencies that are kept stopped: their dependents wait."""
    for name, service in checked.config.services.items():
        for index, dependency in enumerate(service.depends_on):
            target = checked.config.services.get(dependency.service)
            if target is not None and target.workers == 0:
                path: Path = ("services", name, "depends_on", index)
                other = shown(dependency.service)
                message = f"{other} is stopped (workers = 0), so this service will wait"
                yield checked.problem(path, message, severity="warning")


RULES: tuple[Rule, ...] = (
    something_to_run, app_is_a_target, bentos_make_sense, commands_make_sense, keys_fit_what_runs,
    preload_makes_sense, externals_are_elsewhere, autoscale_makes_sense,
    times_make_sense, urls_are_some,
    limits_make_sense, gpus_make_sense, tasks_are_commands, dependencies_exist, no_cycles,
    names_differ, internal_stands_alone, tls_is_complete, admin_is_guarded,
    hooks_do_something, something_is_served, dependencies_run, apps_are_asked_over_http,
    probes_make_sense, warmups_reach_their_worker,
)  # fmt: skip
