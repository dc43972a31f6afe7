"""`python -P -m servd.worker.bento.describe IDENTIFIER DIRECTORY`: prints what a BentoML service
declares in its code, as one JSON document on stdout (the code's own output goes to stderr), or
`{"error": "...", "code": "bentoml" | "import", "trace": "..."}` when it cannot be loaded.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import threading
from typing import Any

from servd.core import gc_tuning
from servd.wire.names import BENTO_ARGUMENTS
from servd.worker.bento.load import NoBentoMLError, load_service
from servd.worker.events import users_traceback
from servd.worker.load_app import AppLoadError, in_one_line
from servd.worker.metrics_folder import own_metrics_folder, remove_own_metrics_folder

_DEFAULT_TIMEOUT_SECONDS = 60.0
_DEFAULT_BACKLOG = 2048
"""BentoML's defaults: such a value counts as undeclared."""

_BUILD_FILES = ("bentofile.yaml", "pyproject.toml", "service.py", "bento.yaml")


def main() -> None:
    """Prints the document; exits 1 if the service cannot be loaded."""
    gc_tuning.pause()
    identifier, directory = sys.argv[1:3]
    sys.argv[1:] = []
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    document = os.dup(1)
    os.dup2(2, 1)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    try:
        with own_metrics_folder():
            root = load_service(identifier, directory, os.environ.pop(BENTO_ARGUMENTS, ""))
            found = describe(root, identifier, directory)
    except AppLoadError as error:
        code = "bentoml" if isinstance(error, NoBentoMLError) else "import"
        trace = users_traceback(error.__cause__) if code == "import" else ""
        lead = "" if code == "bentoml" else f"cannot load {identifier}: "
        found = {"error": lead + str(error), "code": code, "trace": trace}
    with open(document, "w", encoding="utf-8") as file:
        json.dump(found, file)
    sys.stdout.flush()
    os._exit(1 if "error" in found else 0)  # without waiting for threads of the code


def _exit_with_parent() -> None:
    """Exits when the caller does, or lets go: it holds the write end of stdin, a pipe without data.
    What the code has started ends too.
    """
    with contextlib.suppress(OSError):
        os.read(0, 1)
    remove_own_metrics_folder()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def describe(root: Any, identifier: str, directory: str) -> dict[str, Any]:
    """Returns the graph of `root`, without services behind a URL. Raises `AppLoadError`."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    try:
        services = root.all_services(exclude_urls=True)
        root.inject_config()
    except Exception as error:
        raise AppLoadError(f"invalid configuration: {in_one_line(error)}") from None
    configured = BentoMLContainer.config.services.get()
    folder = os.path.join(directory, identifier)
    return {
        "entry": root.name,
        # only for a Bento in BentoML's store; with the current version of "latest"
        "tag": "" if root.bento is None or os.path.isdir(folder) else str(root.bento.tag),
        "files": _files(root, identifier, directory),
        "services": [_described(service, configured[name]) for name, service in services.items()],
    }


def _described(service: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Returns what one service declares; None or nothing for what it leaves open. `config` has
    BentoML's defaults too, `service.config` only what the code says.
    """
    declared = service.config
    traffic, own = config.get("traffic") or {}, declared.get("traffic") or {}
    timeout, backlog = traffic.get("timeout"), config.get("backlog")
    http, address = config.get("http") or {}, declared.get("http") or {}
    host = address.get("host") or _unless_default(http.get("host"), "0.0.0.0")  # noqa: S104
    return {
        "name": service.name,
        "depends": [
            dependency.on.name
            for dependency in service.dependencies.values()
            if dependency.on is not None and not dependency.url and not dependency.deployment
        ],
        "workers": declared.get("workers") or _unless_default(config.get("workers"), 1),
        "gpus": float((config.get("resources") or {}).get("gpu") or 0),
        "timeout": timeout if timeout != _DEFAULT_TIMEOUT_SECONDS or "timeout" in own else None,
        "max_concurrency": traffic.get("max_concurrency"),
        "backlog": backlog if backlog != _DEFAULT_BACKLOG or "backlog" in declared else None,
        "host": str(host or ""),
        "port": address.get("port") or _unless_default(http.get("port"), 3000),
        "tls": _tls(config.get("ssl") or {}),
        "env": {
            item.name: str(item.value) if item.value else None
            for item in service.envs
            if item.stage != "build"
        },
        "command": bool(service.has_custom_command()),
    }


def _unless_default(value: Any, default: Any) -> Any:
    """Returns `value` if BentoML's own configuration changed it, else None."""
    return value if value is not None and value != default else None


def _tls(ssl: dict[str, Any]) -> dict[str, str] | None:
    """Returns paths and policies under servd's names. BentoML's default ciphers count as unset."""
    if not (ssl.get("enabled") or ssl.get("certfile")):
        return None
    reqs = ("none", "optional", "required")[int(ssl.get("cert_reqs") or 0)]
    ciphers = ssl.get("ciphers") or ""
    return {
        "certfile": _absolute(ssl.get("certfile")),
        "keyfile": _absolute(ssl.get("keyfile")),
        "keyfile_password": ssl.get("keyfile_password") or "",
        "ca_certs": _absolute(ssl.get("ca_certs")),
        "client_auth": reqs,
        "ciphers": "" if ciphers == "TLSv1" else ciphers,
    }


def _absolute(path: str | None) -> str:
    return os.path.abspath(path) if path else ""


def _files(root: Any, identifier: str, directory: str) -> list[str]:
    """Returns the files that the answer depends on: a change of one makes it outdated."""
    places = (directory, os.path.join(directory, identifier), os.getcwd())
    folders = {os.path.abspath(folder) for folder in places}
    if root.bento is not None:
        folders.add(str(root.bento.path))
    built = {os.path.join(folder, name) for folder in folders for name in _BUILD_FILES}
    found = set(filter(os.path.exists, built))
    below = tuple(folder + os.sep for folder in folders)
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    found |= {file for file in loaded if file and file.startswith(below)}
    if root.bento is not None:
        found.add(os.path.join(os.path.dirname(str(root.bento.path)), "latest"))
    elif config := os.environ.get("BENTOML_CONFIG"):
        found.add(os.path.abspath(config))
    libraries = f"{os.sep}site-packages{os.sep}"
    return sorted(file for file in found if libraries not in file)


if __name__ == "__main__":
    main()
