"""Binding one listening socket: TCP with what every listener of ours has, unix with its modes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import secrets
import select
import socket
import stat
import struct
import sys
from typing import Protocol

from servd.core.address import EVERY_V4, Address

_SO_ATTACH_FILTER = 26
_WITHOUT_SYN = (  # classic BPF over the TCP header: drop SYN without ACK, let all else through
    (0x30, 0, 0, 13),  # A = flags
    (0x54, 0, 0, 0x12),  # A &= SYN | ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


class UnixSocketOptions(Protocol):
    """What a unix socket is bound with. `owner` and `group` are ids; None leaves them alone."""

    @property
    def address(self) -> Address: ...
    @property
    def backlog(self) -> int: ...
    @property
    def mode(self) -> int: ...
    @property
    def owner(self) -> int | None: ...
    @property
    def group(self) -> int | None: ...


def reason(error: OSError) -> str:
    """Why an address cannot be had, in words."""
    reasons = {
        errno.EADDRINUSE: "the address is in use by another process",
        errno.EACCES: "permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    }
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    return reasons.get(error.errno or 0, error.strerror or str(error))


def prepare(sock: socket.socket) -> None:
    """What every listener of ours has.

    TCP_NODELAY is inherited by accepted sockets on Linux; asyncio sets it only where it recognises
    TCP. Without it answers stall for the 40 ms of a delayed acknowledgement.
    """
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def bind_tcp(family: int, host: str, port: int, *, share: bool = False) -> socket.socket:
    """A bound socket, not listening yet. With `share`, beside another one of ours that covers the
    address or is covered by it (`share_port`). Raises OSError.
    """
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if share:
            share_port(sock, shared=True)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        prepare(sock)
        sock.bind((host, port))
    except OSError:
        sock.close()
        raise
    return sock


def hosts(address: Address) -> list[tuple[int, str]]:
    """Family and numeric host of everything that an address stands for."""
    if not address.host:
        return [(socket.AF_INET, EVERY_V4), (socket.AF_INET6, "::")]
    found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    unique = dict.fromkeys((int(family), str(name[0])) for family, _, _, _, name in found)
    return sorted(unique)


def bind_unix(options: UnixSocketOptions) -> tuple[socket.socket, tuple[int, int]]:
    """A unix socket, bound beside its path and renamed over it once its mode is right.

    So nobody ever meets it with the wrong permissions, and a stale file of a dead process gives
    way. One that answers is somebody's: EADDRINUSE.
    """
    path = options.address.path
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "in use")
    beside = f"{os.path.dirname(path)}/.{secrets.token_hex(4)}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(beside)
        try:
            set_owner(beside, options)
            sock.listen(options.backlog)
            os.rename(beside, path)
        except OSError:
            os.unlink(beside)
            raise
    except OSError:
        sock.close()
        raise
    prepare(sock)
    return sock, inode(path)


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


def inode(path: str) -> tuple[int, int]:
    """What tells a file from another one at the same path. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def set_owner(path: str, options: UnixSocketOptions) -> None:
    """Gives the file of a unix socket the mode, owner and group of `options`. Raises OSError."""
    os.chmod(path, options.mode)
    if options.owner is not None or options.group is not None:
        owner = options.owner if options.owner is not None else -1
        os.chown(path, owner, options.group if options.group is not None else -1)


def share_port(sock: socket.socket, *, shared: bool) -> None:
    """Lets a second socket of this user be bound over the same address, or ends that.

    Needed while `127.0.0.1:80` gives way to `0.0.0.0:80`; left on, it would hide a port that is
    really busy.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))


def refuse_new(sock: socket.socket) -> None:
    """No new connection begins on this listening socket; those that have begun go on.

    Closing a listener resets what is in its accept queue, and emptying it first is a race against
    who connects meanwhile: so the kernel drops whatever would start a connection. The filter is the
    socket's own and needs no rights (socket(7), SO_ATTACH_FILTER). A client that meets it tries
    again after a second, and finds another listener or none.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = b"".join(struct.pack("HBBI", *step) for step in _WITHOUT_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_WITHOUT_SYN), ctypes.addressof(buffer))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def has_waiting(sock: socket.socket) -> bool:
    """Whether a connection waits to be accepted."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
