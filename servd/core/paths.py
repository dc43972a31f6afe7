"""Paths of a daemon's runtime folder and admin socket, for the daemon and its clients."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from servd.core.address import Address
from servd.core.basedir import absolute


def instance_name(config_path: str) -> str:
    """Returns the name of the daemon of a config. Links in its path are not resolved: a link to a
    release can be swapped while the daemon runs.
    """
    given = absolute(config_path)
    stem = re.sub(r"[^a-z0-9]+", "-", Path(given).parent.name.lower()).strip("-")[:24]
    return f"{stem or 'servd'}-{hashlib.sha256(os.fsencode(given)).hexdigest()[:8]}"


def default_runtime_dir(config_path: str, environ: Mapping[str, str], *, is_root: bool) -> str:
    """Returns systemd's $RUNTIME_DIRECTORY, else /run/servd for root and $XDG_RUNTIME_DIR for a
    user (that of root excludes workers of other users), else a temporary folder.
    """
    if given := environ.get("RUNTIME_DIRECTORY"):
        return given.split(":")[0]
    name = instance_name(config_path)
    if is_root:
        return f"/run/servd/{name}"
    if runtime := environ.get("XDG_RUNTIME_DIR"):
        return os.path.join(runtime, "servd", name)
    return os.path.join(tempfile.gettempdir(), f"servd-{os.getuid()}", name)


def runtime_dir_of(configured: str, path: str, otherwise: str | None = None) -> str:
    """Returns `daemon.runtime_dir` (`configured`), else `otherwise`, else the default."""
    is_root = os.geteuid() == 0
    return configured or otherwise or default_runtime_dir(path, os.environ, is_root=is_root)


def admin_address(listen: Address | None, runtime_dir: str) -> Address:
    """Returns the address of the admin API: `admin.listen`, else a socket in the runtime folder."""
    return listen or Address("unix", path=os.path.join(runtime_dir, "admin.sock"))
