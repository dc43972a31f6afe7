"""Starts the process that asks the GPUs' driver. Impure."""

from __future__ import annotations

import contextlib
import errno
import importlib.util
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping

from servd.core.processes import started_at
from servd.core.quick_dataclass import dataclass
from servd.wire.gpu_messages import MODULE
from servd.wire.names import FAKE, GPU_BACKEND

_PASSED = (
    "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "NVIDIA_VISIBLE_DEVICES", GPU_BACKEND,
)  # fmt: skip
"""Variables that the helper needs: to find servd, pynvml and the library of the driver."""

_PATHS = ("PATH", "LD_LIBRARY_PATH", "PYTHONPATH")
"""Those that are lists of folders, which may be relative to the folder of this process."""

_ending: list[tuple[int, int]] = []
"""Helpers that are killed and may not have ended, by pid and start time: what hangs in the kernel
cannot be killed, and another helper would only hang beside it.
"""
_ending_lock = threading.Lock()

NO_PYNVML = "the Python package nvidia-ml-py is not installed"


@dataclass(frozen=True, slots=True)
class StartedHelper:
    """A helper: its process, and the socket to it (`servd.wire.gpu_messages`)."""

    process: subprocess.Popen[bytes]
    channel: socket.socket


def may_have_gpus(environ: Mapping[str, str]) -> bool:
    """Whether a helper could find anything: it has a backend for tests, or pynvml."""
    return bool(environ.get(GPU_BACKEND)) or importlib.util.find_spec("pynvml") is not None


def start_helper(environ: Mapping[str, str], interval: float) -> StartedHelper:
    """Starts a helper that looks every `interval` seconds. It ends when the socket is closed, and
    is killed when this process dies. Raises OSError, also while an earlier one cannot be killed.
    """
    if is_one_ending():
        raise OSError(errno.EBUSY, "an earlier one hangs in the driver")
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(interval)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: _passed(name, environ[name]) for name in _PASSED if name in environ},
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return StartedHelper(process, ours)


def end_helper(process: subprocess.Popen[bytes]) -> None:
    """Kills a helper without waiting: one whose question hangs in the kernel ends later."""
    started = started_at(process.pid) if process.returncode is None else None
    with contextlib.suppress(OSError):
        process.kill()
    if started is not None:
        with _ending_lock:
            _ending.append((process.pid, started))


def is_one_ending() -> bool:
    """Whether a helper that was killed has not ended yet."""
    with _ending_lock:
        _ending[:] = [(pid, started) for pid, started in _ending if started_at(pid) == started]
        return bool(_ending)


def _passed(name: str, value: str) -> str:
    """Returns the value of a variable for a process that runs in another folder."""
    if name == GPU_BACKEND and value.startswith(FAKE):
        return FAKE + os.path.abspath(value.removeprefix(FAKE))
    if name not in _PATHS:
        return value
    return os.pathsep.join(os.path.abspath(each) for each in value.split(os.pathsep) if each)
