"""systemd's file descriptor store holds the listening sockets during a restart: clients wait
instead of being refused (systemd.service(5), FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1).
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, MutableMapping
from urllib.parse import quote, unquote

from servd.core import bind
from servd.daemon.systemd import Systemd
from servd.supervisor.sockets.pool import Bound, SocketPool
from servd.wire.names import FDSTORE

_PREFIX = "servd.listen."
_NAME_BYTES = 255


class FdStore:
    """Unused unless FDSTORE= in the environment says how many descriptors systemd accepts (from
    version 254 on; a unit may set it too). `stored` maps keys of sockets to their names there.
    """

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        text = systemd.environ.get(FDSTORE, "")
        self._capacity = int(text) if text.isdecimal() and systemd.address else 0
        self.stored: dict[str, str] = {}

    def adopt(self, inherited: MutableMapping[str, list[int]], pool: SocketPool) -> None:
        """Takes the descriptors that come from the store out of `inherited`, into `pool`."""
        names = [name for name in inherited if name.startswith(_PREFIX)]
        pool.preload(self._sockets({name: inherited.pop(name) for name in names}), {})

    def _sockets(self, found: MutableMapping[str, list[int]]) -> Iterator[Bound]:
        for name, descriptors in found.items():
            key, path, inode = _meaning(name)
            self.stored[key] = name
            for descriptor in descriptors[1:]:
                os.close(descriptor)
            sock = socket.socket(fileno=descriptors[0])
            if inode is None or _is_there(path, inode):
                yield Bound(key, sock, path, inode)
            else:
                sock.close()  # no client could reach it

    def update(self, pool: SocketPool) -> None:
        """Stores the bound sockets, except those between services, and removes all others."""
        if not self._capacity or self._systemd.mute:
            return
        wanted = {i.key: i for i in pool.bound.values() if not (i.inherited or i.internal)}
        for key in self.stored.keys() - wanted.keys():
            self._systemd.forget(self.stored.pop(key))
        for key, item in wanted.items():
            name = _name(item)
            before = self.stored.get(key)
            if before == name or len(name) > _NAME_BYTES:
                continue
            if before is not None:
                self._systemd.forget(before)
            elif len(self.stored) >= self._capacity:
                continue
            self._systemd.store(name, item.sock)
            self.stored[key] = name


def _name(item: Bound) -> str:
    """Returns the name of a socket in the store: printable ASCII without a colon."""
    file = f";{item.inode[0]};{item.inode[1]}" if item.inode is not None else ""
    return f"{_PREFIX}{quote(item.key, safe='')}{file}"


def _meaning(name: str) -> tuple[str, str, tuple[int, int] | None]:
    """Returns the key, path and inode in a name."""
    key, *inode = name.removeprefix(_PREFIX).split(";")
    key = unquote(key)
    if len(inode) != 2:
        return key, "", None
    return key, key.removeprefix("unix:"), (int(inode[0]), int(inode[1]))


def _is_there(path: str, inode: tuple[int, int]) -> bool:
    try:
        return bind.inode(path) == inode
    except OSError:
        return False
