"""Finds a configuration's daemon: by an address, a quick look into one TOML file, or loading it."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from servd.control.client import TOKEN_VARIABLE, AdminClient
from servd.core import instances
from servd.core.errors import ServdError, UsageError
from servd.core.paths import admin_address, default_runtime_dir, runtime_dir_of

if TYPE_CHECKING:
    from servd.config.load import Loaded

UNIT_SOCKET = "/run/servd/admin.sock"
"""Admin socket of the shipped unit's daemon, whose configuration is in /etc/servd: systemd sets its
runtime folder, which a shell does not know."""

_UNRELATED_KEYS = {"metrics", "group"}
"""Keys of `[admin]` that do not move the API."""

_RUNTIME_DIR_VARIABLE = "SERVD_DAEMON__RUNTIME_DIR"


def quick_socket(path: str, environ: Mapping[str, str]) -> str | None:
    """Returns the admin socket of the daemon of one TOML file; None: load all to know it."""
    if not path.endswith(".toml") or any(_moves_socket(name) for name in environ):
        return None
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError):  # loading everything reports the mistake
        return None
    if _may_move_socket(table):
        return None
    folder = environ.get(_RUNTIME_DIR_VARIABLE)
    if folder is None:
        folder = default_runtime_dir(path, environ, is_root=os.geteuid() == 0)
    elif not folder.startswith("/") or "$" in folder:
        return None
    return os.path.join(folder, "admin.sock")


def _moves_socket(variable: str) -> bool:
    """Returns whether a variable moves the socket in a way that `quick_socket` does not read."""
    name = variable.upper()
    return name.startswith("SERVD_ADMIN__") or (
        name == _RUNTIME_DIR_VARIABLE and variable != _RUNTIME_DIR_VARIABLE
    )


def _may_move_socket(table: Mapping[str, Any]) -> bool:
    """Returns whether the file, or an include, may move the socket."""
    daemon, admin = table.get("daemon", {}), table.get("admin", {})
    if "include" in table or not isinstance(daemon, dict) or not isinstance(admin, dict):
        return True
    return "runtime_dir" in daemon or not admin.keys() <= _UNRELATED_KEYS


def client_at(admin: str) -> AdminClient:
    """Returns the client of the daemon at `unix:PATH` or a URL. Raises `UsageError`."""
    return AdminClient(_endpoint(admin), _token_of_environment())


def client_of(path: str) -> AdminClient:
    """Returns the client of a configuration's daemon. Raises `ServdError` without an API."""
    token = _token_of_environment()
    if quick := quick_socket(path, os.environ):
        if not {_RUNTIME_DIR_VARIABLE, "RUNTIME_DIRECTORY"} & os.environ.keys():
            quick = _or_of_another_path(quick, path)
        found = _or_unit_socket(quick, path)
        return AdminClient(found, own=found != UNIT_SOCKET)
    from servd.config.load import load

    loaded = readable_part(load(path, os.environ))
    settings = loaded.config.admin
    if not settings.enabled:
        raise ServdError(f"{loaded.path} has admin.enabled = false: the daemon cannot be asked")
    runtime_dir = runtime_dir_of(loaded.config.daemon.runtime_dir, loaded.path)
    address = admin_address(settings.listen, runtime_dir)
    if address.kind == "tcp":
        return AdminClient(f"http://{address.from_here}", token or _token(loaded))
    socket_path = address.path
    configured = loaded.config.daemon.runtime_dir or "RUNTIME_DIRECTORY" in os.environ
    if settings.listen is None and not configured:
        socket_path = _or_of_another_path(socket_path, loaded.path)
    found = _or_unit_socket(socket_path, loaded.path)
    return AdminClient(found, own=settings.listen is None and found != UNIT_SOCKET)


def _token_of_environment() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{TOKEN_VARIABLE} holds characters that no header can carry")
    return token


def readable_part(loaded: Loaded) -> Loaded:
    """Returns the part of a file above its syntax mistake: enough to find the daemon."""
    broken = [d.place for d in loaded.errors if d.code == "syntax" and d.place.file in loaded.texts]
    if not broken:
        return loaded
    from servd.config.find import Disk, Source
    from servd.config.load import load_sources

    place = broken[0]
    text = "".join(loaded.texts[place.file].splitlines(keepends=True)[: place.line - 1])
    source = Source(place.file, text.encode())
    return load_sources([source], loaded.path, os.environ, Disk())


def _or_of_another_path(socket_path: str, config: str) -> str:
    """Returns the socket of the daemon that was started with another path to the same config, if
    there is one: given is a link, or where it leads.
    """
    folder = os.path.dirname(socket_path)
    if instances.using(folder) is not None:
        return socket_path
    found = instances.running(config, os.path.dirname(folder))
    return socket_path if found is None else os.path.join(found.folder, "admin.sock")


def _or_unit_socket(socket_path: str, config: str) -> str:
    """Returns the socket, or that of the shipped unit if the config is the unit's."""
    is_the_units = os.path.realpath(config).startswith("/etc/servd/")
    if is_the_units and not os.path.exists(socket_path) and os.path.exists(UNIT_SOCKET):
        return UNIT_SOCKET
    return socket_path


def _endpoint(admin: str) -> str:
    """Returns a path or a URL. Raises `UsageError`."""
    if "://" not in admin:
        path = admin.removeprefix("unix:")
        if not path or ("/" not in path and path.rpartition(":")[2].isdecimal()):
            raise UsageError(f"--admin {admin}: write unix:PATH or http://HOST:PORT")
        return path
    url = urlsplit(admin)
    try:
        whole = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # an invalid port
        whole = False
    if not whole:
        raise UsageError(f"--admin {admin}: write unix:PATH or http://HOST:PORT")
    return admin


def _token(loaded: Loaded) -> str:
    """Returns the token of the configuration. Raises `ServdError` if its file is unreadable."""
    settings = loaded.config.admin
    if not settings.token_file:
        return settings.token
    try:
        with open(settings.token_file, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ServdError(f"{settings.token_file}: {error.strerror}") from None
