"""Looks names up apart from the loop's threads, which everything else in the daemon needs: a lookup
cannot be cancelled, and takes long where no name server answers.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import threading

_lookups: dict[tuple[asyncio.AbstractEventLoop, str], asyncio.Future[list[str]]] = {}
"""Lookups under way: one for each name, so that their threads are no more than names."""


async def addresses_of(host: str) -> list[str]:
    """Returns the IP addresses of a host, in the order in which to try them. Raises OSError, and
    ValueError for what is no name. A caller that gives up leaves the lookup to the next one.
    """
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    loop = asyncio.get_running_loop()
    lookup = _lookups.get((loop, host))
    if lookup is None:
        lookup = _lookups[loop, host] = loop.create_future()
        lookup.add_done_callback(lambda done: (_lookups.pop((loop, host), None), done.exception()))
        # a daemon thread: the end of the daemon does not wait for it
        threading.Thread(target=_look_up, args=[host, loop, lookup], daemon=True).start()
    return await asyncio.shield(lookup)


def _look_up(host: str, loop: asyncio.AbstractEventLoop, lookup: asyncio.Future[list[str]]) -> None:
    found: list[str] | OSError | ValueError
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        found = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    except (OSError, ValueError) as error:
        found = error
    try:
        loop.call_soon_threadsafe(_tell, lookup, found)
    except RuntimeError:  # the loop is closed
        return


def _tell(lookup: asyncio.Future[list[str]], found: list[str] | OSError | ValueError) -> None:
    if lookup.done():
        return
    if isinstance(found, Exception):
        lookup.set_exception(found)
    else:
        lookup.set_result(found)
