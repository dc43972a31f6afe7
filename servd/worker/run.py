"""Runs a worker: one app, as the spec on its channel says."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import faulthandler
import fcntl
import os
import socket
import ssl
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from servd.core.unwell import report_to
from servd.wire import listen_fds
from servd.wire.accept_board import Seat
from servd.wire.names import FIRST_FD, STARTUP_FAILURE
from servd.wire.notify import announce_watchdog
from servd.wire.shm_counters import Counters
from servd.wire.worker_spec import AppSpec, WorkerSpec
from servd.worker.channel import Channel, DaemonWatch, kill_group
from servd.worker.events import (
    EventWriter,
    configure_logging,
    show_exceptions_to,
    users_traceback,
)
from servd.worker.reporter import Reporter
from servd.worker.restrict import ConfineError, confine
from servd.worker.runtime import import_runtime

if TYPE_CHECKING:
    from servd.worker.events import HeldEvents
    from servd.worker.load_app import AppLoadError
    from servd.worker.loaded import LoadedApp


def run(
    channel: Channel,
    numbers: Mapping[int, int] | None = None,
    loaded: LoadedApp | None = None,
    held: HeldEvents | None = None,
) -> None:
    """Runs the worker; exits 3 when its app cannot be imported or started. A forked worker has its
    descriptors under other `numbers` than the daemon, maybe its app `loaded`, and events `held`.
    """
    text = channel.receive()
    if text is None:
        return  # the daemon died before it sent the spec
    spec = WorkerSpec.from_json(text)
    if numbers is not None:
        spec = spec.renumbered(numbers)
    assert spec.app is not None
    watch = DaemonWatch(channel, spec.app.timeouts.drain + spec.app.timeouts.shutdown)
    watch.start()
    sockets = [item.fd for item in spec.sockets]
    counters = Counters(spec.counters)
    seat = Seat(spec.board, spec.seat)
    events = fcntl.fcntl(spec.events, fcntl.F_DUPFD_CLOEXEC, listen_fds.first_free_fd())
    os.close(spec.events)
    os.environ.update(listen_fds.lay(sockets, [item.name for item in spec.sockets]))
    announce_watchdog(spec.watchdog)
    reporter = Reporter(EventWriter(events, counters.dropped), counters, channel, seat)
    watch.explain = lambda: _explain(reporter, watch.loop)
    faulthandler.enable()
    configure_logging(reporter.writer, spec.app.log.level)
    if held is not None:
        reporter.writer.resume(held.content)
    try:
        confine(spec.rlimits, spec.cpus, no_new_privs=spec.no_new_privs)
    except ConfineError as error:
        _fail(reporter, {"failed": str(error)}, str(error))
    context = None
    if spec.tls is not None:
        try:
            from servd.http.tls import tls_context

            context = tls_context(spec.tls)
        except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
            event = "cannot set up TLS"
            _fail(reporter, {"failed": f"{event}: {error}"}, event, error=str(error))
    _serve(spec, spec.app, context, reporter, watch, loaded)


def _explain(reporter: Reporter, loop: asyncio.AbstractEventLoop | None) -> None:
    """Logs where the app is that has not started in time."""
    from servd.worker.stacks import stacks

    reporter.writer.event("error", "app did not start in time", exception=stacks(loop))


def _fail(reporter: Reporter, message: dict[str, Any], event: str, **fields: Any) -> NoReturn:
    """Reports a failed start to the daemon, logs it, and exits."""
    reporter.channel.send(**message)
    reporter.writer.event("error", event, **fields)
    reporter.writer.close()
    sys.exit(STARTUP_FAILURE)


def _listeners(
    spec: WorkerSpec, context: ssl.SSLContext | None
) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    """Returns the inherited sockets, each with its TLS context. Family and protocol are read from
    the descriptors: asyncio and uvloop set TCP_NODELAY only on sockets known to be TCP.
    """
    listeners = []
    for index, item in enumerate(spec.sockets):
        sock = socket.socket(fileno=FIRST_FD + index)
        sock.set_inheritable(False)
        sock.setblocking(False)
        listeners.append((sock, context if item.tls else None))
    return listeners


def _serve(
    spec: WorkerSpec,
    app_spec: AppSpec,
    context: ssl.SSLContext | None,
    reporter: Reporter,
    watch: DaemonWatch,
    loaded: LoadedApp | None,
) -> None:
    from servd.worker import telemetry
    from servd.worker.load_app import AppLoadError, load

    writer = reporter.writer
    import_runtime(app_spec.uvicorn)
    traces = telemetry.begin(spec.service, writer) if telemetry.is_wanted(os.environ) else None
    sources = None
    if spec.tells_sources:
        from servd.worker.sources import reported

        sources = reported(app_spec.directory, app_spec.app)
        sources.begin(reporter.channel.send)
    try:
        app = loaded.app if loaded is not None else load(app_spec, spec.worker)
    except AppLoadError as error:
        if sources is not None:
            sources.report(error.__cause__)
        _fail_to_load(spec, error, reporter)
    from servd.worker.application import build_application
    from servd.worker.control import Control
    from servd.worker.server import WorkerServer
    from servd.worker.threads import only_useless_work_is_left

    application = build_application(app, app_spec, reporter, traces)
    gpu_errors = application.requests.gpu_errors
    report_to(gpu_errors.unwell)
    show_exceptions_to(gpu_errors.logged)
    server = WorkerServer(application, spec, _listeners(spec, context), reporter)
    control = Control(server, context, reporter.channel)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        writer.attach(loop)
        watch.loop = loop
        if sources is not None:
            sources.follow(loop)
        watch.hand_to(lambda message: loop.call_soon_threadsafe(control.begin, message))
        await server.serve()

    runner = asyncio.Runner(loop_factory=server.config.get_loop_factory())
    with contextlib.ExitStack() as ends:
        ends.callback(runner.close)
        if sources is not None:
            ends.callback(sources.report)  # what a failed startup has loaded
        runner.run(serve())
        if useless := only_useless_work_is_left():
            ends.pop_all()  # closing a loop waits for threads
    if traces is not None:
        traces.end()
    writer.close()
    if watch.daemon_is_gone:
        kill_group()
    if useless or application.requests.stuck:
        atexit._run_exitfuncs()
        os._exit(0)  # the interpreter would wait for their threads


def _fail_to_load(spec: WorkerSpec, error: AppLoadError, reporter: Reporter) -> NoReturn:
    from servd.worker.load_app import LoadsNowError, missing_variable

    assert spec.app is not None
    cause = error.__cause__
    fields = {"exception": users_traceback(cause)} if cause is not None else {}
    message = {
        "failed": str(error),
        "app_failed": True,
        "missing_variable": missing_variable(cause),
        "loads_now": isinstance(error, LoadsNowError),
    }
    _fail(reporter, message, f"cannot load {spec.app.app}", error=str(error), **fields)
