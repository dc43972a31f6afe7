"""Listening sockets: bound here, shared with workers, owned by addresses and not by services.

Circus's own are not used: they lack TCP_NODELAY, IPV6_V6ONLY and the modes of unix sockets, and a
watcher that uses one passes all of them to its processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import os
import socket
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from servd.core import bind
from servd.core.address import EVERY_V4, EVERY_V6
from servd.core.errors import StartError
from servd.core.handed_socket import HandedSocket
from servd.plan.model import SocketPlan, url_of

_PORT_TRY_COUNT = 20
HANDSHAKE_SECONDS = 0.3
"""Time for a connection from another machine to get from its SYN into the accept queue."""

EMPTYING_SECONDS = 2.0
"""Time for workers to accept connections that wait at a released address."""


@dataclass(slots=True, eq=False)
class Bound:
    """One listening socket, counted by the listeners that use it.

    `path` and `inode`: the file of a unix socket. `inherited`: it belongs to the process that
    started the daemon. `shared`: the previous or the new daemon also holds it, and it stays open
    there. `internal`: it is between services only.
    """

    key: str
    sock: socket.socket
    path: str = ""
    inode: tuple[int, int] | None = None
    inherited: bool = False
    shared: bool = False
    internal: bool = False
    users: int = 0

    @classmethod
    def inherit(cls, handed: HandedSocket) -> Bound:
        """A socket of the previous daemon, shared with it."""
        sock = socket.socket(fileno=handed.fd)
        return cls(handed.key, sock, handed.path, handed.inode, shared=True)

    def handed(self) -> HandedSocket:
        """The same socket, for the new daemon."""
        return HandedSocket(self.key, self.sock.fileno(), self.path, self.inode)

    @property
    def host(self) -> str:
        """The numeric host of a TCP socket."""
        return str(self.sock.getsockname()[0])

    @property
    def port(self) -> int:
        """The port of a TCP socket; 0 for others."""
        name = self.sock.getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def is_lost(self) -> bool:
        """Whether the file of a unix socket is gone, or another stands in its place."""
        return (
            self.inode is not None and not self.shared and not bind.leads_to(self.path, self.inode)
        )

    def covers(self, family: int, host: str, port: int) -> bool:
        """Whether this and such a TCP socket can be bound together only by sharing the port."""
        if self.path or self.inherited or self.sock.family != family or self.port != port:
            return False
        return host == self.host or bool({EVERY_V4, EVERY_V6} & {host, self.host})

    async def empty(self) -> None:
        """Refuses new connections and waits until the workers have accepted all that wait."""
        self._unlink()
        bind.refuse_new(self.sock)
        if not self.path and not ipaddress.ip_address(self.host).is_loopback:
            await asyncio.sleep(HANDSHAKE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(EMPTYING_SECONDS):
                while bind.has_waiting(self.sock):  # noqa: ASYNC110
                    await asyncio.sleep(0.001)  # no event tells that a queue is empty

    def close(self) -> None:
        """Closes the socket and removes a unix socket's file, if the file is still the same."""
        self.sock.close()
        if not self.shared:
            self._unlink()

    def _unlink(self) -> None:
        if self.inode is not None:
            with contextlib.suppress(OSError):
                if bind.leads_to(self.path, self.inode):
                    os.unlink(self.path)


@dataclass(slots=True)
class Listener:
    """The sockets of one address: a name or `:PORT` can be several."""

    plan: SocketPlan
    bound: list[Bound] = field(default_factory=list)

    @property
    def sockets(self) -> list[socket.socket]:
        """The sockets themselves."""
        return [item.sock for item in self.bound]

    @property
    def port(self) -> int:
        """The bound port, also if port 0 was requested; 0 for a unix socket."""
        return self.bound[0].port

    @property
    def url(self) -> str:
        """The URL for people, with the port that was bound."""
        address = self.plan.address
        if address.kind == "tcp":
            address = replace(address, port=self.port)
        return url_of(address, tls=self.plan.tls)

    def apply_options(self) -> None:
        """Gives sockets bound before the plan's backlog (listen(2) changes it), and a unix
        socket's file its mode and owner. Raises OSError.
        """
        for item in self.bound:
            if item.shared:
                continue  # until this daemon holds it alone
            item.sock.listen(self.plan.backlog)
            if item.inode is not None:
                with contextlib.suppress(FileNotFoundError):  # it was removed
                    bind.set_owner(item.path, self.plan)


