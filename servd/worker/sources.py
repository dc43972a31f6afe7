"""The source files of an app, which the daemon watches in development."""

from __future__ import annotations

import os
import sys
import traceback

_FILES_PER_MESSAGE = 50


def loaded_files(directory: str, error: BaseException | None = None) -> list[list[str]]:
    """Returns files of modules below `directory`, and of `error`'s traceback, in batches."""
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
    starts = range(0, len(files), _FILES_PER_MESSAGE)
    return [files[at : at + _FILES_PER_MESSAGE] for at in starts]
