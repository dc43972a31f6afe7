"""Finding the daemon of a configuration: from an address, from a glance at one TOML file (`servd
status` should not take longer than the daemon needs to answer), or from the whole configuration.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from servd.control.client import TOKEN_VARIABLE, AdminClient
from servd.core.errors import ServdError, UsageError
from servd.core.paths import admin_address, default_runtime_dir, runtime_dir_of

if TYPE_CHECKING:
    from servd.config.load import Loaded

UNIT_SOCKET = "/run/servd/admin.sock"
"""Where the shipped unit's daemon, whose configuration is in /etc/servd, has its runtime folder:
systemd tells the daemon, and nobody tells a shell."""

_ELSEWHERE = {"metrics", "group"}
"""Keys of `[admin]` that say nothing about where the API is."""

_FOLDER = "SERVD_DAEMON__RUNTIME_DIR"


def quick_socket(path: str, environ: Mapping[str, str]) -> str | None:
    """The admin socket of the daemon that runs the configuration at `path`, where that is one TOML
    file that says nothing about it; None where it takes the whole configuration to know.
    """
    if not path.endswith(".toml") or any(_says_where(name) for name in environ):
        return None
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError):  # whoever reads all of it says what is wrong
        return None
    if _says_something(table):
        return None
    folder = environ.get(_FOLDER)
    if folder is None:
        folder = default_runtime_dir(path, environ, is_root=os.geteuid() == 0)
    elif not folder.startswith("/") or "$" in folder:
        return None
    return os.path.join(folder, "admin.sock")


def _says_where(variable: str) -> bool:
    """Whether a variable of the environment overrides what the short way does not look at."""
    name = variable.upper()
    return name.startswith("SERVD_ADMIN__") or (name == _FOLDER and variable != _FOLDER)


def _says_something(table: Mapping[str, Any]) -> bool:
    """Whether anything may be said, here or elsewhere, about where the daemon is."""
    daemon, admin = table.get("daemon", {}), table.get("admin", {})
    if "include" in table or not isinstance(daemon, dict) or not isinstance(admin, dict):
        return True
    return "runtime_dir" in daemon or not admin.keys() <= _ELSEWHERE


def client_at(admin: str) -> AdminClient:
    """The client for the daemon at `unix:PATH` or a URL. Raises `UsageError`."""
    return AdminClient(_endpoint(admin), _token_of_environment())


def client_of(path: str) -> AdminClient:
    """The client for the daemon that runs the configuration at `path`. A configuration with
    mistakes in it is good enough for that.

    Raises `ServdError` where it says that there is no API.
    """
    token = _token_of_environment()
    if quick := quick_socket(path, os.environ):
        return AdminClient(_units_or(quick, path))
    from servd.config.load import load

    loaded = readable_part(load(path, os.environ))
    settings = loaded.config.admin
    if not settings.enabled:
        raise ServdError(f"{loaded.path} has admin.enabled = false: the daemon cannot be asked")
    runtime_dir = runtime_dir_of(loaded.config.daemon.runtime_dir, loaded.path)
    address = admin_address(settings.listen, runtime_dir)
    if address.kind == "tcp":
        return AdminClient(f"http://{address.from_here}", token or _token(loaded))
    return AdminClient(_units_or(address.path, loaded.path))


def _token_of_environment() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{TOKEN_VARIABLE} holds characters that no header can carry")
    return token


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


def _units_or(socket_path: str, config: str) -> str:
    """The socket, or that of the shipped unit where the config is the unit's."""
    is_the_units = os.path.realpath(config).startswith("/etc/servd/")
    if is_the_units and not os.path.exists(socket_path) and os.path.exists(UNIT_SOCKET):
        return UNIT_SOCKET
    return socket_path


def _endpoint(admin: str) -> str:
    """A path or a URL. Raises `UsageError`."""
    if "://" not in admin:
        path = admin.removeprefix("unix:")
        if not path or ("/" not in path and path.rpartition(":")[2].isdecimal()):
            raise UsageError(f"--admin {admin}: write unix:PATH or http://HOST:PORT")
        return path
    url = urlsplit(admin)
    try:
        whole = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # what is no port
        whole = False
    if not whole:
        raise UsageError(f"--admin {admin}: write unix:PATH or http://HOST:PORT")
    return admin


def _token(loaded: Loaded) -> str:
    """What the configuration says, as far as we may read it."""
    settings = loaded.config.admin
    if not settings.token_file:
        return settings.token
    try:
        with open(settings.token_file, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ServdError(f"{settings.token_file}: {error.strerror}") from None
