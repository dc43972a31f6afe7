"""Finds the daemon of a configuration: by an address, a quick look into one TOML file, or loading.

The file may have changed since the running daemon read it. A daemon records its admin address,
which takes precedence over the file.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

from servd.control.client import TOKEN_VARIABLE, AdminClient, NoDaemonError
from servd.core import instances
from servd.core.address import parse_address
from servd.core.errors import ServdError, UsageError
from servd.core.instances import Instance
from servd.core.paths import default_runtime_dir, runtime_dir_of

if TYPE_CHECKING:
    from servd.config.load import Loaded
    from servd.config.model import AdminConfig

UNIT_SOCKET = "/run/servd/admin.sock"
"""Admin socket of the shipped unit, whose configuration is in /etc/servd. systemd sets its runtime
folder, so a shell does not know it."""

_UNRELATED_KEYS = {"metrics", "group"}
"""Keys of `[admin]` that do not change the address of the API."""

_RUNTIME_DIR_VARIABLE = "SERVD_DAEMON__RUNTIME_DIR"


class Target(NamedTuple):
    """The admin address of a configuration: `listen` ("none": disabled), or else a socket in
    `folder`. `configured`: the runtime folder that the file names.
    """

    config: str
    folder: str
    configured: str = ""
    listen: str = ""

    @property
    def admin(self) -> str:
        """The address as in `--admin`."""
        return self.listen or f"unix:{self.folder}/admin.sock"


def quick_target(path: str, environ: Mapping[str, str]) -> Target | None:
    """Returns the target of one TOML file; None if only loading everything can tell."""
    if not path.endswith(".toml") or any(_moves_socket(name) for name in environ):
        return None
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError):  # loading everything reports the error
        return None
    if _may_move_socket(table):
        return None
    folder = environ.get(_RUNTIME_DIR_VARIABLE)
    if folder is None:
        return Target(path, default_runtime_dir(path, environ, is_root=os.geteuid() == 0))
    if not folder.startswith("/") or "$" in folder:
        return None
    return Target(path, folder, folder)


def _moves_socket(variable: str) -> bool:
    """Returns whether a variable changes the address in a way that `quick_target` ignores."""
    name = variable.upper()
    return name.startswith("SERVD_ADMIN__") or (
        name == _RUNTIME_DIR_VARIABLE and variable != _RUNTIME_DIR_VARIABLE
    )


def _may_move_socket(table: Mapping[str, Any]) -> bool:
    """Returns whether the file, or an include, may change the address."""
    daemon, admin = table.get("daemon", {}), table.get("admin", {})
    if "include" in table or not isinstance(daemon, dict) or not isinstance(admin, dict):
        return True
    return "runtime_dir" in daemon or not admin.keys() <= _UNRELATED_KEYS


def client_at(admin: str) -> AdminClient:
    """Returns the client of the daemon at `unix:PATH` or a URL. Raises `UsageError`."""
    return AdminClient(_endpoint(admin), _token_of_environment())


class Found(NamedTuple):
    """The client of a daemon, and a note about its address ("": none)."""

    client: AdminClient
    note: str = ""


def client_of(path: str) -> Found:
    """Returns the client of a configuration's daemon, which may not listen where the file says.
    Raises `NoDaemonError` if the file disables the API and no daemon is known, and `ServdError` if
    the running daemon has disabled its API.
    """
    settings: AdminConfig | None = None
    target = quick_target(path, os.environ)
    if target is None:
        from servd.config.load import load

        loaded = readable_part(load(path, os.environ))
        target, settings = _target(loaded), loaded.config.admin
    running = _running(target)
    if running is None or not running.told.admin:
        if target.listen == instances.NO_ADMIN:
            raise NoDaemonError(
                f"{path} has admin.enabled = false: this command needs the admin API"
            )
        return Found(_client(_or_unit_socket(target), settings, own=not target.listen))
    admin = running.told.admin
    if admin == instances.NO_ADMIN:
        raise ServdError(
            f"the running servd (pid {running.pid}) has admin.enabled = false: this command needs"
            " the admin API"
        )
    own = admin.startswith(f"unix:{running.folder}/")
    return Found(_client(admin, settings, own=own), _note(target, running))


def _target(loaded: Loaded) -> Target:
    admin, configured = loaded.config.admin, loaded.config.daemon.runtime_dir
    listen = "" if admin.listen is None else str(admin.listen)
    return Target(
        loaded.path,
        runtime_dir_of(configured, loaded.path),
        configured,
        listen if admin.enabled else instances.NO_ADMIN,
    )


def _client(admin: str, settings: AdminConfig | None, *, own: bool) -> AdminClient:
    """Returns the client for an address in the form of a configuration."""
    token = _token_of_environment()
    if admin.startswith("unix:"):
        own = own and admin != f"unix:{UNIT_SOCKET}"
        return AdminClient(admin.removeprefix("unix:"), own=own)
    if not token and settings is not None:
        token = _token(settings)
    return AdminClient(f"http://{parse_address(admin).from_here}", token)


def _running(target: Target) -> Instance | None:
    """Returns the running daemon, if it has recorded itself in the folder of the file, or else with
    this file as its configuration. A folder that is set in the environment is the only one.
    """
    here = instances.using(target.folder)
    named = (os.environ.get(name) for name in (_RUNTIME_DIR_VARIABLE, "RUNTIME_DIRECTORY"))
    if here is not None or any(named):
        return here
    usual = default_runtime_dir(target.config, os.environ, is_root=os.geteuid() == 0)
    beside = instances.running(target.config, os.path.dirname(usual))
    return beside or instances.running_anywhere(target.config)


def _note(target: Target, running: Instance) -> str:
    """Returns a note about a daemon that does not listen where the file says."""
    told = running.told
    same_folder = (
        not told.is_configured
        if not target.configured
        else (os.path.realpath(target.configured) == os.path.realpath(running.folder))
    )
    says = f"{target.config} says {target.admin}"
    if target.listen == instances.NO_ADMIN:
        says = f"{target.config} has admin.enabled = false"
    elif same_folder and told.admin == target._replace(folder=running.folder).admin:
        return ""
    until = "a reload" if same_folder or target.listen else "a restart"
    return f"{says}; the running servd (pid {running.pid}) listens on {told.admin} until {until}"


def _token_of_environment() -> str:
    token = os.environ.get(TOKEN_VARIABLE, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise UsageError(f"{TOKEN_VARIABLE} contains characters that a header cannot carry")
    return token


def readable_part(loaded: Loaded) -> Loaded:
    """Returns the part of a file before its syntax error: enough to find the daemon."""
    broken = [d.place for d in loaded.errors if d.code == "syntax" and d.place.file in loaded.texts]
    if not broken:
        return loaded
    from servd.config.find import Disk, Source
    from servd.config.load import load_sources

    place = broken[0]
    text = "".join(loaded.texts[place.file].splitlines(keepends=True)[: place.line - 1])
    source = Source(place.file, text.encode())
    return load_sources([source], loaded.path, os.environ, Disk())


def _or_unit_socket(target: Target) -> str:
    """Returns the address, or that of the shipped unit if the config is the unit's."""
    is_the_units = os.path.realpath(target.config).startswith("/etc/servd/")
    if not is_the_units or target.listen or os.path.exists(f"{target.folder}/admin.sock"):
        return target.admin
    return f"unix:{UNIT_SOCKET}" if os.path.exists(UNIT_SOCKET) else target.admin


def _endpoint(admin: str) -> str:
    """Returns a path or a URL. Raises `UsageError`."""
    if "://" not in admin:
        path = admin.removeprefix("unix:")
        if not path or ("/" not in path and path.rpartition(":")[2].isdecimal()):
            raise UsageError(f"--admin {admin}: expected unix:PATH or http://HOST:PORT")
        return path
    url = urlsplit(admin)
    try:
        whole = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # an invalid port
        whole = False
    if not whole:
        raise UsageError(f"--admin {admin}: expected unix:PATH or http://HOST:PORT")
    return admin


def _token(settings: AdminConfig) -> str:
    """Returns the token of the configuration. Raises `ServdError` if its file is unreadable."""
    if not settings.token_file:
        return settings.token
    try:
        with open(settings.token_file, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        raise ServdError(f"{settings.token_file}: {error.strerror}") from None
