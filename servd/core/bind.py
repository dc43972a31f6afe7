"""Binds one listening socket: TCP with servd's socket options, unix with mode and owner."""

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
_WITHOUT_SYN = (  # classic BPF over the TCP header: drop SYN without ACK, pass everything else
    (0x30, 0, 0, 13),  # A = flags
    (0x54, 0, 0, 0x12),  # A &= SYN | ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # keep
)


class UnixSocketOptions(Protocol):
    """Options of a unix socket. `owner` and `group` are ids; None keeps the process's own."""

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
    """Returns why an address cannot be bound, as text for people."""
    if isinstance(error, socket.gaierror):
        return f"cannot resolve the name ({error.strerror})"
    reasons = {
        errno.EADDRINUSE: "the address is in use by another process",
        errno.EACCES: "permission denied (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        errno.EADDRNOTAVAIL: "no interface of this machine has that address",
    }
    return reasons.get(error.errno or 0, error.strerror or str(error))


def prepare(sock: socket.socket) -> None:
    """Sets the options of every listener: non-blocking, non-inheritable, TCP_NODELAY (accepted
    sockets inherit it). Without it, answers stall for the 40 ms of a delayed acknowledgement.
    """
    sock.setblocking(False)
    sock.set_inheritable(False)
    if sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


def bind_tcp(family: int, host: str, port: int, *, share: bool = False) -> socket.socket:
    """Returns a bound socket that does not listen yet; `share`: `share_port`. Raises OSError."""
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
    """Returns family and numeric host of each socket address that `address` resolves to."""
    if not address.host:
        return [(socket.AF_INET, EVERY_V4), (socket.AF_INET6, "::")]
    found = socket.getaddrinfo(address.host, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    unique = dict.fromkeys((int(family), str(name[0])) for family, _, _, _, name in found)
    return sorted(unique)


def bind_unix(options: UnixSocketOptions) -> tuple[socket.socket, tuple[int, int]]:
    """Binds a unix socket next to its path and renames it over that once its mode is set: clients
    never see wrong permissions. Raises OSError; EADDRINUSE when a process answers there.
    """
    path = options.address.path
    if _answers(path):
        raise OSError(errno.EADDRINUSE, "in use")
    beside = f"{os.path.dirname(path)}/.{secrets.token_hex(4)}"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind(beside)
        set_owner(beside, options)
        sock.listen(options.backlog)
        os.rename(beside, path)
    except OSError:
        sock.close()
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    prepare(sock)
    return sock, inode(path)


def _answers(path: str) -> bool:
    """Returns whether a process listens at `path`. Raises OSError for a file that is not ours."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return False
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the file exists and is not a socket")
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
    """Returns device and inode: they identify the file at `path`. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def leads_to(path: str, found: tuple[int, int]) -> bool:
    """Returns whether the file at `path` is still that one."""
    try:
        return inode(path) == found
    except OSError:
        return False


def set_owner(path: str, options: UnixSocketOptions) -> None:
    """Sets mode, owner and group of a unix socket's file. Raises OSError."""
    os.chmod(path, options.mode)
    owner, group = (-1 if each is None else each for each in (options.owner, options.group))
    if (owner, group) != (-1, -1):
        os.chown(path, owner, group)


def share_port(sock: socket.socket, *, shared: bool) -> None:
    """Allows or forbids a second socket of this user on the same address (SO_REUSEPORT).
    `127.0.0.1:80` is replaced by `0.0.0.0:80` this way. Left on, it would hide a busy port.
    """
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, int(shared))


def refuse_new(sock: socket.socket) -> None:
    """Makes the kernel drop new connections to this listening socket; open ones continue. Closing a
    listener resets its accept queue, and emptying the queue first races with clients. The filter is
    per socket and needs no privileges (socket(7)). A dropped client retries after a second.
    """
    if sys.platform != "linux" or sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    code = b"".join(struct.pack("HBBI", *step) for step in _WITHOUT_SYN)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_WITHOUT_SYN), ctypes.addressof(buffer))
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


def has_waiting(sock: socket.socket) -> bool:
    """Returns whether a connection waits to be accepted."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))
