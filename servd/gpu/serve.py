"""Answers the daemon's questions, and tells the state of the GPUs unasked."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time

from servd.gpu.backend import Backend, BackendError, NoDriverError
from servd.wire.gpu_messages import GpuLines, GpuReport
from servd.wire.gpus import GpuFault


def serve(channel: socket.socket, backend: Backend, interval: float) -> None:
    """Sends a snapshot every `interval` seconds, at once for a question, and faults as they come,
    also while a look hangs; returns when the other end is closed. Raises `BackendError`.
    """
    sending = threading.Lock()

    def send(report: GpuReport) -> None:
        with sending:
            channel.sendall(report.line())

    def tell(fault: GpuFault) -> None:
        with contextlib.suppress(OSError):  # the other end is closed
            send(GpuReport(fault=fault))

    backend.watch(tell)
    lines = GpuLines()
    due = 0.0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while True:
            asked = None
            left = max(0.0, due - time.monotonic())
            ready, _, _ = select.select([channel.fileno()], [], [], left)
            if ready:
                data = channel.recv(65536)
                if not data:
                    return
                for line in lines.feed(data):
                    asked = _number(line, asked)
            if asked is not None or time.monotonic() >= due:
                send(GpuReport(snapshot=backend.look(), look=asked))
                due = time.monotonic() + interval
            for fault in backend.faults():
                send(GpuReport(fault=fault))


def tell_failure(channel: socket.socket, error: Exception) -> None:
    """Tells the daemon why the helper ends."""
    text = str(error) if isinstance(error, BackendError) else repr(error)
    absent = isinstance(error, NoDriverError)
    with contextlib.suppress(OSError):
        channel.sendall(GpuReport(failure=text, is_absent=absent).line())


def _number(line: bytes, otherwise: int | None) -> int | None:
    """Returns the number of the question in a line."""
    with contextlib.suppress(ValueError, AttributeError):
        number = json.loads(line).get("look")
        if isinstance(number, int):
            return number
    return otherwise