def tcp_key(host: str, port: int) -> str:
    """The pool's key of a TCP socket."""
    return f"{host}|{port}"


def unix_key(path: str) -> str:
    """The pool's key of a unix socket."""
    return f"unix:{os.path.abspath(path)}"


class SocketPool:
    """All listening sockets of the daemon by numeric address, counted by use: a socket that two
    generations want, or two services that swap addresses, is bound once. `chosen` holds the ports
    that the system chose, by the keys of their plans.
    """

    def __init__(self, inherited: Mapping[str, Sequence[int]] | None = None) -> None:
        self.bound: dict[str, Bound] = {}
        self.inherited = {name: list(fds) for name, fds in (inherited or {}).items()}
        self.chosen: dict[str, int] = {}
        self._detached: list[Bound] = []
        self._lost: dict[str, Bound] = {}
        self._preloaded: dict[str, Bound] = {}

    def acquire(self, plan: SocketPlan) -> Listener:
        """A listener for `plan`; binds missing sockets. Raises `StartError` with the reason."""
        listener = Listener(plan)
        try:
            if plan.address.kind == "tcp":
                self._acquire_tcp(listener)
            elif plan.address.kind == "unix":
                self._acquire_unix(listener)
            else:
                self._acquire_inherited(listener)
            for item in listener.bound:
                item.internal = plan.internal
                if item.users == 1 and not item.shared:  # others get their options later
                    item.sock.listen(plan.backlog)
        except OSError as error:
            self.release(listener)
            raise StartError(f"cannot listen on {plan.address}: {bind.reason(error)}") from None
        except StartError:
            self.release(listener)
            raise
        return listener

    def preload(self, items: Iterable[Bound], chosen: Mapping[str, int]) -> None:
        """Takes over the sockets of the previous daemon, for plans that want them."""
        self._preloaded = {item.key: item for item in items}
        self.chosen = dict(chosen)

    def claim_all(self) -> None:
        """Ends the sharing with the previous daemon; closes its sockets that no plan wanted."""
        self.reclaim()
        for item in self._preloaded.values():
            item.sock.close()
        self._preloaded.clear()

    def reclaim(self) -> None:
        """Ends the sharing with another daemon."""
        for item in self.bound.values():
            item.shared = False
        self._keep_ports()

    def _keep_ports(self) -> None:
        """Stops other processes from sharing our ports."""
        for item in self.bound.values():
            if item.port:
                bind.share_port(item.sock, shared=False)

    def hand_over(self, keys: Collection[str]) -> None:
        """Shares the sockets of `keys` with the new daemon."""
        for key in self.bound.keys() & set(keys):
            self.bound[key].shared = True

    def detach(self, listeners: Sequence[Listener]) -> list[Bound]:
        """Sockets used only by `listeners`. They leave the pool: a later `acquire` of the address
        binds a new one. Inherited and shared sockets stay, as others use them too.
        """
        uses = Counter(item for listener in listeners for item in listener.bound)
        going = [
            item
            for item, count in uses.items()
            if item.users == count and not (item.inherited or item.shared)
        ]
        for item in going:
            for known in (self.bound, self._lost):
                if known.get(item.key) is item:
                    del known[item.key]
                    self._detached.append(item)
        return going

    def release(self, listener: Listener) -> None:
        """Gives a listener back; sockets without other users are closed."""
        while listener.bound:
            item = listener.bound.pop()
            item.users -= 1
            if item.users == 0:
                item.close()
                self._forget(item)
                self.chosen.pop(listener.plan.key, None)
        self._keep_ports()

    def _forget(self, item: Bound) -> None:
        if item in self._detached:
            self._detached.remove(item)
        elif self._lost.get(item.key) is item:
            del self._lost[item.key]
        else:
            del self.bound[item.key]
            if before := self._lost.pop(item.key, None):  # what should have replaced it failed
                self.bound[item.key] = before

    def close(self) -> None:
        """Closes everything that is open."""
        for item in self._all:
            item.close()
        self.bound.clear()
        self._detached.clear()
        self._lost.clear()
        self._preloaded.clear()

    @property
    def _all(self) -> list[Bound]:
        known = (self.bound, self._lost, self._preloaded)
        return [*self._detached, *(item for items in known for item in items.values())]

    def _known(self, key: str) -> Bound | None:
        return self.bound.get(key) or self._preloaded.pop(key, None)

    def _use(self, listener: Listener, item: Bound) -> None:
        self.bound[item.key] = item
        item.users += 1
        listener.bound.append(item)

    def _acquire_unix(self, listener: Listener) -> None:
        path = listener.plan.address.path
        item = self._known(unix_key(path))
        if item is not None and item.is_lost:
            self._lost[item.key] = item  # its workers drain; a new one takes its place
            item = None
        if item is None:
            sock, inode = bind.bind_unix(listener.plan)
            item = Bound(unix_key(path), sock, path, inode)
        self._use(listener, item)

    def _acquire_tcp(self, listener: Listener) -> None:
        """Sockets for every numeric address. `:PORT` is both families, or IPv4 alone where IPv6 is
        off; port 0 is one free port for all, kept while it is in use.
        """
        plan = listener.plan
        port = plan.address.port or self.chosen.get(plan.key, 0)
        for attempt in range(_PORT_TRY_COUNT):
            try:
                self._acquire_all(listener, port)
                break
            except OSError as error:
                # with port 0, the port that was free for one family may be taken for the other
                self.release(listener)
                if port != 0 or error.errno != errno.EADDRINUSE or attempt == _PORT_TRY_COUNT - 1:
                    raise
        if plan.address.port == 0:
            self.chosen[plan.key] = listener.port

    def _acquire_all(self, listener: Listener, port: int) -> None:
        missing: OSError | None = None
        for family, host in bind.hosts(listener.plan.address):
            item = self._known(tcp_key(host, port)) if port else None
            try:
                item = item or self._bind(family, host, port)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = error
                continue
            self._use(listener, item)
            port = item.port
        if not listener.bound:
            raise missing or OSError(errno.EADDRNOTAVAIL, "no usable address")

    def _bind(self, family: int, host: str, port: int) -> Bound:
        try:
            sock = bind.bind_tcp(family, host, port)
        except OSError as error:
            ours = [item for item in self._all if item.covers(family, host, port)]
            if error.errno != errno.EADDRINUSE or not ours:
                raise
            for item in ours:
                bind.share_port(item.sock, shared=True)
            sock = bind.bind_tcp(family, host, port, share=True)
        return Bound(tcp_key(host, sock.getsockname()[1]), sock)

    def _acquire_inherited(self, listener: Listener) -> None:
        """Sockets that were handed to the daemon (sd_listen_fds(3))."""
        name = listener.plan.address.name
        descriptors = self.inherited.get(name)
        if not descriptors:
            given = ", ".join(sorted(self.inherited)) or "none"
            raise StartError(f"no inherited socket is named {name} (LISTEN_FDNAMES: {given})")
        for index, descriptor in enumerate(descriptors):
            key = f"fd:{name}#{index}"
            item = self.bound.get(key)
            if item is None:
                sock = socket.socket(fileno=os.dup(descriptor))
                bind.prepare(sock)
                item = Bound(key, sock, inherited=True)
            self._use(listener, item)
