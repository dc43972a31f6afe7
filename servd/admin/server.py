"""The addresses of the admin API and of `/metrics` alone: sockets and servers in one loop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import os
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import field
from typing import TYPE_CHECKING, Any

from servd.admin.guard import HostGuard, guard_for
from servd.admin.metrics import Metrics
from servd.admin.plain import answer_plainly
from servd.config.model import AdminConfig
from servd.core import bind
from servd.core.address import Address
from servd.core.errors import StartError
from servd.core.exhaustion import exhaustion_reason, is_exhaustion
from servd.core.handed_socket import HandedSocket
from servd.core.paths import admin_address
from servd.core.quick_dataclass import dataclass
from servd.daemon.reload.settings import SettingsChange
from servd.host.identity import group_id
from servd.plan.model import SocketPlan

if TYPE_CHECKING:
    from servd.admin.uvicorn_server import AdminUvicorn
    from servd.daemon.view import DaemonView

_BACKLOG = 128
_MOST_BODY_BYTES = 64 * 1024
_SHUTDOWN_SECONDS = 5.0
"""Time for requests in flight when the daemon stops."""


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """An address to listen on, and the group that may use it; `key` is its name in the config."""

    key: str
    address: Address
    group: str


class Endpoint:
    """The sockets of one address and their server; `app` may be replaced at any time. `handed`
    sockets of this address are reused, `shared` with the previous daemon. Raises `StartError`.
    """

    def __init__(
        self, config: EndpointConfig, app: Any, handed: Sequence[HandedSocket] = ()
    ) -> None:
        self.config = config
        self.app = app
        self.inode: tuple[int, int] | None = None
        self._server: AdminUvicorn | None = None
        self._serving: asyncio.Task[None] | None = None
        mine = [item for item in handed if item.key == self.key]
        self.shared = bool(mine)
        if mine:
            self.socks = [socket.socket(fileno=item.fd) for item in mine]
            self.inode = mine[0].inode
            return
        try:
            if config.address.kind == "unix":
                sock, self.inode = bind.bind_unix(_plan(config))
                self.socks = [sock]
            else:
                self.socks = _bind_tcp(config.address)
        except OSError as error:
            reason = bind.reason(error)
            raise StartError(f"{config.key}: cannot listen on {config.address}: {reason}") from None

    @property
    def key(self) -> str:
        """Its key among the sockets that daemons hand over."""
        return f"{self.config.key} {self.config.address}"

    @property
    def handed(self) -> list[HandedSocket]:
        """Its sockets, for another daemon."""
        path = self.config.address.path
        return [HandedSocket(self.key, sock.fileno(), path, self.inode) for sock in self.socks]

    def serve(self) -> None:
        """Starts answering, also to clients that have connected before."""
        from servd.admin.uvicorn_server import AdminUvicorn

        self._server = AdminUvicorn(self._answer)
        serving = self._server.serve(sockets=self.socks)
        self._serving = asyncio.get_running_loop().create_task(serving)

    def limit_close(self) -> None:
        """Limits a `close` in progress to `_SHUTDOWN_SECONDS`."""
        if self._server is not None:
            self._server.end(_SHUTDOWN_SECONDS)

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """Calls the app; answers 503 if it fails because a resource is exhausted."""
        begun = False
        if scope["type"] == "http":
            receive = _bounded(receive)

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except (OSError, RuntimeError) as error:
            if begun or not is_exhaustion(error):
                raise
            text = f"servd cannot respond now: {exhaustion_reason(error)}\n"
            await answer_plainly(send, 503, "text/plain; charset=utf-8", text.encode())

    async def close(self, seconds: float | None = _SHUTDOWN_SECONDS) -> None:
        """Answers requests in flight for at most `seconds`, then closes and unlinks the sockets."""
        if self._server is not None and self._serving is not None:
            self._server.end(seconds)
            await asyncio.wait({self._serving})
        for sock in self.socks:
            sock.close()
        if self.shared:
            return
        with contextlib.suppress(OSError):
            if self.inode is not None and not self.is_lost:
                os.unlink(self.config.address.path)

    @property
    def is_lost(self) -> bool:
        """Whether the file of a unix socket is gone, or another stands in its place."""
        if self.inode is None or self.shared:
            return False
        return not bind.leads_to(self.config.address.path, self.inode)


@dataclass(eq=False)
class AdminListener:
    """One application at its configured address, if any, which a reload can change. `app` makes the
    application for an address, and `endpoint_config` reads the address.
    """

    app: Callable[[AdminConfig, Address], Any]
    endpoint_config: Callable[[AdminConfig], EndpointConfig | None]
    _endpoint: Endpoint | None = None
    _closing: dict[asyncio.Task[None], Endpoint] = field(default_factory=dict)

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Binds the address, or takes its sockets from `handed`. Raises `StartError`."""
        mine = self.endpoint_config(config)
        if mine is not None:
            self._endpoint = Endpoint(mine, self.app(config, mine.address), handed)

    @property
    def handed(self) -> list[HandedSocket]:
        """Its sockets, for another daemon."""
        return self._endpoint.handed if self._endpoint is not None else []

    def hand_over(self, keys: Collection[str]) -> None:
        """Shares the socket with another daemon if its key is in `keys`."""
        if self._endpoint is not None:
            self._endpoint.shared = self._endpoint.key in keys

    def own(self) -> None:
        """Takes sole ownership of a shared socket, with the configured mode and group."""
        if self._endpoint is None or not self._endpoint.shared:
            return
        self._endpoint.shared = False
        if self._endpoint.config.address.kind == "unix":
            with contextlib.suppress(StartError):
                _set_owner(self._endpoint.config)

    def start(self) -> None:
        """Starts answering."""
        if self._endpoint is not None:
            self._endpoint.serve()

    def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares the move to another address. Raises `StartError`."""
        old, new = self.endpoint_config(before), self.endpoint_config(after)
        change = SettingsChange()
        if old is not None and new is not None and old.address == new.address:
            endpoint, app = self._endpoint, self.app(after, new.address)

            async def replace() -> None:
                assert endpoint is not None
                endpoint.app = app

            change.commits.append(replace)
            if new.address.kind != "unix" or old.group == new.group:
                return change
            _set_owner(new)

            async def restore() -> None:
                _set_owner(old)

            change.undoes.append(restore)
            return change
        if old is None and new is None:
            return change
        fresh = self._endpoint_at(new, after) if new is not None else None

        async def move() -> None:
            self._move_to(fresh)

        change.commits.append(move)
        if fresh is not None:
            change.undoes.append(fresh.close)
        return change

    def _move_to(self, fresh: Endpoint | None) -> None:
        """Answers there from now on, and what the old endpoint has accepted."""
        leaving, self._endpoint = self._endpoint, fresh
        self.start()
        if leaving is not None:  # in a task: the request for this reload may be in flight there
            closing = asyncio.get_running_loop().create_task(leaving.close(None))
            self._closing[closing] = leaving
            closing.add_done_callback(lambda task: self._closing.pop(task, None))

    def mend(self) -> list[str]:
        """Binds its unix socket again if its file was deleted; returns the path. Raises
        `StartError`.
        """
        here = self._endpoint
        if here is None or not here.is_lost:
            return []
        self._move_to(Endpoint(here.config, here.app))
        return [here.config.address.path]

    def _endpoint_at(self, new: EndpointConfig, config: AdminConfig) -> Endpoint:
        """Opens an endpoint in addition to the present one. Raises `StartError`."""
        app = self.app(config, new.address)
        try:
            return Endpoint(new, app)
        except StartError as error:
            here = self._endpoint.config.address if self._endpoint is not None else None
            if here is None or here.kind != "tcp" or here.port != new.address.port:
                raise
            hint = "servd itself already uses that port: choose another one, or restart servd"
            raise StartError(f"{error} ({hint})") from None

    async def stop(self) -> None:
        """Answers requests in flight, then closes."""
        if self._endpoint is not None:
            await self._endpoint.close()
        for endpoint in self._closing.values():
            endpoint.limit_close()
        if self._closing:
            await asyncio.wait(self._closing, timeout=_SHUTDOWN_SECONDS)


class AdminServer:
    """The admin API and metrics: binds its addresses when opened, answers from `start` on."""

    def __init__(self, runtime_dir: str) -> None:
        self.runtime_dir = runtime_dir
        self._metrics: Metrics | None = None
        self._app: Any = None
        self._listeners = [
            AdminListener(functools.partial(guard_for, self._answer_api), self._api_config),
            AdminListener(functools.partial(_metrics_guard, self._answer_metrics), _metrics_config),
        ]

    def _api_config(self, config: AdminConfig) -> EndpointConfig | None:
        if not config.enabled:
            return None
        return EndpointConfig("admin", admin_address(config.listen, self.runtime_dir), config.group)

    async def _answer_api(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request. The first imports FastAPI, in a thread: slow as a worker's start."""
        if self._app is None:
            metrics = self._started()
            module = await asyncio.to_thread(importlib.import_module, "servd.admin.app")
            self._app = self._app or module.build(metrics.daemon, metrics)
        await self._app(scope, receive, send)

    async def _answer_metrics(self, scope: Any, receive: Any, send: Any) -> None:
        probes = scope["path"] in ("/livez", "/readyz")
        await (self._answer_api if probes else self._started())(scope, receive, send)

    def _started(self) -> Metrics:
        if self._metrics is None:
            raise RuntimeError("the admin API was not started")
        return self._metrics

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket] = ()) -> None:
        """Binds the addresses, or takes their sockets from `handed`. Raises `StartError`."""
        for listener in self._listeners:
            listener.open(config, handed)
        used = {item.key for item in self.handed()}
        for item in handed:
            if item.key not in used:
                os.close(item.fd)  # its address is no longer configured

    def handed(self) -> list[HandedSocket]:
        """Returns the sockets, for a new daemon."""
        return [item for listener in self._listeners for item in listener.handed]

    def hand_over(self, keys: Collection[str]) -> None:
        """Shares the sockets with these keys with a new daemon."""
        for listener in self._listeners:
            listener.hand_over(keys)

    def own(self) -> None:
        """Takes sole ownership of the sockets that the previous daemon has left."""
        for listener in self._listeners:
            listener.own()

    async def start(self, daemon: DaemonView) -> None:
        """Starts answering for `daemon`."""
        self._metrics = Metrics(daemon)
        for listener in self._listeners:
            listener.start()

    def mend(self) -> list[str]:
        """Binds the unix sockets again whose files were deleted; returns their paths. Raises
        `StartError`.
        """
        return [path for listener in self._listeners for path in listener.mend()]

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares the move to other addresses. Raises `StartError`."""
        whole = SettingsChange()
        for listener in self._listeners:
            try:
                part = listener.change(before, after)
            except StartError:
                await whole.undo()
                raise
            whole.commits += part.commits
            whole.undoes += part.undoes
        return whole

    async def stop(self) -> None:
        """Answers requests in flight, then closes the sockets."""
        for listener in self._listeners:
            await listener.stop()


def _metrics_guard(app: Any, _: AdminConfig, address: Address) -> Any:
    return app if address.kind == "unix" else HostGuard(app, address)


def _bounded(receive: Any) -> Any:
    """Returns a `receive` that ends a body which is larger than any request of the API."""
    total = 0

    async def bounded() -> Any:
        nonlocal total
        message = await receive()
        total += len(message.get("body", b""))
        return message if total <= _MOST_BODY_BYTES else {"type": "http.disconnect"}

    return bounded


def _metrics_config(config: AdminConfig) -> EndpointConfig | None:
    if config.metrics is None:
        return None
    return EndpointConfig("admin.metrics", config.metrics, config.group)


def _set_owner(config: EndpointConfig) -> None:
    """Gives the socket's file the configured mode and group. Raises `StartError`."""
    try:
        bind.set_owner(config.address.path, _plan(config))
    except OSError as error:
        raise StartError(f"{config.key}: {config.address}: {error.strerror}") from None


def _plan(config: EndpointConfig) -> SocketPlan:
    """Returns the plan of a unix socket. Raises `StartError`."""
    found = group_id(config.group) if config.group else None
    if config.group and found is None:
        raise StartError(f'unknown group "{config.group}"')
    mode = 0o660 if config.group else 0o600
    return SocketPlan(config.address, config.key, _BACKLOG, mode=mode, group=found)


def _bind_tcp(address: Address) -> list[socket.socket]:
    """Returns a listening socket for each interface of the address. Raises OSError."""
    found: list[socket.socket] = []
    try:
        for family, host in bind.hosts(address):
            found.append(bind.bind_tcp(family, host, address.port))
            found[-1].listen(_BACKLOG)
    except OSError:
        for sock in found:
            sock.close()
        raise
    return found
