"""`python -I -S program.py FD`: becomes the program that the spec on the channel FD names. Moves
its sockets to 3, 4, ... with the variables that announce them (LISTEN_PID must be the program's
pid), asks for a signal at the daemon's death, and calls exec(2).
"""

from __future__ import annotations

import json
import os
import signal
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from servd.core.parent_death import die_with_parent
from servd.wire import listen_fds
from servd.wire.names import STARTUP_FAILURE
from servd.wire.notify import announce_watchdog
from servd.worker.channel import Channel
from servd.worker.restrict import ConfineError, confine

NOT_FOUND, NOT_EXECUTABLE = 127, 126
"""Exit statuses of shells for a program that is missing, or cannot be run."""


def main() -> None:
    """Replaces this process."""
    channel = Channel(int(sys.argv[1]))
    parent = os.getppid()
    text = channel.receive()
    if text is None:
        return
    spec = json.loads(text)
    die_with_parent(spec["stop_signal"])
    if os.getppid() != parent:
        return  # the daemon died before die_with_parent
    names = [item["name"] for item in spec["sockets"]]
    announce_watchdog(spec["watchdog"])
    environment = os.environ | listen_fds.lay([item["fd"] for item in spec["sockets"]], names)
    try:
        confine(spec["rlimits"], spec["cpus"], no_new_privs=spec["no_new_privs"])
    except ConfineError as error:
        _fail(channel, str(error), STARTUP_FAILURE)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them; programs expect them
        signal.signal(number, signal.SIG_DFL)
    program = spec["argv"][0]
    try:
        os.execvpe(program, spec["argv"], environment)  # noqa: S606  # intentionally without a shell
    except OSError as error:
        status = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
        _fail(channel, f"cannot run {program}: {error.strerror}", status)


def _fail(channel: Channel, message: str, status: int) -> None:
    channel.send(failed=message)
    print(message, file=sys.stderr)
    os._exit(status)


if __name__ == "__main__":
    main()
