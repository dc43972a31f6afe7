"""systemd's store of file descriptors: it holds our listening sockets while we are restarted, so
that whoever connects meanwhile waits instead of being refused (systemd.service(5),
FileDescriptorStoreMax=; sd_notify(3), FDSTORE=1).
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
_LONGEST_NAME = 255


class FdStore:
    """What systemd keeps for us: nothing, unless FDSTORE= in our environment says how many
    descriptors it takes. (systemd sets it from version 254 on; a unit may do so itself.)

    `stored` has the names under which sockets are kept, by their keys.
    """

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        text = systemd.environ.get(FDSTORE, "")
        self._capacity = int(text) if text.isdecimal() and systemd.address else 0
        self.stored: dict[str, str] = {}

    def adopt(self, inherited: MutableMapping[str, list[int]], pool: SocketPool) -> None:
        """Takes those of the descriptors that we were started with which come from the store, and
        offers the sockets to `pool`.
        """
        names = [name for name in inherited if name.startswith(_PREFIX)]
        found = {name: inherited.pop(name) for name in names}
        pool.preload(self._sockets(found), {})

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
                sock.close()  # nobody could reach it any more

    def update(self, pool: SocketPool) -> None:
        """Makes what is stored equal to what is bound, but for what services have between them."""
        if not self._capacity or self._systemd.mute:
            return
        wanted = {i.key: i for i in pool.bound.values() if not (i.inherited or i.internal)}
        for key in self.stored.keys() - wanted.keys():
            self._systemd.forget(self.stored.pop(key))
        for key, item in wanted.items():
            name = _name(item)
            before = self.stored.get(key)
            if before == name or len(name) > _LONGEST_NAME:
                continue
            if before is not None:
                self._systemd.forget(before)
            elif len(self.stored) >= self._capacity:
                continue
            self._systemd.store(name, item.sock)
            self.stored[key] = name


def _name(item: Bound) -> str:
    """What a socket is called in the store: of printable ASCII without a colon."""
    file = f";{item.inode[0]};{item.inode[1]}" if item.inode is not None else ""
    return f"{_PREFIX}{quote(item.key, safe='')}{file}"


def _meaning(name: str) -> tuple[str, str, tuple[int, int] | None]:
    """The key, and the file, of the socket that is called so."""
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
