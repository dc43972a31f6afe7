"""Pipes that a process writes to and the daemon reads."""

from __future__ import annotations

import contextlib
import os


def open_pipes(
    streams: tuple[str, ...], undo: contextlib.ExitStack, handed: contextlib.ExitStack
) -> tuple[dict[str, int], dict[str, int]]:
    """Returns the reading and the writing ends of a pipe for each stream: `undo` closes the former,
    `handed` the latter.
    """
    reading: dict[str, int] = {}
    writing: dict[str, int] = {}
    for stream in streams:
        reading[stream], writing[stream] = os.pipe2(os.O_CLOEXEC)
        undo.callback(os.close, reading[stream])
        handed.callback(os.close, writing[stream])
    return reading, writing
