"""Talking to the daemon through its admin socket."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import click

from servd.cli.source import config_option
from servd.errors import Exit, ServdError

if TYPE_CHECKING:
    from servd.config.load import Loaded


UNIT_SOCKET = "/run/servd/admin.sock"
"""Where the shipped unit's daemon, whose configuration is in /etc/servd, has its runtime folder:
systemd tells the daemon, and nobody tells a shell."""


class NoDaemonError(ServdError):
    """Nobody answers at the admin socket."""

    exit_status: ClassVar[Exit] = Exit.NO_DAEMON


@dataclass(frozen=True, slots=True)
class Answer:
    """What the daemon said: an HTTP status, and JSON."""

    status: int
    body: Any

    @property
    def good(self) -> bool:
        """Whether it did what was asked."""
        return self.status < 400


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket: everything but the connecting is the standard library's."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost")
        self.path = path

    def connect(self) -> None:
        """Connects to the path."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)


class AdminClient:
    """The daemon of one configuration."""

    def __init__(self, path: str) -> None:
        self.path = path

    def get(self, route: str) -> Answer:
        """Asks for something. Raises `NoDaemonError`."""
        return self._ask("GET", route, None)

    def post(self, route: str, **body: Any) -> Answer:
        """Asks to do something, and waits until it is done. Raises `NoDaemonError`."""
        return self._ask("POST", route, json.dumps(body))

    def _ask(self, method: str, route: str, body: str | None) -> Answer:
        connection = _UnixConnection(self.path)
        try:
            headers = {"Content-Type": "application/json"} if body is not None else {}
            connection.request(method, route, body, headers)
            answer = connection.getresponse()
            return Answer(answer.status, _json(answer.read()))
        except (FileNotFoundError, ConnectionRefusedError):
            raise NoDaemonError(f"no servd answers at {self.path}: is it running?") from None
        except PermissionError:
            raise ServdError(
                f"{self.path} is not open to you: it belongs to whoever runs servd"
                " (admin.group opens it to a group)"
            ) from None
        except (OSError, http.client.HTTPException) as error:
            raise NoDaemonError(f"servd at {self.path} went away: {error}") from None
        finally:
            connection.close()


def _json(content: bytes) -> Any:
    """The answer's body; what is no JSON is a title of a problem."""
    try:
        return json.loads(content or b"null")
    except ValueError:
        return {"title": content.decode(errors="replace").strip()[:200]}


def admin_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """`--config` and `--admin`, as every command has them that talks to the daemon."""
    option = click.option(
        "--admin",
        metavar="ADDRESS",
        envvar="SERVD_ADMIN",
        help="The daemon's admin socket; default: what the configuration says.",
    )
    return config_option(option(command))


def readable_part(loaded: Loaded) -> Loaded:
    """What a file says before its syntax is broken: enough to find the daemon that refuses it."""
    broken = [d.place for d in loaded.errors if d.code == "syntax" and d.place.file in loaded.texts]
    if not broken:
        return loaded
    from servd.config.find import Disk, Source
    from servd.config.load import load_sources

    place = broken[0]
    text = "".join(loaded.texts[place.file].splitlines(keepends=True)[: place.line - 1])
    source = Source(place.file, text.encode())
    return load_sources([source], loaded.path, os.environ, Disk())


def admin_client(config: str | None, admin: str | None) -> AdminClient:
    """The client for the daemon that `--admin` or the configuration names. A configuration with
    mistakes in it is good enough for that.
    """
    if admin:
        if admin.startswith(("http:", "https:")):
            raise ServdError(f"{admin}: only unix sockets are supported yet")
        return AdminClient(admin.removeprefix("unix:"))
    from servd.cli.source import load_config
    from servd.daemon.runtime_dir import admin_address, runtime_dir_of

    loaded = readable_part(load_config(config))
    path = admin_address(loaded.config.admin, runtime_dir_of(loaded.config, loaded.path)).path
    is_the_units = os.path.realpath(loaded.path).startswith("/etc/servd/")
    if is_the_units and not os.path.exists(path) and os.path.exists(UNIT_SOCKET):
        return AdminClient(UNIT_SOCKET)
    return AdminClient(path)
