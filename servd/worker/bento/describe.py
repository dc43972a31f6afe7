"""`python -P -m servd.worker.describe_bento IDENTIFIER DIRECTORY`: what a BentoML service declares
in its code, as one JSON document on stdout (whatever the code prints goes to stderr).

    {"entry": "Gateway", "files": [...], "services": [{"name": "Tokenizer", "depends": [...], ...}]}

or `{"error": "...", "code": "bentoml" | "import", "trace": "..."}` when it cannot be loaded.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import threading
from typing import Any

from servd.worker import gc_tuning
from servd.worker.bento.load import NoBentoMLError, load_service
from servd.worker.events import users_traceback
from servd.worker.load_app import AppLoadError, in_one_line

_BENTO_TIMEOUT = 60.0
"""BentoML's own default: who says nothing else has not said anything."""

_BUILD_FILES = ("bentofile.yaml", "pyproject.toml", "service.py", "bento.yaml")


def main() -> None:
    """Exits 1 when there is nothing to describe."""
    gc_tuning.pause()
    identifier, directory = sys.argv[1:3]
    sys.argv[1:] = []
    threading.Thread(target=_end_with_who_asked, daemon=True).start()
    document = os.dup(1)
    os.dup2(2, 1)
    logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    try:
        found = describe(load_service(identifier, directory), identifier, directory)
    except AppLoadError as error:
        code = "bentoml" if isinstance(error, NoBentoMLError) else "import"
        trace = users_traceback(error.__cause__) if code == "import" else ""
        lead = "" if code == "bentoml" else f"cannot load {identifier}: "
        found = {"error": lead + str(error), "code": code, "trace": trace}
    with open(document, "w", encoding="utf-8") as file:
        json.dump(found, file)
    sys.stdout.flush()
    os._exit(1 if "error" in found else 0)  # threads of the code have nothing more to do


def _end_with_who_asked() -> None:
    """Stdin is a pipe that nobody writes to: its end is the end of who wants to know."""
    with contextlib.suppress(OSError):
        os.read(0, 1)
    os._exit(1)


def describe(root: Any, identifier: str, directory: str) -> dict[str, Any]:
    """The graph of `root`, without what is reached by a URL."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    try:
        services = root.all_services(exclude_urls=True)
        root.inject_config()
    except Exception as error:
        raise AppLoadError(f"its configuration is not valid: {in_one_line(error)}") from None
    configured = BentoMLContainer.config.services.get()
    return {
        "entry": root.name,
        "tag": _tag(root, identifier, directory),
        "files": _files(root, identifier, directory),
        "services": [_described(service, configured[name]) for name, service in services.items()],
    }


def _tag(root: Any, identifier: str, directory: str) -> str:
    """The tag of a Bento out of BentoML's store, with the version that "latest" is now."""
    if root.bento is None or os.path.isdir(os.path.join(directory, identifier)):
        return ""
    return str(root.bento.tag)


def _described(service: Any, config: dict[str, Any]) -> dict[str, Any]:
    """What one service says of itself; None and nothing for what it leaves open."""
    traffic, http = config.get("traffic") or {}, config.get("http") or {}
    resources, tls = config.get("resources") or {}, config.get("ssl") or {}
    timeout = traffic.get("timeout")
    declared = service.config
    http_said = declared.get("http") or {}
    backlog = config.get("backlog")
    return {
        "name": service.name,
        "depends": [
            dependency.on.name
            for dependency in service.dependencies.values()
            if dependency.on is not None and not dependency.url and not dependency.deployment
        ],
        "workers": declared.get("workers") or _if_other(config.get("workers"), 1),
        "gpus": float(resources.get("gpu") or 0),
        "timeout": timeout if timeout != _BENTO_TIMEOUT or _says_timeout(declared) else None,
        "max_concurrency": traffic.get("max_concurrency"),
        "backlog": backlog if backlog != 2048 or "backlog" in declared else None,
        "host": str(http_said.get("host") or _if_other(http.get("host"), "0.0.0.0") or ""),  # noqa: S104
        "port": http_said.get("port") or _if_other(http.get("port"), 3000),
        "tls": _tls(tls) if tls.get("enabled") or tls.get("certfile") else None,
        "env": {
            item.name: str(item.value) if item.value else None
            for item in service.envs
            if item.stage != "build"
        },
        "command": bool(service.has_custom_command()),
    }


def _says_timeout(declared: Any) -> bool:
    return "timeout" in (declared.get("traffic") or {})


def _if_other(value: Any, default: Any) -> Any:
    """A value that a configuration of BentoML's own has set to something else."""
    return value if value is not None and value != default else None


def _tls(ssl: dict[str, Any]) -> dict[str, str]:
    """Paths and policies, named as servd names them; BentoML's default ciphers are no wish."""
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
    """The files that what was said stands in: when one of them changes, it is to be asked again."""
    folders = {os.path.abspath(directory), os.path.abspath(os.path.join(directory, identifier))}
    if root.bento is not None:
        folders.add(str(root.bento.path))
    folders.add(os.getcwd())
    found = {
        os.path.join(folder, name)
        for folder in folders
        for name in _BUILD_FILES
        if os.path.exists(os.path.join(folder, name))
    }
    for module in list(sys.modules.values()):
        file = getattr(module, "__file__", None)
        if file and any(file.startswith(folder + os.sep) for folder in folders):
            found.add(file)
    if root.bento is not None:
        found.add(os.path.join(os.path.dirname(str(root.bento.path)), "latest"))
    elif config := os.environ.get("BENTOML_CONFIG"):
        found.add(os.path.abspath(config))
    libraries = f"{os.sep}site-packages{os.sep}"
    return sorted(file for file in found if libraries not in file)


if __name__ == "__main__":
    main()
