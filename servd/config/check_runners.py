"""Rules about what runs: apps, BentoML services, commands and tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator

from servd.config.explain import did_you_mean
from servd.config.merge import is_file_target
from servd.config.scalars import shown
from servd.config.service import Service
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic

SELF_BINDING = ("{port}", "{host}", "{uds}")
"""Placeholders of a command that binds its own address."""

_NOT_OF_COMPONENTS = (
    "kind", "run", "ready", "activation", "stop_signal", "stop_command", "socket",
    "public_url", "proxy", "root_path", "tls",
)  # fmt: skip
_RUNNERS = ("app", "command", "bento", "external")
_APP = re.compile(r"[A-Za-z_][\w]*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_ATTRIBUTE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")


def something_to_run(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A service has exactly one of app, command, bento and external."""
    for name in checked.config.services.keys() - checked.component_paths.keys():
        path: Path = ("services", name)
        given = [key for key in _RUNNERS if checked.is_written((*path, key))]
        unknown = checked.layers.nearest(path)[0].table.keys() - Service.model_fields.keys()
        if not given and not checked.damaged and not unknown:  # such as `comand`
            hint = 'set app = "module:app", command, bento or external'
            yield checked.problem(path, "nothing to run", hint, at_key=True)
        for key in given:
            if checked.layers.nearest((*path, key))[0].value in ("", ()):
                yield checked.problem((*path, key), "must not be empty")
        if len(given) > 1:
            message = f"cannot be combined with {' and '.join([given[0], *given[2:]])}"
            yield checked.problem((*path, given[1]), message, at_key=True)


def app_is_a_target(checked: ValidationContext) -> Iterator[Diagnostic]:
    """An app is "module:attr" or "path/file.py:app"."""
    for name, service in checked.config.services.items():
        if not service.app:
            continue
        path: Path = ("services", name, "app")
        attribute = service.app.rpartition(":")[2]
        if is_file_target(service.app):
            if not _ATTRIBUTE.fullmatch(attribute):
                yield checked.problem(path, f"{shown(attribute)} is not a valid attribute name")
        elif not _APP.fullmatch(service.app):
            hint = _meant(service.app)
            message = f'expected "module:attr" or "path/file.py:app", got {shown(service.app)}'
            yield checked.problem(path, message, hint)


def _meant(app: str) -> str:
    """Returns a hint for an invalid target, or ""."""
    if app.endswith("()"):
        return f'write "{app[:-2]}" and factory = true'
    target, _, attribute = app.rpartition(":")
    if not target:
        name = app.rstrip(":").strip("./").replace("/", ".")
        name = app if app.endswith(".py") else name
        return f'did you mean "{name}:app"?' if name else ""
    if re.fullmatch(r"[./\w]+", target):
        return f'did you mean "{target.strip("./").replace("/", ".")}:{attribute or "app"}"?'
    return ""


def bentos_make_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A BentoML service has no keys of apps; only BentoML services have components."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name)
        if service.components and not service.bento:
            message = "only a BentoML service can have components"
            yield checked.problem((*path, "components"), message, at_key=True)
        if service.bento_args and not service.bento:
            message = "only a BentoML service has such arguments"
            yield checked.problem((*path, "bento_args"), message, at_key=True)
        for key in ("factory", "interface", "preload"):
            if service.bento and checked.is_own((*path, key)):
                message = "does not apply to a BentoML service, whose class is the app"
                yield checked.problem((*path, key), message, at_key=True)
        for key in _NOT_OF_COMPONENTS:
            if name in checked.component_paths and checked.is_own((*path, key)):
                message = "does not apply to a component, which only its service calls"
                yield checked.problem((*path, key), message, at_key=True)


def commands_make_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A command has no keys of apps, and its address can be bound as configured."""
    for name, service in checked.config.services.items():
        if not service.command:
            continue
        path: Path = ("services", name)
        if not service.command[0]:
            yield checked.problem((*path, "command"), "the program name is empty")
        if service.tls is not None:
            message = "servd terminates TLS for apps only: a command must do it itself"
            yield checked.problem((*path, "tls"), message, at_key=True)
        for key in REQUEST_LIMITS:
            limited = service.limits is not None and getattr(service.limits, key)
            if limited and checked.is_own((*path, "limits", key)):
                message = "does not apply to a command: servd limits the requests of apps only"
                yield checked.problem((*path, "limits", key), message)
        if not isinstance(service.ready, str) and service.ready >= service.timeouts.startup:
            message = "must be shorter than timeouts.startup, after which a worker is killed"
            yield checked.problem((*path, "ready"), message, "increase timeouts.startup")
        yield from _binding_makes_sense(checked, path, service)
        yield from _workers_can_be_asked(checked, path, service)


NOT_OF_COMMANDS = ("factory", "interface", "threads", "preload", "uvicorn")
"""Keys of a worker that servd runs itself."""

REQUEST_LIMITS = ("concurrency", "queue", "max_requests", "max_requests_jitter")
"""Keys of `limits` about requests, which servd counts for apps alone."""

_PLACEHOLDERS = ("port", "host", "uds", "fd", "worker", "service")
_WORD_IN_BRACES = re.compile(r"(?<![{$])\{([a-z_]+)\}(?!\})")


def preload_makes_sense(checked: ValidationContext) -> Iterator[Diagnostic]:
    """An app that may use GPUs is not forked once it has been imported."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name, "preload")
        if service.preload and service.app and service.gpus not in (0, "none"):
            message = "cannot be combined with gpus: what CUDA has set up does not survive a fork"
            yield checked.problem(path, message, at_key=True)


