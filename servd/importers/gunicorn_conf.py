"""Reads a gunicorn.conf.py without running it: assignments of literal values."""

from __future__ import annotations

import ast
from typing import Any

from servd.importers.command_lines import address_of, put_app
from servd.importers.model import Imported, ImportedService, ImportFailed, Left, literal, seconds

_KEYS = {
    "threads": "threads", "max_requests": "limits.max_requests", "umask": "umask",
    "max_requests_jitter": "limits.max_requests_jitter", "chdir": "directory", "user": "user",
    "group": "group", "backlog": "backlog", "certfile": "tls.certfile", "keyfile": "tls.keyfile",
    "ca_certs": "tls.ca_certs", "preload_app": "preload",
}  # fmt: skip
_SECONDS = {
    "timeout": "timeouts.request", "graceful_timeout": "timeouts.drain",
    "keepalive": "timeouts.keep_alive",
}  # fmt: skip
_BY_ITSELF = {"worker_class", "accesslog", "errorlog", "proc_name", "pidfile", "daemon",
              "worker_tmp_dir", "worker_connections", "capture_output"}  # fmt: skip


def read_gunicorn(text: str) -> Imported:
    """Returns one service with the app of `wsgi_app`, or `main:app`. Raises `ImportFailed`."""
    try:
        tree = ast.parse(text)
    except SyntaxError as error:
        raise ImportFailed(f"line {error.lineno} is not valid Python: {error.msg}") from None
    service = ImportedService("web")
    service.put("app", "main:app")
    service.put("listen", "127.0.0.1:8000")
    named = False
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            named |= name == "wsgi_app"
            _put(service, name, node, text)
        elif isinstance(node, ast.FunctionDef):
            service.left.append(Left(f"def {node.name}(...)", node.lineno))
    if not named:
        service.left.append(Left("the app from the command line of gunicorn: main:app is a guess"))
    return Imported([service])


def _value(node: ast.expr) -> Any:
    """Returns a literal value, or a reference to an environment variable; else None."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        pass
    if not isinstance(node, ast.Call):
        return None
    name = ast.unparse(node.func)
    arguments = [_value(each) for each in node.args]
    if name in ("int", "str") and len(arguments) == 1:
        return arguments[0]
    if name in ("os.environ.get", "os.getenv", "getenv", "environ.get") and arguments[0]:
        return f"${{{arguments[0]}:-{arguments[1] if arguments[1:] else ''}}}"
    return None


def _put(service: ImportedService, name: str, node: ast.Assign, text: str) -> None:
    value = _value(node.value)
    if value is None:
        source = ast.get_source_segment(text, node) or name
        if name == "workers" and "cpu_count" in source:
            service.put("workers", "auto")
        service.left.append(Left(source, node.lineno))
        return
    if name == "wsgi_app":
        put_app(service, str(value), "application")
    elif name == "bind":
        addresses = [address_of(each) for each in ([value] if isinstance(value, str) else value)]
        service.put("listen", addresses if len(addresses) > 1 else addresses[0])
    elif name == "workers":
        service.put("workers", value if value != 1 else None)
    elif name in _SECONDS:
        given = value if str(value).startswith("$") else seconds(value) if value else None
        service.put(_SECONDS[name], given)
    elif name == "raw_env":
        for pair in value:
            name, _, text = str(pair).partition("=")
            service.put(f"env.{name}", literal(text))
    elif name == "loglevel":
        service.put("log.level", str(value))
    elif name == "forwarded_allow_ips":
        service.put("proxy.headers", True)
        service.put("proxy.trusted", str(value).split(","))
    elif name in _KEYS:
        service.put(_KEYS[name], value)
    elif name not in _BY_ITSELF and not name.startswith("_"):
        service.left.append(Left(f"{name} = {value!r}", node.lineno))
