"""Failures for want of something that the machine, or this process, has run out of: nobody has made
a mistake, and they are over as soon as there is enough again.
"""

from __future__ import annotations

import errno
import glob
import os

_OUT_OF = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.ENOSPC,
     errno.EDQUOT}
)  # fmt: skip
_NO_THREAD = "can't start new thread"


def is_exhaustion(error: BaseException) -> bool:
    """Whether something failed for want of descriptors, memory, processes, threads or disk."""
    if isinstance(error, OSError):
        return error.errno in _OUT_OF
    return isinstance(error, RuntimeError) and str(error) == _NO_THREAD


def exhaustion_reason(error: BaseException) -> str:
    """What there is too little of, in the system's words."""
    return str(getattr(error, "strerror", None) or error)


def glob_or_raise(pattern: str) -> list[str]:
    """Paths that match a pattern (glob(3)), sorted. Raises OSError where a shortage keeps folders
    from being read: glob itself would say that nothing is there.
    """
    found = sorted(glob.glob(pattern, recursive=True))
    folder = os.path.dirname(pattern)
    while glob.has_magic(folder):
        folder = os.path.dirname(folder)
    try:
        os.scandir(folder or ".").close()
    except OSError as error:
        if is_exhaustion(error):
            raise
    return found
