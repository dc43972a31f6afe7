"""A listening socket that one daemon passes to the next."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """A listening socket that another process inherits: its key in the pool, its descriptor and,
    for a unix socket, its file.
    """

    key: str
    fd: int
    path: str = ""
    inode: tuple[int, int] | None = None
