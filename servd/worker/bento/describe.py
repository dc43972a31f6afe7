"""`python -P -m servd.worker.bento.describe IDENTIFIER DIRECTORY [FD]`: prints what a BentoML
service declares in its code, as one JSON document on stdout (the code's own output goes to stderr),
or `{"error": "...", "code": "bentoml" | "import", "trace": "..."}` when it cannot be loaded.

With a socket FD it then waits there for a request (`servd.wire.fork_request`) to become the first
worker of the service: its code, which may load models, is imported once on the way to the first
answer. The document says so by `"stays": true`.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import socket
import sys
import threading
from typing import Any

from servd.core import gc_tuning
from servd.wire.fork_request import ForkRequest, receive
from servd.wire.names import (
    AREA,
    BENTO_ARGUMENTS,
    DESCRIBE_LEVEL,
    METRICS_NEAR,
    PROMETHEUS_FOLDER,
)
from servd.worker.bento.declared_settings import server_settings, unless_default
from servd.worker.bento.legacy import described_legacy, is_legacy
from servd.worker.bento.load import NoBentoMLError, load_service
from servd.worker.channel import Channel
from servd.worker.events import HeldEvents, configure_logging, users_traceback
from servd.worker.fork import answer, enter, take_on
from servd.worker.load_app import AppLoadError, in_one_line
from servd.worker.metrics_folder import OwnMetricsFolder
from servd.worker.process_area import ProcessArea

_BUILD_FILES = ("bentofile.yaml", "pyproject.toml", "service.py", "bento.yaml")


_becomes_worker = threading.Event()


def main() -> None:
    """Prints the document; exits 1 if the service cannot be loaded. Returns at the end of the
    worker that it has become.
    """
    gc_tuning.pause()
    identifier, directory, *descriptor = sys.argv[1:]
    sys.argv[1:] = []
    area = ProcessArea()
    os.environ.pop(AREA, None)
    heir = socket.socket(fileno=int(descriptor[0])) if descriptor else None
    held = HeldEvents()
    metrics = OwnMetricsFolder(os.environ.pop(METRICS_NEAR, ""))
    threading.Thread(target=_exit_with_parent, args=[metrics], daemon=True).start()
    document = os.dup(1)
    os.dup2(2, 1)
    if heir is None:
        logging.basicConfig(level=logging.ERROR, stream=sys.stderr)
    else:
        heir.set_inheritable(False)
        configure_logging(held, os.environ.pop(DESCRIBE_LEVEL, "info"))
    found = _found(identifier, directory, 0 if heir is not None else None)
    stays = heir is not None and "error" not in found and not metrics.is_missing
    found |= {"stays": True} if stays else {}
    if stays:
        _silence()
    with open(document, "w", encoding="utf-8") as file:
        file.write(json.dumps(found) + "\n")
    sys.stdout.flush()
    if heir is not None and stays:
        _become(heir, area, metrics, held)
        return
    metrics.remove()
    os._exit(1 if "error" in found else 0)  # without waiting for threads of the code


def _found(identifier: str, directory: str, worker: int | None) -> dict[str, Any]:
    """Returns the document. The code is imported as a `worker` does, or as `bentoml serve`."""
    try:
        arguments = os.environ.pop(BENTO_ARGUMENTS, "")
        root = load_service(identifier, directory, arguments, worker=worker)
        return describe(root, identifier, directory)
    except AppLoadError as error:
        code = "bentoml" if isinstance(error, NoBentoMLError) else "import"
        trace = users_traceback(error.__cause__) if code == "import" else ""
        lead = "" if code == "bentoml" else f"cannot load {identifier}: "
        return {"error": lead + str(error), "code": code, "trace": trace}


def _silence() -> None:
    """The daemon reads no more of what the import prints; threads of it may print on."""
    for text in (sys.stdout, sys.stderr):
        text.flush()
    nothing = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)


def _become(
    heir: socket.socket, area: ProcessArea, metrics: OwnMetricsFolder, held: HeldEvents
) -> None:
    """Waits for the request to become a worker, and does so; exits when none comes."""
    try:
        message, descriptors = receive(heir)
    except ConnectionError:
        message = None
    if message is None:
        metrics.remove()
        os._exit(0)
    _becomes_worker.set()
    request = ForkRequest.read(message)
    reply, stdout, stderr, channel, *own = descriptors
    enter(request)
    take_on(request, stdout, stderr, area)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    heir.close()
    try:
        metrics.move_to(os.environ.get(PROMETHEUS_FOLDER, ""))
    except OSError as error:
        metrics.remove()
        answer(reply, ChildProcessError(f"its metrics cannot be moved: {error.strerror}"))
        os._exit(1)
    answer(reply)
    os.close(reply)
    from servd.worker.run import run

    run(Channel(channel), dict(zip(request.numbers, own, strict=True)), held=held)


def _exit_with_parent(metrics: OwnMetricsFolder) -> None:
    """Exits when the caller does, or lets go: it holds the write end of stdin, a pipe without data.
    What the code has started ends too.
    """
    with contextlib.suppress(OSError):
        os.read(0, 1)
    if _becomes_worker.is_set():
        return
    metrics.remove()
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)
    os._exit(1)


def describe(root: Any, identifier: str, directory: str) -> dict[str, Any]:
    """Returns the graph of `root`, without services behind a URL. Raises `AppLoadError`."""
    try:
        services = described_legacy(root) if is_legacy(root) else _all_described(root)
    except AppLoadError:
        raise
    except Exception as error:
        raise AppLoadError(f"invalid configuration: {in_one_line(error)}") from None
    is_stored = root.bento is not None and not os.path.isdir(os.path.join(directory, identifier))
    return {
        "entry": root.name,
        # only for a Bento in BentoML's store; with the current version of "latest"
        "tag": str(root.bento.tag) if is_stored else "",
        "latest": _latest(root, identifier) if is_stored else "",
        "files": _files(root, identifier, directory),
        "services": services,
    }


def _all_described(root: Any) -> list[dict[str, Any]]:
    from bentoml._internal.configuration.containers import BentoMLContainer

    services = root.all_services(exclude_urls=True)
    root.inject_config()
    configured = BentoMLContainer.config.services.get()
    return [_described(service, configured[name]) for name, service in services.items()]


def _described(service: Any, config: dict[str, Any]) -> dict[str, Any]:
    """Returns what one service declares. `config` has BentoML's defaults too, `service.config` only
    what the code says.
    """
    declared = service.config
    return {
        "name": service.name,
        "depends": [
            dependency.on.name
            for dependency in service.dependencies.values()
            if dependency.on is not None and not dependency.url and not dependency.deployment
        ],
        "workers": declared.get("workers") or unless_default(config.get("workers"), 1),
        "gpus": float((config.get("resources") or {}).get("gpu") or 0),
        "env": {
            item.name: str(item.value) if item.value else None
            for item in service.envs
            if item.stage != "build"
        },
        "command": bool(service.has_custom_command()),
        "readiness": hasattr(service.inner, "__is_ready__"),
        **server_settings(config, declared),
    }


def _latest(root: Any, identifier: str) -> str:
    """Returns the file that names the latest version, unless a certain one is asked for."""
    version = identifier.partition(":")[2]
    is_asked = version in ("", "latest")
    return os.path.join(os.path.dirname(str(root.bento.path)), "latest") if is_asked else ""


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
