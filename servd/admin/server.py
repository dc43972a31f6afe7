"""The admin API's socket and its server, in the daemon's own loop."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
from typing import TYPE_CHECKING, Any

from servd.config.address import Address
from servd.config.model import AdminConfig
from servd.daemon.runtime_dir import admin_address
from servd.daemon.settings import SettingsChange
from servd.errors import StartError
from servd.host import group_id
from servd.plan.model import SocketPlan
from servd.supervisor import bind

if TYPE_CHECKING:
    from servd.admin.uvicorn_server import AdminUvicorn
    from servd.daemon.daemon import Daemon

_BACKLOG = 128


class Endpoint:
    """One unix socket with the server behind it."""

    def __init__(self, address: Address, group: str) -> None:
        self.address = address
        self.sock, self.inode = _bind(self.address, group)
        self._server: AdminUvicorn | None = None
        self._serving: asyncio.Task[None] | None = None

    def serve(self, app: Any) -> None:
        """Answers from now on; who connected before has waited."""
        from servd.admin.uvicorn_server import AdminUvicorn

        self._server = AdminUvicorn(app)
        serving = self._server.serve(sockets=[self.sock])
        self._serving = asyncio.get_running_loop().create_task(serving)

    async def close(self) -> None:
        """Answers what has been asked, then goes."""
        if self._server is not None and self._serving is not None:
            self._server.end()
            await asyncio.wait({self._serving})
        self.sock.close()
        with contextlib.suppress(OSError):
            if bind.inode(self.address.path) == self.inode:
                os.unlink(self.address.path)


class AdminServer:
    """The admin API of a daemon: none, or one endpoint, which a reload can move."""

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._endpoint: Endpoint | None = None
        self._app: Any = None
        self._closing: set[asyncio.Task[None]] = set()

    def open(self, config: AdminConfig) -> None:
        """Takes the socket, before anything else is started. Raises `StartError`."""
        if config.enabled:
            address = admin_address(config, self.daemon.folder.path)
            self._endpoint = Endpoint(address, config.group)

    async def start(self) -> None:
        """Answers from now on."""
        if self._endpoint is not None:
            self._endpoint.serve(self._answer)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application. FastAPI is imported by the first request, and in a thread: it takes
        as long as a worker's start, and a daemon that starts has workers to look after.
        """
        if self._app is None:
            module = await asyncio.to_thread(importlib.import_module, "servd.admin.app")
            self._app = self._app or module.build(self.daemon)
        await self._app(scope, receive, send)

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares the move to another address. Raises `StartError`."""
        folder = self.daemon.folder.path
        old = admin_address(before, folder) if before.enabled else None
        new = admin_address(after, folder) if after.enabled else None
        change = SettingsChange()
        if old == new:
            if new is not None:
                _open_to(_plan(new, after.group))

                async def as_before() -> None:
                    _open_to(_plan(new, before.group))

                change.undoes.append(as_before)
            return change
        endpoint = Endpoint(new, after.group) if new is not None else None

        async def move() -> None:
            leaving, self._endpoint = self._endpoint, endpoint
            await self.start()
            if leaving is not None:  # not waited for: this reload may have been asked for there
                closing = asyncio.get_running_loop().create_task(leaving.close())
                self._closing.add(closing)
                closing.add_done_callback(self._closing.discard)

        change.commits.append(move)
        if endpoint is not None:
            change.undoes.append(endpoint.close)
        return change

    async def stop(self) -> None:
        """Answers what has been asked, and nothing more."""
        if self._endpoint is not None:
            await self._endpoint.close()
        if self._closing:
            await asyncio.wait(self._closing)


def _open_to(plan: SocketPlan) -> None:
    """Gives the socket's file the mode and group of `plan`. Raises `StartError`."""
    try:
        bind.set_owner(plan.address.path, plan)
    except OSError as error:
        raise StartError(f"admin: {plan.address}: {error.strerror}") from None


def _plan(address: Address, group: str) -> SocketPlan:
    if address.kind != "unix":
        raise StartError(f"the admin API cannot listen on {address} yet: use unix:PATH")
    found = group_id(group) if group else None
    if group and found is None:
        raise StartError(f'there is no group "{group}"')
    return SocketPlan(address, "admin", _BACKLOG, mode=0o660 if group else 0o600, group=found)


def _bind(address: Address, group: str) -> tuple[socket.socket, tuple[int, int]]:
    plan = _plan(address, group)
    try:
        return bind.bind_unix(plan)
    except OSError as error:
        raise StartError(f"admin: cannot listen on {address}: {bind.reason(error)}") from None
