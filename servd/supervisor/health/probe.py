"""Asks a worker whether it is healthy: over HTTP, by a connection, or by running a command."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from servd.config.http_file import RequestFile
from servd.core.address import Address
from servd.core.exhaustion import is_exhaustion
from servd.plan.model import HealthPlan
from servd.supervisor.circus.beside import run_beside
from servd.supervisor.circus.process import WorkerProcess
from servd.supervisor.health.exchange import Connection, closing, exchange, status_of
from servd.supervisor.health.resolver import addresses_of
from servd.supervisor.io.channel import UnansweredError

if TYPE_CHECKING:
    from ssl import SSLContext

_MOST_BYTES = 2**20
"""What has sent so much of an answer can do its work: the rest is not awaited."""


async def connect_to(address: Address, tls: SSLContext | None = None) -> Connection:
    """A connection to `address`. Raises OSError, and ValueError for what is no host name."""
    if address.kind == "unix":
        return await asyncio.open_unix_connection(address.path)
    host = address.from_here.host
    failed: OSError | None = None
    for found in await addresses_of(host):
        try:
            return await asyncio.open_connection(
                found, address.port, ssl=tls, server_hostname=host if tls is not None else None
            )
        except OSError as error:
            failed = error
    raise failed or OSError(f"{host} has no address")


async def connect_privately(process: WorkerProcess) -> Connection:
    """A connection that no sibling can answer. Raises OSError and `UnansweredError`."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with theirs:
            await process.ask("probe", descriptor=theirs.fileno())
        ours.setblocking(False)
        return await asyncio.open_unix_connection(sock=ours)
    except BaseException:
        ours.close()
        raise


async def why_unwell(process: WorkerProcess, plan: HealthPlan) -> str:
    """The reason why a worker is not well; "" when it is. Raises OSError when the daemon lacks the
    resources to ask.
    """
    if plan.command:
        return await _why_command_fails(process, plan)
    if plan.tcp:
        return await _why_it_does_not_accept(plan)
    address = plan.address
    if address is None:
        return await _why_it_does_not_answer(plan, lambda: connect_privately(process))
    return await _why_it_does_not_answer(plan, lambda: connect_to(address))


async def why_unreachable(plan: HealthPlan, tls: SSLContext | None = None) -> str:
    """The reason why a service that runs elsewhere does not answer; "" when it does. Raises OSError
    when the daemon lacks the resources to ask.
    """
    address = plan.address
    assert address is not None
    if plan.tcp:
        return await _why_it_does_not_accept(plan, tls)
    return await _why_it_does_not_answer(plan, lambda: connect_to(address, tls))


async def _why_command_fails(process: WorkerProcess, plan: HealthPlan) -> str:
    what = plan.command[0]
    try:
        status = await run_beside(process, plan.command, plan.timeout)
    except TimeoutError:
        return f"{what} was still running after {plan.timeout:g} s"
    except OSError as error:
        if is_exhaustion(error):
            raise
        return f"{what} cannot be run: {error.strerror}"
    return f"{what} exited with status {status}" if status else ""


async def _why_it_does_not_accept(plan: HealthPlan, tls: SSLContext | None = None) -> str:
    assert plan.address is not None
    what = f"a connection to {plan.address}"
    try:
        async with asyncio.timeout(plan.timeout):
            _, writer = await connect_to(plan.address, tls)
            writer.close()
    except TimeoutError:
        return f"{what} was not accepted within {plan.timeout:g} s"
    except OSError as error:
        if is_exhaustion(error):
            raise
        return f"{what} failed: {reason_of(error)}"
    except ValueError as error:
        return f"{what} failed: {error}"
    return ""


async def _why_it_does_not_answer(
    plan: HealthPlan, connect: Callable[[], Awaitable[Connection]]
) -> str:
    what = plan.shown
    try:
        async with asyncio.timeout(plan.timeout):
            async with closing(connect()) as connection:
                status = await _asked(plan, connection)
    except TimeoutError:
        return f"{what} was not answered within {plan.timeout:g} s"
    except OSError as error:
        if is_exhaustion(error):
            raise
        return f"{what} failed: {reason_of(error)}"
    except (UnansweredError, ValueError) as error:
        return f"{what} failed: {error}"
    if is_expected(status, plan.expect):
        return ""
    wanted = f", not {plan.expect}" if plan.expect else ""
    return f"{what} returned {status}{wanted}"


async def _asked(plan: HealthPlan, connection: Connection) -> int:
    """Returns the status of the answer: for a real request, once all of it is there."""
    request = plan.request or RequestFile("GET", _on_the_wire(plan.path))
    sent = request.encoded(_on_the_wire(plan.host))
    if plan.request is None:
        return await status_of(connection, sent)
    return (await exchange(connection, sent, _MOST_BYTES)).status


def _on_the_wire(text: str) -> str:
    """Text that the configuration has as UTF-8, as characters of bytes."""
    return text.encode().decode("latin-1")


def is_expected(status: int, expect: str) -> bool:
    """Whether a status is healthy: `expect` is such as "200" or "2xx", "" for 2xx and 3xx."""
    if not expect:
        return 200 <= status < 400
    return str(status) == expect or expect == f"{status // 100}xx"


def reason_of(error: OSError) -> str:
    """Returns why a connection failed: the system's text, not asyncio's."""
    if verify := getattr(error, "verify_message", ""):
        return f"the certificate is not trusted: {verify}"
    known = error.errno is not None and "Connect call failed" in str(error)
    return os.strerror(error.errno) if known and error.errno else error.strerror or str(error)
