"""A listening socket that one daemon passes to the next."""

from __future__ import annotations

from servd.core.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class HandedSocket:
    """A listening socket that another process inherits: key in the pool, descriptor, file."""

    key: str
    fd: int
    path: str = ""
    inode: tuple[int, int] | None = None
