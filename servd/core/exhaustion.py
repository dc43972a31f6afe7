"""Transient resource exhaustion (EMFILE, ENOMEM, ENOSPC, no thread): a retry may help."""

from __future__ import annotations

import errno
import glob
import os

_EXHAUSTION_ERRNOS = frozenset({
    errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS, errno.EAGAIN, errno.ENOSPC,
    errno.EDQUOT,
})  # fmt: skip
_NO_THREAD_MESSAGE = "can't start new thread"


def is_exhaustion(error: BaseException) -> bool:
    """Returns whether the error is a lack of descriptors, memory, processes, threads or disk."""
    if isinstance(error, OSError):
        return error.errno in _EXHAUSTION_ERRNOS
    return isinstance(error, RuntimeError) and str(error) == _NO_THREAD_MESSAGE


def exhaustion_reason(error: BaseException) -> str:
    """Returns the system's text for the exhausted resource."""
    return str(getattr(error, "strerror", None) or error)


def glob_or_raise(pattern: str) -> list[str]:
    """Returns the matching paths (glob(3)), sorted. Raises OSError if exhaustion hides some."""
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
