"""`[[hooks]]`: runs programs and calls URLs on events, without waiting for them."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import signal
import socket
from collections.abc import Mapping, Sequence
from typing import IO, Any
from urllib.parse import urlsplit

import structlog

from servd.config.model import Hook, HookEvent
from servd.core.events import Event
from servd.daemon.log.event import LogEvent
from servd.plan.environment import BASE, matches_any
from servd.wire.graces import HOOK_SECONDS

_QUEUED_CALLS = 100
"""Waiting calls of one hook; more are dropped, and that is logged. One runs at a time, per hook."""

_KEPT_BYTES = 4096
_NAMES: Mapping[Event, HookEvent] = {
    Event.CRASH_LOOP: "crash_loop",
    Event.SERVICE_FAILED: "service_failed",
    Event.RELOAD_FAILED: "reload_failed",
    Event.CERTIFICATE_EXPIRING: "certificate_expiring",
    Event.CERTIFICATE_EXPIRED: "certificate_expiring",
    Event.GPU_FAILED: "gpu_failed",
    Event.WORKER_DIED: "worker_replaced",
    Event.WORKER_RECYCLED: "worker_replaced",
}

log = structlog.get_logger()


class HookError(Exception):
    """A failed call, with the last output of the program."""

    def __init__(self, message: str, last_lines: Sequence[str] = ()) -> None:
        self.last_lines = list(last_lines)
        super().__init__(message)


def hook_event(event: Mapping[str, Any]) -> HookEvent | None:
    """Returns the hooks' name for an event of the log; None if there is none."""
    if event["event"] == Event.RELOAD_FINISHED and event["outcome"] == "applied":
        return "reload_applied"
    return _NAMES.get(event["event"])


class Hooks:
    """Calls the hooks of one daemon, in `folder`; `hooks` may be replaced at any time."""

    def __init__(self, hooks: Sequence[Hook], folder: str, environ: Mapping[str, str]) -> None:
        self.hooks = tuple(hooks)
        self._folder = folder
        self._environ = {k: v for k, v in environ.items() if matches_any(k, BASE)}
        self._locks: dict[Hook, asyncio.Lock] = {}
        self._calls: dict[asyncio.Task[None], Hook] = {}
        self._loop = asyncio.get_running_loop()

    def take(self, event: LogEvent) -> None:
        """Takes an event of the daemon, from any thread."""
        if self.hooks and event.fields is not None:
            with contextlib.suppress(RuntimeError):  # the loop has ended
                self._loop.call_soon_threadsafe(self._take, event.fields)

    def _take(self, event: Mapping[str, Any]) -> None:
        name = hook_event(event)
        for hook in self.hooks:
            if name not in hook.on:
                continue
            if list(self._calls.values()).count(hook) > _QUEUED_CALLS:
                log.warning(Event.HOOK_DROPPED, hook=name, reason="too many calls are waiting")
                continue
            body = json.dumps({"hook": name, "host": socket.gethostname(), **event})
            call = self._loop.create_task(self._call(hook, str(name), body.encode()))
            self._calls[call] = hook
            call.add_done_callback(lambda done: self._calls.pop(done, None))

    async def stop(self) -> None:
        """Waits a moment for running calls, and cancels the rest."""
        await asyncio.sleep(0)  # events that were taken become calls
        if self._calls:
            await asyncio.wait(self._calls, timeout=HOOK_SECONDS)
        if self._calls:
            log.warning(Event.HOOKS_DROPPED, calls=len(self._calls), reason="servd is stopping")
        for call in list(self._calls):
            call.cancel()
        if self._calls:
            await asyncio.wait(self._calls)

    async def _call(self, hook: Hook, name: str, body: bytes) -> None:
        async with self._locks.setdefault(hook, asyncio.Lock()):
            target = hook.command[0] if hook.command else urlsplit(hook.url).netloc.split("@")[-1]
            try:
                if hook.command:
                    await self._run(hook, body)
                else:
                    await _post(hook, body)
            except HookError as error:
                details = {"last_lines": error.last_lines} if error.last_lines else {}
                log.warning(
                    Event.HOOK_FAILED, hook=name, target=target, error=str(error), **details
                )
            except Exception as error:  # no failure of a hook may harm the daemon
                log.warning(Event.HOOK_FAILED, hook=name, target=target, error=repr(error))
            else:
                log.debug(Event.HOOK_DONE, hook=name, target=target)

    async def _run(self, hook: Hook, body: bytes) -> None:
        """Runs a program with the event on stdin. Raises `HookError` unless it exits with 0."""
        with _Output() as output, _file_of(body) as event:
            try:
                process = await asyncio.create_subprocess_exec(
                    *hook.command,
                    stdin=event,
                    stdout=output.writing,
                    stderr=output.writing,
                    cwd=self._folder,
                    env=self._environ,
                    start_new_session=True,
                )
            except OSError as error:
                raise HookError(f"cannot start: {error.strerror}") from None
            try:
                async with asyncio.timeout(hook.timeout):
                    status = await process.wait()
            except TimeoutError:
                raise HookError(f"took longer than {hook.timeout:g} s") from None
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # with its children
            if status:
                raise HookError(f"exited with status {status}", output.last_lines())


def _file_of(body: bytes) -> IO[bytes]:
    """A memory file that begins with `body`: the program need not read it."""
    file = os.fdopen(os.memfd_create("servd-event"), "w+b", 0)
    file.write(body + b"\n")
    file.seek(0)
    return file


class _Output:
    """A program's last output. asyncio's own pipes would wait for all its children."""

    def __init__(self) -> None:
        self._reading, self.writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(self.writing, True)
        self._kept = b""
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> _Output:
        self._loop.add_reader(self._reading, self._read)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._reading)
        os.close(self._reading)
        os.close(self.writing)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._kept = (self._kept + os.read(self._reading, 65536))[-_KEPT_BYTES:]

    def last_lines(self) -> list[str]:
        """Returns the last ten lines."""
        self._read()
        return self._kept.decode(errors="replace").splitlines()[-10:]


async def _post(hook: Hook, body: bytes) -> None:
    """Posts the event; a status below 300 is success. Raises `HookError`.

    The first call imports httpx, in a thread.
    """
    httpx = await asyncio.to_thread(importlib.import_module, "httpx")
    try:
        async with asyncio.timeout(hook.timeout), httpx.AsyncClient(timeout=None) as client:
            headers = {"content-type": "application/json", "user-agent": "servd"}
            answer = await client.post(hook.url, content=body, headers=headers)
    except TimeoutError:
        raise HookError(f"took longer than {hook.timeout:g} s") from None
    except httpx.HTTPError as error:
        raise HookError(f"request failed: {error}") from None
    if answer.status_code >= 300:
        raise HookError(f"responded with {answer.status_code}")
