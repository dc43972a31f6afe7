"""Forks a process that the daemon adopts, with the identity that it asks for."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import sys
import time
from collections.abc import Mapping

from servd.wire.fork_request import ForkRequest
from servd.worker.process_area import ProcessArea

_libc = ctypes.CDLL(None)
_PR_SET_DUMPABLE = 4
_ADOPTION_SECONDS = 1.0
_PAUSE_SECONDS = 0.0005


def fork(request: ForkRequest, descriptors: list[int], area: ProcessArea) -> list[int] | None:
    """Forks as `request` says; `descriptors` are the pipe for the answer, stdout, stderr, and those
    of the process. Returns the latter in the process, None in this one. The answer is the pid, or
    the reason why there is none. The process in between makes it an orphan, which the daemon gets.
    """
    reply, stdout, stderr, *own = descriptors
    try:
        between = os.fork()
    except OSError as error:
        answer(reply, error)
        between = -1
    if between:
        for descriptor in descriptors:
            os.close(descriptor)
        if between > 0:
            os.waitpid(between, 0)
        return None
    try:
        between = os.getpid()
        if os.fork():
            os._exit(0)
        _become(request, stdout, stderr, area)
        _wait_for_adoption(between, request.parent)
    except BaseException as error:
        answer(reply, error)
        os._exit(1)
    answer(reply)
    os.close(reply)
    return own


def prove_fork() -> None:
    """Forks, and waits for the end of the fork. A hook of the app that hangs in a fork
    (`os.register_at_fork`) does so now, within the limit for the start, and not while the daemon
    waits for a worker.
    """
    with contextlib.suppress(OSError):  # workers are tried later, and report it
        proof = os.fork()
        if proof == 0:
            os._exit(0)
        os.waitpid(proof, 0)


def _become(request: ForkRequest, stdout: int, stderr: int, area: ProcessArea) -> None:
    """Does what `subprocess.Popen` does between fork and exec, in its order."""
    enter(request)
    os.setsid()
    if request.groups is not None:
        os.setgroups(request.groups)
    if request.gid is not None:
        os.setregid(request.gid, request.gid)
    if request.uid is not None:
        os.setreuid(request.uid, request.uid)
        if not os.access(sys.executable, os.X_OK):  # exec would say so; imports would fail later
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), sys.executable)
    if sys.platform == "linux":
        # a change of user ends it, exec brings it back: without it /proc/PID belongs to root
        _libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0)
    take_on(request, stdout, stderr, area)


def enter(request: ForkRequest) -> None:
    """Sets folder and umask. Raises OSError."""
    os.chdir(request.directory)
    if request.umask >= 0:
        os.umask(request.umask)


def take_on(request: ForkRequest, stdout: int, stderr: int, area: ProcessArea) -> None:
    """Sets the streams, the environment and what ps(1) shows."""
    for descriptor, target in ((stdout, 1), (stderr, 2)):
        os.dup2(descriptor, target)
        os.close(descriptor)
    _set_environment(request.environment)
    time.tzset()
    area.show(request.title, request.environment)


def _set_environment(environment: Mapping[str, str]) -> None:
    """Changes only the variables that differ: each change writes to memory that forks share."""
    for name in os.environ.keys() - environment.keys():
        del os.environ[name]
    for name, value in environment.items():
        if os.environ.get(name) != value:
            os.environ[name] = value


def _wait_for_adoption(between: int, parent: int) -> None:
    """Waits until the daemon is the parent, so that it can wait for this process. Raises
    `ChildProcessError` when another process is.
    """
    end = time.monotonic() + _ADOPTION_SECONDS
    while os.getppid() == between and time.monotonic() < end:
        time.sleep(_PAUSE_SECONDS)
    if os.getppid() != parent:
        raise ChildProcessError


def answer(reply: int, error: BaseException | None = None) -> None:
    """Tells the daemon the pid of this process, or why it cannot begin."""
    message: dict[str, object] = {"pid": os.getpid()}
    if error is not None:
        message = {
            "errno": getattr(error, "errno", None) or 0,
            "text": getattr(error, "strerror", None) or str(error) or type(error).__name__,
            "file": str(getattr(error, "filename", None) or ""),
        }
    os.write(reply, json.dumps(message).encode())
