"""`python -P -m servd.worker.template FD`: imports what workers need once, and forks them.

FD is the socket on which the daemon asks (`servd.wire.fork_request`); the template ends with it. It
has no thread and no event loop: both would be lost, or shared, in a fork.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass

from servd.core import gc_tuning
from servd.core.parent_death import die_with_parent
from servd.wire.fork_request import LOAD, LOADED, READY, ForkRequest, receive, send
from servd.wire.worker_spec import WorkerSpec
from servd.worker.channel import Channel
from servd.worker.events import EventWriter, configure_logging
from servd.worker.fork import fork, prove_fork
from servd.worker.loaded import LoadedApp, load_once, native_threads
from servd.worker.process_area import ProcessArea
from servd.worker.run import run
from servd.worker.runtime import import_runtime

_IGNORED_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}


@dataclass(slots=True)
class _Fork:
    """A forked process: its request, channel, and descriptors by the daemon's numbers."""

    request: ForkRequest
    channel: int
    numbers: dict[int, int]


class TemplateServer:
    """Does what the daemon asks on `sock`."""

    def __init__(self, sock: socket.socket, area: ProcessArea) -> None:
        self.area = area
        self.loaded: LoadedApp | None = None
        self._socket = sock

    def serve(self) -> _Fork | None:
        """Returns in a forked process; None at the end of the daemon."""
        try:
            send(self._socket, json.dumps({READY: True}))
            while True:
                message, descriptors = receive(self._socket)
                if message is None:
                    return None
                if message["do"] == LOAD:
                    self._load(message["spec"], *descriptors)
                elif (child := self._fork(ForkRequest.read(message), descriptors)) is not None:
                    return child
        except ConnectionError:
            return None

    def _fork(self, request: ForkRequest, descriptors: list[int]) -> _Fork | None:
        own = fork(request, descriptors, self.area)
        if own is None:
            return None
        self._socket.close()
        channel, *rest = own
        return _Fork(request, channel, dict(zip(request.numbers, rest, strict=True)))

    def _load(self, text: str, events: int) -> None:
        spec = WorkerSpec.from_json(text)
        assert spec.app is not None
        die_with_parent(signal.SIGKILL)
        writer = EventWriter(events, _nothing)
        faulthandler.enable()
        configure_logging(writer, spec.app.log.level)
        import_runtime(spec.app.uvicorn)
        if spec.tells_sources:
            from servd.worker.sources import reported

            reported(spec.app.directory, spec.app.app)
        self.loaded = load_once(spec.app)
        if self.loaded.error is None and (count := native_threads()) > 0:
            message = "the app's import has started threads of libraries, which forks do not have"
            writer.event("warning", message, threads=count)
        prove_fork()
        writer.close()
        os.close(events)
        send(self._socket, json.dumps({LOADED: self.loaded.error is None}))


def _nothing(_: int) -> None:
    """Counts no dropped lines: the daemon reads."""


def main() -> None:
    """Serves the daemon; returns when it ends, or runs a worker."""
    _reset_signals()
    gc_tuning.pause()
    template = TemplateServer(socket.socket(fileno=int(sys.argv[1])), ProcessArea())
    sys.argv[1:] = []
    template.area.show_title("servd: template")
    import_runtime()
    gc.freeze()
    while (child := template.serve()) is not None:
        if not child.request.is_template:
            run(Channel(child.channel), child.numbers, template.loaded)
            return
        template = TemplateServer(socket.socket(fileno=child.channel), template.area)


def _reset_signals() -> None:
    """Takes back what whoever started the daemon ignored or blocked."""
    for number in signal.valid_signals() - _IGNORED_BY_PYTHON:
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


if __name__ == "__main__":
    main()
