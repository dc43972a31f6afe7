"""Socket activation, both directions, with real descriptors in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

from servd.wire.listen_fds import take_inherited

LAY = """
import os, socket, sys
from servd.wire.listen_fds import lay, take_inherited
environ = lay([int(fd) for fd in sys.argv[1:]], ["one", "two"])
found = take_inherited(environ)
assert environ == {}, environ
for name, descriptors in sorted(found.items()):
    print(name, descriptors, socket.socket(fileno=descriptors[0]).getsockname()[1])
"""


def test_descriptors_are_laid_in_order_whatever_their_numbers_were() -> None:
    """Handed over in reverse, so that each stands where the other has to go."""
    with socket.socket() as one, socket.socket() as two:
        for sock in (one, two):
            sock.bind(("127.0.0.1", 0))
        low, high = sorted((one, two), key=lambda sock: sock.fileno())
        arguments = [str(high.fileno()), str(low.fileno())]
        done = subprocess.run(
            [sys.executable, "-c", LAY, *arguments],
            pass_fds=[low.fileno(), high.fileno()],
            capture_output=True,
            text=True,
        )
        assert done.stdout.splitlines() == [
            f"one [3] {high.getsockname()[1]}",
            f"two [4] {low.getsockname()[1]}",
        ], done.stderr


def test_descriptors_for_another_process_are_not_taken() -> None:
    environ = {"LISTEN_FDS": "2", "LISTEN_PID": str(os.getpid() + 1)}
    assert take_inherited(environ) == {}
    assert environ == {}
