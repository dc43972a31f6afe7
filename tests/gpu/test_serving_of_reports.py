"""What the helper sends while a look hangs."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from servd.gpu.serve import serve
from servd.wire.gpu_messages import GpuLines, report_of
from servd.wire.gpus import GpuFault, GpuSnapshot

from support.harness import DEADLINE


class Hanging:
    """A driver whose look hangs until it is let go."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.answers = threading.Event()
        self.tell: Callable[[GpuFault], None] = lambda fault: None

    def look(self) -> GpuSnapshot:
        self.asked.set()
        self.answers.wait(DEADLINE)
        return GpuSnapshot()

    def faults(self) -> list[GpuFault]:
        return []

    def watch(self, tell: Callable[[GpuFault], None]) -> None:
        self.tell = tell


def test_an_error_is_told_while_a_look_hangs() -> None:
    ours, theirs = socket.socketpair()
    ours.settimeout(DEADLINE)
    backend = Hanging()
    thread = threading.Thread(target=serve, args=(theirs, backend, 3600.0))
    thread.start()
    assert backend.asked.wait(DEADLINE)
    fault = GpuFault("GPU-a", 79, "Xid 79")
    backend.tell(fault)
    (line,) = GpuLines().feed(ours.recv(65536))
    assert report_of(line).fault == fault
    backend.answers.set()
    ours.close()
    thread.join(DEADLINE)
    assert not thread.is_alive()
    backend.tell(fault)  # nobody listens: no error
    theirs.close()
