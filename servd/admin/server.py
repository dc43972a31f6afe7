"""The admin API's address, and the one of `/metrics` alone: their sockets and servers, in the
daemon's own loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from servd.admin.guard import guard_for
from servd.admin.metrics import Metrics
from servd.admin.plain import answer_plainly
from servd.config.model import AdminConfig
from servd.core import bind
from servd.core.address import Address
from servd.core.errors import StartError
from servd.core.exhaustion import exhaustion_reason, is_exhaustion
from servd.core.handed_socket import HandedSocket
from servd.core.paths import admin_address
from servd.daemon.reload.settings import SettingsChange
from servd.host.identity import group_id
from servd.plan.model import SocketPlan

if TYPE_CHECKING:
    from servd.admin.uvicorn_server import AdminUvicorn
    from servd.daemon.admin_protocol import DaemonView

_BACKLOG = 128


@dataclass(frozen=True, slots=True)
class EndpointConfig:
    """Where something listens, and the group that may use it; `key` is what the config calls it."""

    key: str
    address: Address
    group: str


class Endpoint:
    """The sockets of one address with the server behind them; `app` may be replaced at any time.
    Those that were `handed` over are used where they are of this address: they are `shared` with
    the daemon that had them before. Raises `StartError`.
    """

    def __init__(
        self, place: EndpointConfig, app: Any, handed: Sequence[HandedSocket] = ()
    ) -> None:
        self.place = place
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
            if place.address.kind == "unix":
                sock, self.inode = bind.bind_unix(_plan(place))
                self.socks = [sock]
            else:
                self.socks = _bind_tcp(place.address)
        except OSError as error:
            why = bind.reason(error)
            raise StartError(f"{place.key}: cannot listen on {place.address}: {why}") from None

    @property
    def key(self) -> str:
        """What another daemon knows it by."""
        return f"{self.place.key} {self.place.address}"

    @property
    def handed(self) -> list[HandedSocket]:
        """Its sockets, for another daemon."""
        path = self.place.address.path
        return [HandedSocket(self.key, sock.fileno(), path, self.inode) for sock in self.socks]

    def serve(self) -> None:
        """Answers from now on; who connected before has waited."""
        from servd.admin.uvicorn_server import AdminUvicorn

        self._server = AdminUvicorn(self._answer)
        serving = self._server.serve(sockets=self.socks)
        self._serving = asyncio.get_running_loop().create_task(serving)

    def hurry(self) -> None:
        """Waits no longer for those who do not read what they asked for."""
        if self._server is not None:
            self._server.end()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """What the app answers; where it has not what it takes, that is said in its place."""
        begun = False

        async def sending(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self.app(scope, receive, sending)
        except (OSError, RuntimeError) as error:
            if begun or not is_exhaustion(error):
                raise
            why = f"servd cannot answer now: {exhaustion_reason(error)}\n"
            await answer_plainly(send, 503, "text/plain; charset=utf-8", why.encode())

    async def close(self, patience: float | None = 5.0) -> None:
        """Answers what has been asked, within `patience` seconds, then goes."""
        if self._server is not None and self._serving is not None:
            self._server.end(patience)
            await asyncio.wait({self._serving})
        for sock in self.socks:
            sock.close()
        if self.shared:
            return
        with contextlib.suppress(OSError):
            if self.inode is not None and bind.inode(self.place.address.path) == self.inode:
                os.unlink(self.place.address.path)


class AdminListener:
    """One application at the address that the config gives it: none, or one, which a reload can
    move. `app` makes it for an address.
    """

    def __init__(
        self,
        app: Callable[[AdminConfig, Address], Any],
        place: Callable[[AdminConfig], EndpointConfig | None],
    ) -> None:
        self.app = app
        self.place = place
        self._endpoint: Endpoint | None = None
        self._closing: dict[asyncio.Task[None], Endpoint] = {}

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket]) -> None:
        """Takes the address. Raises `StartError`."""
        place = self.place(config)
        if place is not None:
            self._endpoint = Endpoint(place, self.app(config, place.address), handed)

    @property
    def handed(self) -> list[HandedSocket]:
        """What another daemon may have."""
        return self._endpoint.handed if self._endpoint is not None else []

    def hand_over(self, keys: Collection[str]) -> None:
        """Another daemon has those of its sockets; without any, none has."""
        if self._endpoint is not None:
            self._endpoint.shared = self._endpoint.key in keys

    def own(self) -> None:
        """What was handed over is nobody else's any more, and open to whom the config says."""
        if self._endpoint is None or not self._endpoint.shared:
            return
        self._endpoint.shared = False
        if self._endpoint.place.address.kind == "unix":
            with contextlib.suppress(StartError):
                _open_to(self._endpoint.place)

    def start(self) -> None:
        """Answers from now on."""
        if self._endpoint is not None:
            self._endpoint.serve()

    def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares the move to another address. Raises `StartError`."""
        old, new = self.place(before), self.place(after)
        change = SettingsChange()
        if old is not None and new is not None and old.address == new.address:
            endpoint, app = self._endpoint, self.app(after, new.address)

            async def replace() -> None:
                assert endpoint is not None
                endpoint.app = app

            change.commits.append(replace)
            if new.address.kind != "unix" or old.group == new.group:
                return change
            _open_to(new)

            async def as_before() -> None:
                _open_to(old)

            change.undoes.append(as_before)
            return change
        if old is None and new is None:
            return change
        fresh = self._endpoint_at(new, after) if new is not None else None

        async def move() -> None:
            leaving, self._endpoint = self._endpoint, fresh
            self.start()
            if leaving is not None:  # not waited for: this reload may have been asked for there
                closing = asyncio.get_running_loop().create_task(leaving.close(None))
                self._closing[closing] = leaving
                closing.add_done_callback(lambda task: self._closing.pop(task, None))

        change.commits.append(move)
        if fresh is not None:
            change.undoes.append(fresh.close)
        return change

    def _endpoint_at(self, place: EndpointConfig, config: AdminConfig) -> Endpoint:
        """Another endpoint beside the one that there is. Raises `StartError`."""
        app = self.app(config, place.address)
        try:
            return Endpoint(place, app)
        except StartError as error:
            here = self._endpoint.place.address if self._endpoint is not None else None
            if here is None or here.kind != "tcp" or here.port != place.address.port:
                raise
            hint = "servd itself has that port: use another one, or restart servd"
            raise StartError(f"{error} ({hint})") from None

    async def stop(self) -> None:
        """Answers what has been asked, and nothing more."""
        if self._endpoint is not None:
            await self._endpoint.close()
        for endpoint in self._closing.values():
            endpoint.hurry()
        if self._closing:
            await asyncio.wait(self._closing, timeout=5.0)


class AdminServer:
    """The admin API of a daemon, and its metrics."""

    def __init__(self, runtime_dir: str) -> None:
        self._runtime_dir = runtime_dir
        self._daemon: asyncio.Future[DaemonView] = asyncio.get_running_loop().create_future()
        self._metrics = Metrics(self._daemon)
        self._app: Any = None
        self._outlets = [
            AdminListener(self._api, self._api_place),
            AdminListener(lambda config, address: self._metrics, _metrics_place),
        ]

    def _api_place(self, config: AdminConfig) -> EndpointConfig | None:
        if not config.enabled:
            return None
        return EndpointConfig(
            "admin", admin_address(config.listen, self._runtime_dir), config.group
        )

    def _api(self, config: AdminConfig, address: Address) -> Any:
        """The API as it may be called at an address. Raises `StartError`."""
        return guard_for(self._answer, config, address)

    def open(self, config: AdminConfig, handed: Sequence[HandedSocket] = ()) -> None:
        """Takes the sockets, before anything else is started. Raises `StartError`."""
        for outlet in self._outlets:
            outlet.open(config, handed)
        used = {item.key for item in self.handed()}
        for item in handed:
            if item.key not in used:
                os.close(item.fd)  # its address is not ours any more

    def handed(self) -> list[HandedSocket]:
        """The sockets, for a daemon that takes the place of this one."""
        return [item for outlet in self._outlets for item in outlet.handed]

    def hand_over(self, keys: Collection[str]) -> None:
        """That daemon has those with these keys."""
        for outlet in self._outlets:
            outlet.hand_over(keys)

    def own(self) -> None:
        """The daemon that the sockets are of has left them to this one."""
        for outlet in self._outlets:
            outlet.own()

    async def start(self, daemon: DaemonView) -> None:
        """Answers from now on, about `daemon`."""
        self._daemon.set_result(daemon)
        for outlet in self._outlets:
            outlet.start()

    async def _answer(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application. FastAPI is imported by the first request, and in a thread: it takes
        as long as a worker's start, and a daemon that starts has workers to look after.
        """
        if self._app is None:
            module = await asyncio.to_thread(importlib.import_module, "servd.admin.app")
            self._app = self._app or module.build(await self._daemon, self._metrics)
        await self._app(scope, receive, send)

    async def change(self, before: AdminConfig, after: AdminConfig) -> SettingsChange:
        """Prepares the move to other addresses. Raises `StartError`."""
        whole = SettingsChange()
        for outlet in self._outlets:
            try:
                part = outlet.change(before, after)
            except StartError:
                await whole.undo()
                raise
            whole.commits += part.commits
            whole.undoes += part.undoes
        return whole

    async def stop(self) -> None:
        """Answers what has been asked, and nothing more."""
        for outlet in self._outlets:
            await outlet.stop()


def _metrics_place(config: AdminConfig) -> EndpointConfig | None:
    if config.metrics is None:
        return None
    return EndpointConfig("admin.metrics", config.metrics, config.group)


def _open_to(place: EndpointConfig) -> None:
    """Gives the socket's file the mode and group of `place`. Raises `StartError`."""
    try:
        bind.set_owner(place.address.path, _plan(place))
    except OSError as error:
        raise StartError(f"{place.key}: {place.address}: {error.strerror}") from None


def _plan(place: EndpointConfig) -> SocketPlan:
    """A unix socket as `place` has it. Raises `StartError`."""
    found = group_id(place.group) if place.group else None
    if place.group and found is None:
        raise StartError(f'there is no group "{place.group}"')
    mode = 0o660 if place.group else 0o600
    return SocketPlan(place.address, place.key, _BACKLOG, mode=mode, group=found)


def _bind_tcp(address: Address) -> list[socket.socket]:
    """A listening socket for each interface that the address stands for. Raises OSError."""
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
