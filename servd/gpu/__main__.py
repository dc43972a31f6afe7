"""The helper: `python -P -m servd.gpu SECONDS`, with a stream socket to the daemon as stdin."""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

from servd.core.parent_death import die_with_parent
from servd.gpu.backend import open_backend
from servd.gpu.serve import serve, tell_failure
from servd.wire.names import GPU_BACKEND


def main() -> None:
    """Serves until the daemon closes its end, or dies."""
    channel = socket.socket(fileno=os.dup(0))
    die_with_parent(signal.SIGKILL)  # a question that hangs must not outlast the daemon
    poll = select.poll()
    poll.register(channel, 0)
    if poll.poll(0):  # it has died already
        return
    try:
        serve(channel, open_backend(os.environ.get(GPU_BACKEND) or "nvml"), float(sys.argv[1]))
    except Exception as error:  # whatever pynvml raises: somebody has to read it
        tell_failure(channel, error)
        sys.exit(1)


if __name__ == "__main__":
    main()
