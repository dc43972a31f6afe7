"""systemd's socket activation protocol (sd_listen_fds(3)), both directions."""

from __future__ import annotations

import fcntl
import os
import resource
from collections.abc import MutableMapping, Sequence

from servd.wire.names import FIRST_FD, LISTEN_FDNAMES, LISTEN_FDS, LISTEN_PID

_FREE_FD = 40
_SPARE_FDS = 8


def first_free_fd() -> int:
    """Returns a descriptor that `lay` leaves free, below a small limit of open files."""
    return min(_FREE_FD, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - _SPARE_FDS)


def take_inherited(environ: MutableMapping[str, str]) -> dict[str, list[int]]:
    """Returns the inherited descriptors by name, made non-inheritable; removes the variables.
    Returns nothing when LISTEN_PID names another process. A name may have several descriptors.
    """
    pid, count = environ.pop(LISTEN_PID, ""), environ.pop(LISTEN_FDS, "")
    names = environ.pop(LISTEN_FDNAMES, "").split(":")
    if not count.isdigit() or pid != str(os.getpid()):
        return {}
    result: dict[str, list[int]] = {}
    for index in range(int(count)):
        descriptor = FIRST_FD + index
        os.set_inheritable(descriptor, False)
        name = names[index] if index < len(names) and names[index] else "unknown"
        result.setdefault(name, []).append(descriptor)
    return result


def lay(descriptors: Sequence[int], names: Sequence[str]) -> dict[str, str]:
    """Moves `descriptors` to 3, 4, ... (closing those); returns the variables to set."""
    moved = [fcntl.fcntl(fd, fcntl.F_DUPFD, first_free_fd()) for fd in descriptors]
    for fd in descriptors:
        os.close(fd)
    for target, fd in enumerate(moved, FIRST_FD):
        os.dup2(fd, target, inheritable=True)
        os.close(fd)
    if not moved:
        return {}
    return {
        LISTEN_FDS: str(len(moved)),
        LISTEN_PID: str(os.getpid()),
        LISTEN_FDNAMES: ":".join(names),
    }
