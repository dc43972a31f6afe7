"""Opens the files that a configuration names, which may turn out to be pipes."""

from __future__ import annotations

import errno
import os
import stat
from typing import BinaryIO

_KINDS = (
    (stat.S_ISDIR, "it is a folder"),
    (stat.S_ISFIFO, "it is a pipe"),
    (stat.S_ISCHR, "it is a device"),
    (stat.S_ISBLK, "it is a device"),
)


def open_regular(path: str) -> BinaryIO:
    """Opens a file to read its bytes. Raises OSError, also for what is neither a file nor
    /dev/null: reading a pipe would wait for a writer.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode) and os.path.realpath(path) != os.devnull:
            what = next((text for matches, text in _KINDS if matches(mode)), "it is no file")
            raise OSError(errno.EINVAL, f"{what}: name a file", path)
        return os.fdopen(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise
