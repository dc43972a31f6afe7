"""The addresses that processes listen on, from the kernel (sock_diag(7)). Impure.

/proc/net/tcp also lists every connection, which is slow on a busy machine.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator

from servd.host.file_access import files_as
from servd.plan.host import Account

_SOCK_DIAG_BY_FAMILY = 20
_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_DUMP
_ERROR, _DONE = 2, 3
_NETLINK_SOCK_DIAG = 4
_LISTENING = 1 << 10  # TCP_LISTEN, for unix sockets too
_ESTABLISHED = 1 << 1
_SHOW_NAME = 1
_BYTECODE_ATTRIBUTE = 1
_BC_S_GE, _BC_S_LE = 2, 3
_NAME_ATTRIBUTE = 0
_HEADER = struct.Struct("=IHHII")
_RECEIVE_BYTES = 1 << 18
_NO_ADDRESS = "unix:"


def listening(pids: Collection[int], but: Collection[int] = ()) -> set[str]:
    """Returns the addresses (`127.0.0.1:80`, `[::]:80`, `unix:/x.sock`) that processes listen on,
    except the sockets with the inodes `but`; abstract unix sockets are left out.
    """
    inodes = {inode for pid in pids for inode in _sockets_of(pid)} - set(but)
    if not inodes:
        return set()
    found = {address for inode, address in _listening_sockets() if inode in inodes}
    return found - {_NO_ADDRESS}


def serving(pids: Collection[int]) -> set[int]:
    """Returns the processes with open client connections on a TCP port that one of `pids` listens
    on.
    """
    sockets = {pid: set(_sockets_of(pid)) for pid in pids}
    inodes: set[int] = set().union(*sockets.values())
    ports = {
        int(address.rpartition(":")[2])
        for inode, address in _tcp_sockets(_LISTENING)
        if inode in inodes
    }
    open_ = {inode for port in ports for inode, _ in _tcp_sockets(_ESTABLISHED, port)}
    return {pid for pid, held in sockets.items() if held & open_}


def is_shareable(address: str, account: Account | None) -> bool:
    """Returns whether another socket of the user can bind this TCP address too (SO_REUSEPORT), by
    binding one that does not listen.
    """
    if address.startswith("unix:"):
        return False
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if host.startswith("[") else socket.AF_INET
    try:
        with files_as(account), socket.socket(family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind((host.strip("[]"), int(port)))
    except OSError:
        return False
    return True


def chosen_ports() -> range:
    """Returns the range of ephemeral ports (ip(7), ip_local_port_range)."""
    try:
        with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
            first, last = map(int, file.read().split())
    except (OSError, ValueError):
        return range(32768, 61000)
    return range(first, last + 1)


def _sockets_of(pid: int) -> Iterator[int]:
    folder = f"/proc/{pid}/fd"
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        with contextlib.suppress(OSError):
            target = os.readlink(f"{folder}/{name}")
            if target.startswith("socket:["):
                yield int(target[8:-1])


def _listening_sockets() -> Iterator[tuple[int, str]]:
    """Yields inode and address of each; nothing if the kernel has no such list."""
    yield from _tcp_sockets(_LISTENING)
    if sys.platform != "linux":
        return
    show = struct.pack("=BBHIII8x", socket.AF_UNIX, 0, 0, _LISTENING, 0, _SHOW_NAME)
    for body in _dump(show):
        yield _unix(body)


def _tcp_sockets(states: int, port: int | None = None) -> Iterator[tuple[int, str]]:
    """Yields inode and local address of TCP sockets in these states, at `port` or at any."""
    if sys.platform != "linux":
        return
    wanted = b"" if port is None else _at_port(port)
    for family in (socket.AF_INET, socket.AF_INET6):
        request = struct.pack("=BBBBI48x", family, socket.IPPROTO_TCP, 0, 0, states)
        for body in _dump(request + wanted):
            yield _tcp(family, body)


def _at_port(port: int) -> bytes:
    """Returns the attribute that makes the kernel filter by the local port: a program of two
    comparisons (`struct inet_diag_bc_op`), each with its jump for true and for false.
    """
    at_least = struct.pack("=BBHBBH", _BC_S_GE, 8, 20, 0, 0, port)
    at_most = struct.pack("=BBHBBH", _BC_S_LE, 8, 12, 0, 0, port)
    program = at_least + at_most
    return struct.pack("=HH", 4 + len(program), _BYTECODE_ATTRIBUTE) + program


def _dump(request: bytes) -> Iterator[bytes]:
    """Yields the messages that answer a request."""
    with contextlib.suppress(OSError):
        channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG)
        with channel:
            size = _HEADER.size + len(request)
            channel.send(_HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _DUMP, 1, 0) + request)
            while True:
                answer = channel.recv(_RECEIVE_BYTES)
                while len(answer) >= _HEADER.size:
                    length, kind, _, _, _ = _HEADER.unpack_from(answer)
                    if kind in (_ERROR, _DONE):
                        return
                    yield answer[_HEADER.size : length]
                    answer = answer[(length + 3) & ~3 :]


def _tcp(family: int, body: bytes) -> tuple[int, str]:
    """Reads a `struct inet_diag_msg`."""
    (port,) = struct.unpack_from("!H", body, 4)
    (inode,) = struct.unpack_from("=I", body, 68)
    host = ipaddress.ip_address(body[8 : 8 + (4 if family == socket.AF_INET else 16)])
    shown = str(host) if host.version == 4 else f"[{host}]"
    return inode, f"{shown}:{port}"


def _unix(body: bytes) -> tuple[int, str]:
    """Reads a `struct unix_diag_msg` and its attributes."""
    (inode,) = struct.unpack_from("=I", body, 4)
    offset, name = 16, b""
    while offset + 4 <= len(body):
        length, kind = struct.unpack_from("=HH", body, offset)
        if kind == _NAME_ATTRIBUTE:
            name = body[offset + 4 : offset + length]
        offset += max(4, (length + 3) & ~3)
    if name.startswith(b"\0"):  # abstract
        return inode, _NO_ADDRESS
    return inode, _NO_ADDRESS + os.fsdecode(name.rstrip(b"\0"))
