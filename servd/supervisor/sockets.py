"""Listening sockets: bound here, shared with workers, keyed by address and not by service.

Circus's own are not used: they lack TCP_NODELAY, IPV6_V6ONLY and the modes of unix sockets, and a
watcher that uses any of them hands all of them to its processes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import socket
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from servd.config.address import EVERY_V4, Address
from servd.errors import StartError
from servd.plan.model import SocketPlan, url_of

_PORT_TRIES = 20


@dataclass(slots=True)
class Listener:
    """The sockets of one address: a name or `:PORT` can stand for several."""

    plan: SocketPlan
    sockets: list[socket.socket]
    inode: tuple[int, int] | None = None
    users: int = 0

    @property
    def port(self) -> int:
        """The port that was bound, also where 0 was asked for; 0 for a unix socket."""
        name = self.sockets[0].getsockname()
        return int(name[1]) if isinstance(name, tuple) else 0

    @property
    def url(self) -> str:
        """Where people reach it: with the port that was bound, where any was asked for."""
        address = self.plan.address
        if address.kind == "tcp":
            address = replace(address, port=self.port)
        return url_of(address, tls=self.plan.tls)

    def close(self) -> None:
        """Closes the sockets and removes a unix socket's file, if it is still the same one."""
        for sock in self.sockets:
            sock.close()
        if self.inode is not None:
            with contextlib.suppress(OSError):
                if _inode(self.plan.address.path) == self.inode:
                    os.unlink(self.plan.address.path)


class SocketPool:
    """All listening sockets of the daemon, by address and counted by use, so that what two
    generations (or two configurations) both want is bound once.
    """

    def __init__(self, inherited: Mapping[str, Sequence[int]] | None = None) -> None:
        self.listeners: dict[str, Listener] = {}
        self.inherited = {name: list(fds) for name, fds in (inherited or {}).items()}

    def acquire(self, plan: SocketPlan) -> Listener:
        """The listener of `plan`, bound now if nobody has it yet.

        Raises `StartError`, which says what is in the way.
        """
        listener = self.listeners.get(plan.key)
        if listener is None:
            listener = self.listeners[plan.key] = self._open(plan)
        listener.users += 1
        return listener

    def release(self, listener: Listener) -> None:
        """Gives a listener back; the last one to do so closes it."""
        listener.users -= 1
        if listener.users == 0:
            listener.close()
            del self.listeners[listener.plan.key]

    def close(self) -> None:
        """Closes everything that is still open."""
        for listener in self.listeners.values():
            listener.close()
        self.listeners.clear()

    def _open(self, plan: SocketPlan) -> Listener:
        try:
            if plan.address.kind == "unix":
                sock, inode = _bind_unix(plan)
                return Listener(plan, [sock], inode)
            if plan.address.kind == "fd":
                return Listener(plan, self._adopt(plan))
            return Listener(plan, _bind_tcp(plan.address, plan.backlog))
        except OSError as error:
            raise StartError(f"cannot listen on {plan.address}: {_reason(error)}") from None

    def _adopt(self, plan: SocketPlan) -> list[socket.socket]:
        """Sockets that were handed to the daemon (sd_listen_fds(3))."""
        descriptors = self.inherited.get(plan.address.name)
        if not descriptors:
            given = ", ".join(sorted(self.inherited)) or "none"
            raise StartError(
                f"no socket named {plan.address.name} was handed over (LISTEN_FDNAMES has: {given})"
            )
        sockets = [socket.socket(fileno=os.dup(fd)) for fd in descriptors]
        for sock in sockets:
            _prepare(sock)
            sock.listen(plan.backlog)
        return sockets


def _reason(error: OSError) -> str:
    reasons = {
        errno.EADDRINUSE: "the address is in use by another process",
        errno.EACCES: "permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    }
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return reasons.get(error.errno or 0, error.strerror or str(error))


def _prepare(sock: socket.socket) -> None:
    """What every listener of ours has.

    TCP_NODELAY is inherited by accepted sockets on Linux; asyncio sets it only where it recognises
    TCP. Without it answers stall for the 40 ms of a delayed acknowledgement.
    """
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def _bind_tcp(address: Address, backlog: int) -> list[socket.socket]:
    """Listening sockets for every numeric address that `address` stands for.

    `:PORT` is both families, IPv4 alone where IPv6 is off. Port 0 is one free port for all.
    """
    for attempt in range(_PORT_TRIES):
        try:
            return _bind_all(address, backlog)
        except OSError as error:
            # with port 0, the port that was free for one family may be taken for the other
            last = attempt == _PORT_TRIES - 1
            if address.port != 0 or error.errno != errno.EADDRINUSE or last:
                raise
    raise AssertionError("unreachable")


def _bind_all(address: Address, backlog: int) -> list[socket.socket]:
    port = address.port
    bound: list[socket.socket] = []
    missing: OSError | None = None
    try:
        for family, host in _hosts(address):
            try:
                sock = _bound(family, host, port)
            except OSError as error:
                if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
                    raise
                missing = error
                continue
            bound.append(sock)
            port = sock.getsockname()[1]
        if not bound:
            raise missing or OSError(errno.EADDRNOTAVAIL, "no address")
        for sock in bound:
            sock.listen(backlog)
    except OSError:
        for sock in bound:
            sock.close()
        raise
    return bound


def _bound(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        _prepare(sock)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def _hosts(address: Address) -> list[tuple[int, str]]:
    """Family and numeric host of everything that an address stands for."""
    if not address.host:
        return [(socket.AF_INET, EVERY_V4), (socket.AF_INET6, "::")]
    found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    unique = dict.fromkeys((int(family), str(name[0])) for family, _, _, _, name in found)
    return sorted(unique)


def _bind_unix(plan: SocketPlan) -> tuple[socket.socket, tuple[int, int]]:
    """A unix socket, bound beside its path and renamed over it once its mode is right.

    So nobody ever meets it with the wrong permissions, and a stale file of a dead process gives
    way. One that answers is somebody's: EADDRINUSE.
    """
    path = plan.address.path
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "in use")
    beside = f"{os.path.dirname(path)}/.{secrets.token_hex(4)}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(beside)
        try:
            os.chmod(beside, plan.mode)
            if plan.owner is not None or plan.group is not None:
                owner = plan.owner if plan.owner is not None else -1
                os.chown(beside, owner, plan.group if plan.group is not None else -1)
            sock.listen(plan.backlog)
            os.rename(beside, path)
        except OSError:
            os.unlink(beside)
            raise
    except OSError:
        sock.close()
        raise
    _prepare(sock)
    return sock, _inode(path)


def _answers(path: str) -> bool:
    """Whether a process listens on the unix socket at `path`.

    Raises OSError when something stands there that is no socket: it is not ours to remove.
    """
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "a file that is no socket stands there")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True
    return True


def _inode(path: str) -> tuple[int, int]:
    found = os.stat(path)
    return found.st_dev, found.st_ino