def keys_fit_what_runs(checked: ValidationContext) -> Iterator[Diagnostic]:
    """Every key of a service has an effect."""
    for name, service in checked.config.services.items():
        path: Path = ("services", name)
        for key in NOT_OF_COMMANDS if service.command else ("ready",):
            if checked.is_own((*path, key)) and getattr(service, key) != _default_of(key):
                message = "does not apply to a command: it is for apps"
                if key == "ready":
                    message = (
                        "applies to commands only: the worker of an app reports when it is ready"
                    )
                yield checked.problem((*path, key), message, at_key=True)
        if service.command and service.ready == "http" and service.health is None:
            message = "probes / because health is not set: write health = { path = ... }"
            yield checked.problem((*path, "ready"), message, severity="warning")
        for word in service.command:
            for found in _WORD_IN_BRACES.findall(word):
                if found not in _PLACEHOLDERS:
                    message = f"{{{found}}} is not a placeholder and is passed on unchanged"
                    hint = did_you_mean(found, _PLACEHOLDERS).replace('"', "")
                    at: Path = (*path, "command")
                    yield checked.problem(at, message, hint, severity="warning")


def _default_of(key: str) -> object:
    return Service.model_fields[key].get_default(call_default_factory=True)


def _workers_can_be_asked(
    checked: ValidationContext, path: Path, service: Service
) -> Iterator[Diagnostic]:
    """A health probe cannot tell apart the workers that share a socket."""
    if service.health is None:
        return
    health, own = service.health, checked.is_own((*path, "health"))
    if health.tcp is not None and health.command:
        yield checked.problem((*path, "health", "tcp"), "cannot be combined with command")
    if service.kind == "task":
        if own:
            yield checked.problem(
                (*path, "health"), "does not apply to a task: its exit status shows success"
            )
    elif health.tcp is not None or health.command:
        return
    elif own and not binds_itself(service) and not _listens(service):
        message = "a program without an address cannot be probed over HTTP"
        hint = 'set listen, use {port}, or write { tcp = "..." } or { command = [...] }'
        yield checked.problem((*path, "health"), message, hint)
    elif not binds_itself(service) and service.workers not in (0, 1):
        key = "health" if checked.is_own((*path, "health")) else "command"
        message = "the workers share a socket, so any of them may answer a health probe"
        yield checked.problem((*path, key), message, "set health = false or workers = 1")


def _listens(service: Service) -> bool:
    return service.activation == "fd" or any(a.kind != "internal" for a in service.listen)


def apps_are_asked_over_http(checked: ValidationContext) -> Iterator[Diagnostic]:
    """Servd probes each worker of an app separately; tcp and command would reach any of them."""
    for name, service in checked.config.services.items():
        for key in ("tcp", "command"):
            path: Path = ("services", name, "health", key)
            asked = service.health is not None and getattr(service.health, key)
            of_app = not (service.command or service.external)
            if asked and of_app and checked.is_own(path):
                message = (
                    "applies to commands only: workers of apps are probed over HTTP (health.path)"
                )
                yield checked.problem(path, message)


def tasks_are_commands(checked: ValidationContext) -> Iterator[Diagnostic]:
    """A task is one command that exits."""
    for name, service in checked.config.services.items():
        if service.kind != "task":
            continue
        path: Path = ("services", name)
        if not service.command and (service.app or service.bento):
            runner = "app" if service.app else "bento"
            message = f"a task must run a command that exits, not {shown(runner)}"
            yield checked.problem((*path, "kind"), message)
        if service.workers not in (0, 1, "auto"):
            yield checked.problem((*path, "workers"), "a task runs in one process")


def binds_itself(service: Service) -> bool:
    """Returns whether a command binds its address itself, without a socket of servd."""
    if service.activation != "auto":
        return service.activation == "self"
    return _mentions(service, *SELF_BINDING)


def _mentions(service: Service, *words: str) -> bool:
    return any(word in argument for argument in service.command for word in words)


def _binding_makes_sense(
    checked: ValidationContext, path: Path, service: Service
) -> Iterator[Diagnostic]:
    if binds_itself(service):
        if service.workers not in (0, 1):
            message = "a command that binds its own address can have only one worker"
            hint = "use {fd} or LISTEN_FDS to share a socket"
            yield checked.problem((*path, "workers"), message, hint)
        kinds = {address.kind for address in service.listen}
        for word, kind in (("{port}", "unix"), ("{uds}", "tcp")):
            if kinds == {kind} and _mentions(service, word):
                message = f"{word} has no value: the service listens only on {kind} addresses"
                yield checked.problem((*path, "command"), message)
        return
    if service.ready in ("port", "http") and any(a.kind != "internal" for a in service.listen):
        message = "servd binds the address, so any process that shares it may answer the probe"
        yield checked.problem((*path, "ready"), message, 'use "notify" or "started"')
    if service.activation == "fd" and _mentions(service, *SELF_BINDING):
        message = 'with "fd", servd binds the address: {port}, {host} and {uds} have no value'
        yield checked.problem((*path, "activation"), message)
