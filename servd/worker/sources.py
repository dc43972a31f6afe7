"""The files that an app's code was loaded from, for the daemon to watch in development."""

from __future__ import annotations

import os
import sys
import traceback

_A_MESSAGE = 50
"""Files told at once: a message must not become too long."""


def loaded_files(directory: str, error: BaseException | None = None) -> list[list[str]]:
    """The files of this process's modules below `directory`, and those in which an `error` came
    up; libraries are left out. In portions that fit into a message.
    """
    found = {getattr(module, "__file__", None) for module in list(sys.modules.values())}
    while error is not None:
        found |= {frame.filename for frame in traceback.extract_tb(error.__traceback__)}
        if isinstance(error, SyntaxError):
            found.add(error.filename)
        error = error.__cause__ or error.__context__
    below = os.path.abspath(directory) + os.sep
    files = sorted(
        os.path.realpath(file)
        for file in found
        if file and file.startswith(below) and f"{os.sep}site-packages{os.sep}" not in file
    )
    return [files[at : at + _A_MESSAGE] for at in range(0, len(files), _A_MESSAGE)]
