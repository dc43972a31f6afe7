"""A running template, as the daemon sees it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import select
import signal
import socket
from collections.abc import Callable, Sequence
from typing import Any

from servd.supervisor.templates.forked import Child, ForkedProcess, kill_with_group
from servd.wire.fork_request import (
    LOAD,
    LOADED,
    MAX_BYTES,
    MAX_DESCRIPTORS,
    READY,
    ForkRequest,
    receive,
    send,
)

FORK_SECONDS = 2.0
"""Time limit for a fork, which takes some milliseconds; the daemon waits for it."""


class TemplateError(OSError):
    """A template cannot fork; the message says why."""


class NoAnswerError(TemplateError):
    """It has ended, or hangs."""


def ask(sock: socket.socket, request: ForkRequest, descriptors: Sequence[int]) -> ForkedProcess:
    """Asks for the process of `request` at the other end of `sock`. See `Template.fork`; raises
    `NoAnswerError` too.
    """
    reading = request_fork(sock, request, descriptors)
    try:
        return answer_of(reading)
    finally:
        os.close(reading)


def request_fork(sock: socket.socket, request: ForkRequest, descriptors: Sequence[int]) -> int:
    """Sends the request; returns the pipe on which the answer comes. Raises `TemplateError`."""
    text = request.to_json()
    if len(descriptors) >= MAX_DESCRIPTORS or len(text) >= MAX_BYTES:
        raise TemplateError(0, "too much to pass to a template")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    try:
        send(sock, text, [writing, *descriptors])
    except OSError as error:
        os.close(reading)
        raise TemplateError(error.errno, "the template does not take requests") from None
    finally:
        os.close(writing)
    return reading


def answer_of(reading: int) -> ForkedProcess:
    """Waits for the answer to a request; returns the process. See `Template.fork`."""
    found = _answer(reading)
    if "pid" in found:
        return ForkedProcess(found["pid"])
    if not found["errno"]:
        raise TemplateError(0, found["text"])
    file = [found["file"]] if found["file"] else []
    raise OSError(found["errno"], found["text"], *file)


def _answer(reading: int) -> dict[str, Any]:
    poll = select.poll()
    poll.register(reading, select.POLLIN)
    ready = poll.poll(FORK_SECONDS * 1000)
    content = os.read(reading, 65536) if ready else b""
    if not content:
        raise NoAnswerError(0, "the template has ended" if ready else "it does not answer")
    with contextlib.suppress(ValueError):
        found: dict[str, Any] = json.loads(content)
        if isinstance(found.get("pid"), int) or {"errno", "text", "file"} <= found.keys():
            return found
    raise NoAnswerError(0, "it answers what is no answer")


def require_child(pid: int) -> None:
    """Raises `NoAnswerError` for a process that is not this one's child: code of an app, which runs
    in its template, could name any.
    """
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except (OSError, OverflowError):
        raise NoAnswerError(0, "it names a process that is none of servd's") from None


class Template:
    """Forks processes. `changed` is called when it gets ready, has loaded an app, or has ended."""

    def __init__(self, child: Child, sock: socket.socket, changed: Callable[[], object]) -> None:
        self.is_ready = False
        self.loaded: bool | None = None
        self._child = child
        self._socket = sock
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._pidfd = os.pidfd_open(child.pid)
        self._closed = False
        sock.setblocking(False)
        self._loop.add_reader(sock, self._hear)
        self._loop.add_reader(self._pidfd, self._reap)

    @property
    def pid(self) -> int:
        """The pid of its process."""
        return self._child.pid

    @property
    def status(self) -> int | None:
        """The exit status of its process; None while it runs."""
        return self._child.returncode

    @property
    def is_alive(self) -> bool:
        """Whether it can be asked."""
        return not self._closed and self.status is None

    def load(self, spec: str, events: int) -> None:
        """Has it load the app of a worker's spec; `loaded` tells whether it could. Raises OSError
        when the spec is too long.
        """
        send(self._socket, json.dumps({"do": LOAD, "spec": spec}), [events])

    def fork(self, request: ForkRequest, descriptors: Sequence[int]) -> ForkedProcess:
        """Forks; `descriptors` are stdout, stderr, and those of the process. Raises
        `TemplateError`, or the OSError of what the process did before it was ready to begin.
        """
        try:
            forked = ask(self._socket, request, descriptors)
            require_child(forked.pid)
        except NoAnswerError:
            self.kill()
            raise
        return forked

    def _hear(self) -> None:
        try:
            message, _ = receive(self._socket)
        except BlockingIOError:
            return
        except OSError:
            message = None
        if message is None:
            self.kill()
            return
        self.is_ready = self.is_ready or bool(message.get(READY))
        if LOADED in message:
            self.loaded = bool(message[LOADED])
        self._changed()

    def _reap(self) -> None:
        if self._child.poll() is not None:
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)
            self.close()
            self._changed()

    def abort(self) -> None:
        """Has it print where it is, and end."""
        if self.status is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(self.pid, signal.SIGABRT)

    def kill(self) -> None:
        """Ends it, with what the app's import has started."""
        self.close()
        kill_with_group(self._child)

    def end(self) -> None:
        """Ends it, and waits for its end."""
        self.kill()
        if self.status is None:
            self._child.wait()
            self._loop.remove_reader(self._pidfd)
            os.close(self._pidfd)

    def close(self) -> None:
        """Lets it end, once nobody else has its socket."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._socket)
            self._socket.close()
