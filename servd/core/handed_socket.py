"""A listening socket on its way from one daemon to the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """A listening socket that another process inherits: the `key` that it is known by, its
    descriptor and, of a unix socket, which file it has.
    """

    key: str
    fd: int
    path: str = ""
    inode: tuple[int, int] | None = None
