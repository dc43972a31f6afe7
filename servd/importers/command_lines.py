"""Recognises the command lines of Python web servers and converts them to apps of servd."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from typing import Any

from servd.core.quick_dataclass import dataclass
from servd.importers.model import ImportedService, Left, number, seconds

_PREFIXES = (("exec",), ("poetry", "run"), ("pipenv", "run"), ("uv", "run"), ("pdm", "run"))
_ASSIGNMENT = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_SHELL = re.compile(r"&&|\|\||[|;<>`&]|\$\(|\$\w|\$\{(?!PORT\b)|~/|\*")
_BUILTINS = {
    ".", "[", "cd", "eval", "exit", "export", "for", "if", "set", "source", "trap", "ulimit",
    "umask", "until", "wait", "while",
}  # fmt: skip
_PORT = re.compile(r"\$\{?PORT\b(:-(\d+))?\}?")


def put_command(service: ImportedService, text: str | Sequence[str]) -> None:
    """Sets `app` if the command is a known Python web server, else `command`."""
    words = _words(text)
    if words is None:
        service.put("command", ["sh", "-c", str(text).replace("$", "$$")])  # the shell expands it
        return
    words = _without_prefixes(service, words)
    server = _SERVERS.get(_program(words))
    arguments = words[3:] if words[1:2] == ["-m"] else words[1:]
    if server is None or not server.put(service, arguments):
        service.put("command", [_with_port(word) for word in words])
        _put_singleton(service, words)


def _words(text: str | Sequence[str]) -> list[str] | None:
    """Returns the words of a command line; None if it needs a shell."""
    if not isinstance(text, str):
        return [str(word) for word in text]
    if _SHELL.search(_PORT.sub("0", re.sub(r"'[^']*'", "", text))):
        return None
    try:
        words = shlex.split(text)
    except ValueError:
        return None
    return None if words and words[0] in _BUILTINS else words


def _without_prefixes(service: ImportedService, words: list[str]) -> list[str]:
    """Returns the words after variables and runners, and sets the variables."""
    while words:
        if match := _ASSIGNMENT.fullmatch(words[0]):
            service.put(f"env.{match[1]}", match[2])
            words = words[1:]
        elif words[0] == "env" and _ASSIGNMENT.fullmatch("".join(words[1:2])):
            words = words[1:]
        elif prefix := next((p for p in _PREFIXES if tuple(words[: len(p)]) == p), None):
            words = words[len(prefix) :]
            if len(prefix) > 1:
                said = f"{' '.join(prefix)}: set `python` to the interpreter of that environment"
                service.left.append(Left(said))
        else:
            break
    return words


def _program(words: Sequence[str]) -> str:
    if not words:
        return ""
    name = words[0].rpartition("/")[2]
    if re.fullmatch(r"python[\d.]*", name) and words[1:2] == ["-m"]:
        return "".join(words[2:3])
    return name


def _with_port(text: str) -> str:
    """Replaces $PORT of a Procfile with a reference."""
    return _PORT.sub(lambda match: f"${{PORT:-{match[2] or 8000}}}", text)


def _put_singleton(service: ImportedService, words: Sequence[str]) -> None:
    """Sets the strategy of commands that must not run twice: stop the old one first."""
    if _program(words) == "celery" and "beat" in words:
        service.put("rollout.strategy", "recreate")


Put = Callable[[ImportedService, str], None]


def _to(key: str, convert: Callable[[str], Any] = _with_port) -> Put:
    return lambda service, value: service.put(key, convert(value))


def _flag(key: str, value: Any = True) -> Put:
    return lambda service, _: service.put(key, value)


def _variable(service: ImportedService, value: str) -> None:
    name, _, text = value.partition("=")
    service.put(f"env.{name}", text)


def _trusted(service: ImportedService, value: str) -> None:
    service.put("proxy.headers", True)
    service.put("proxy.trusted", [word.strip() for word in value.split(",")])


def _level(value: str) -> str:
    return {"warn": "warning", "fatal": "critical", "trace": "debug"}.get(
        value.lower(), value.lower()
    )


def nothing(_: ImportedService, __: str) -> None:
    """Ignores an option that servd does not need."""


@dataclass(frozen=True, slots=True)
class WebServer:
    """A server: its options with values, flags, default address and default attribute of an app."""

    options: Mapping[str, Put]
    flags: Mapping[str, Put]
    address: str
    attribute: str = "app"
    skipped: frozenset[str] = field(default_factory=frozenset)
    places: Mapping[str, str] = field(default_factory=lambda: _PLACES)

    def put(self, service: ImportedService, arguments: Sequence[str]) -> bool:
        """Sets the keys of an app. Returns False if `arguments` name no app."""
        target, place = "", dict[str, str]()
        rest = list(arguments)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            if not word.startswith("-"):
                target = target or ("" if word in self.skipped else word)
                continue
            if name in self.flags and not equals:
                self.flags[name](service, "")
            elif name in self.options or name in self.places:
                value = value if equals else "".join(rest[:1])
                rest = rest if equals else rest[1:]
                if name in self.options:
                    self.options[name](service, value)
                else:
                    kind = self.places[name]
                    place[kind] = f"{place.get(kind, '')} {value}".strip()
            else:
                given = f" {rest.pop(0)}" if not equals and rest and rest[0][:1] != "-" else ""
                service.left.append(Left(f"{word}{given}"))
        if not target and "app" not in place:
            return False
        put_app(service, place.get("app") or target, self.attribute)
        service.put("listen", self._listen(place))
        return True

    def _listen(self, place: Mapping[str, str]) -> str | list[str]:
        if bound := place.get("bind", "").split():
            addresses = [address_of(each) for each in bound]
            return addresses[0] if len(addresses) == 1 else addresses
        if "uds" in place:
            return f"unix:{place['uds']}"
        host, _, port = self.address.rpartition(":")
        found = _with_port(place.get("host", host)), _with_port(place.get("port", port))
        return address_of(":".join(found))


def put_app(service: ImportedService, target: str, attribute: str = "app") -> None:
    """Sets the app; `create_app()` is a factory."""
    module, _, name = target.partition(":")
    if module.endswith(".py") and "/" not in module and not name:
        name = attribute
    if name.endswith(")"):
        if not name.endswith("()"):
            service.left.append(Left(f"the arguments of {name}: use a function without arguments"))
        name = name.partition("(")[0]
        service.put("factory", True)
    service.put("app", f"{module}:{name or attribute}")


def address_of(text: str) -> str:
    """Returns an address in the format of servd."""
    text = _with_port(text.strip())
    if text.startswith(("unix:", "fd:")) or re.fullmatch(r"\$\{[^{}]*\}", text):
        return text
    if re.fullmatch(r"\d+|\$\{PORT:-\d+\}", text):
        return f":{text}"
    whole = re.fullmatch(r"(.*?):(\d+|\$\{.*\})", text)
    host, port = (whole[1], whole[2]) if whole else (text, "8000")
    return f":{port}" if host in ("0.0.0.0", "", "::", "[::]") else f"{host}:{port}"  # noqa: S104


_PLACES: Mapping[str, str] = {
    "-b": "bind", "--bind": "bind", "--listen": "bind", "--host": "host", "-h": "host",
    "--port": "port", "-p": "port", "--uds": "uds", "--app": "app", "-A": "app",
}  # fmt: skip
_TLS = {
    "--certfile": _to("tls.certfile"), "--keyfile": _to("tls.keyfile"),
    "--ssl-certfile": _to("tls.certfile"), "--ssl-keyfile": _to("tls.keyfile"),
    "--ssl-keyfile-password": _to("tls.keyfile_password"), "--ca-certs": _to("tls.ca_certs"),
    "--ssl-ca-certs": _to("tls.ca_certs"),
}  # fmt: skip
_GUNICORN = WebServer(
    {
        **_TLS,
        "-w": _to("workers", number), "--workers": _to("workers", number),
        "--threads": _to("threads", number), "-t": _to("timeouts.request", seconds),
        "--timeout": _to("timeouts.request", seconds),
        "--graceful-timeout": _to("timeouts.drain", seconds),
        "--keep-alive": _to("timeouts.keep_alive", seconds),
        "--max-requests": _to("limits.max_requests", number),
        "--max-requests-jitter": _to("limits.max_requests_jitter", number),
        "--chdir": _to("directory"), "-e": _variable, "--env": _variable,
        "--backlog": _to("backlog", number), "--log-level": _to("log.level", _level),
        "--forwarded-allow-ips": _trusted, "-u": _to("user"), "--user": _to("user"),
        "-g": _to("group"), "--group": _to("group"), "-m": _to("umask"), "--umask": _to("umask"),
        "-k": nothing, "--worker-class": nothing, "--access-logfile": nothing,
        "--error-logfile": nothing, "--log-file": nothing, "-n": nothing, "--name": nothing,
        "-p": nothing, "--pid": nothing, "--worker-tmp-dir": nothing,
    },
    {"--no-sendfile": nothing, "--capture-output": nothing, "-D": nothing, "--daemon": nothing},
    "127.0.0.1:8000",
    "application",
)  # fmt: skip
_UVICORN = WebServer(
    {
        **_TLS,
        "--workers": _to("workers", number), "--app-dir": _to("directory"),
        "--root-path": _to("root_path"), "--forwarded-allow-ips": _trusted,
        "--limit-concurrency": _to("limits.concurrency", number),
        "--limit-max-requests": _to("limits.max_requests", number),
        "--timeout-keep-alive": _to("timeouts.keep_alive", seconds),
        "--timeout-graceful-shutdown": _to("timeouts.drain", seconds),
        "--log-level": _to("log.level", _level), "--http": _to("uvicorn.http"),
        "--loop": _to("uvicorn.loop"), "--ws": _to("uvicorn.ws"),
        "--lifespan": _to("uvicorn.lifespan"), "--interface": _to("interface"),
        "--env-file": _to("env_file"), "--backlog": _to("backlog", number),
    },
    {
        "--factory": _flag("factory"), "--proxy-headers": _flag("proxy.headers"),
        "--no-access-log": _flag("log.access", value=False), "--no-use-colors": nothing,
        "--access-log": nothing, "--no-server-header": nothing, "--use-colors": nothing,
    },
    "127.0.0.1:8000",
)  # fmt: skip
_FLASK = WebServer(
    {"--cert": _to("tls.certfile"), "--key": _to("tls.keyfile")},
    {
        "--debug": nothing, "--with-threads": nothing, "--no-debugger": nothing,
        "--no-reload": nothing,
    },
    "127.0.0.1:5000",
    skipped=frozenset({"run"}),
)  # fmt: skip
_HYPERCORN = WebServer(
    {**_TLS, "-w": _to("workers", number), "--workers": _to("workers", number),
     "--graceful-timeout": _to("timeouts.drain", seconds),
     "--keep-alive": _to("timeouts.keep_alive", seconds), "--root-path": _to("root_path"),
     "-k": nothing, "--worker-class": nothing, "--log-level": _to("log.level", _level)},
    {}, "127.0.0.1:8000",
)  # fmt: skip
_SERVERS: Mapping[str, WebServer] = {
    "gunicorn": _GUNICORN,
    "uvicorn": _UVICORN,
    "flask": _FLASK,
    "hypercorn": _HYPERCORN,
    "daphne": WebServer(
        {"-t": _to("timeouts.request", seconds), "-v": nothing}, {}, "127.0.0.1:8000",
        places={"-b": "host", "-p": "port", "-u": "uds"},
    ),
    "waitress-serve": WebServer(
        {"--threads": _to("threads", number)}, {"--call": _flag("factory")}, ":8080", "application"
    ),
    "fastapi": WebServer(
        {"--workers": _to("workers", number), "--root-path": _to("root_path")},
        {"--proxy-headers": _flag("proxy.headers")}, ":8000", skipped=frozenset({"run", "dev"}),
    ),
}  # fmt: skip
"""Servers by program name."""
