"""Memory that the daemon and its workers share. Standard library only."""

from __future__ import annotations

import fcntl
import os


def create(name: str, size: int) -> int:
    """Returns the descriptor of new memory of `size` bytes. Raises OSError. Its size is sealed
    (memfd_create(2)): a worker that shrank it would kill the daemon by SIGBUS.
    """
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.ftruncate(descriptor, size)
        seals = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
