"""Starts the process that asks the GPUs' driver. Impure."""

from __future__ import annotations

import importlib.util
import socket
import subprocess
import sys
from collections.abc import Mapping

from servd.core.quick_dataclass import dataclass
from servd.wire.gpu_messages import MODULE
from servd.wire.names import GPU_BACKEND

_PASSED = (
    "PATH", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "NVIDIA_VISIBLE_DEVICES", GPU_BACKEND,
)  # fmt: skip
"""Variables that the helper needs: to find servd, pynvml and the library of the driver."""


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
    is killed when this process dies. Raises OSError.
    """
    ours, theirs = socket.socketpair()
    try:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", MODULE, str(interval)],
            stdin=theirs.fileno(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd="/",
            env={name: environ[name] for name in _PASSED if name in environ},
            start_new_session=True,
        )
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return StartedHelper(process, ours)
