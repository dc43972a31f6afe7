"""`python -P -m servd.worker FD`: runs one app, as the spec on the channel FD says."""

from __future__ import annotations

import asyncio
import faulthandler
import fcntl
import os
import socket
import ssl
import sys
from typing import Any

from servd.wire import listen_fds
from servd.wire.names import FIRST_FD, STARTUP_FAILURE
from servd.wire.notify import announce_watchdog
from servd.wire.shm_counters import Counters
from servd.wire.worker_spec import AppSpec, WorkerSpec
from servd.worker import gc_tuning
from servd.worker.channel import Channel, DaemonWatch
from servd.worker.events import EventWriter, configure_logging, users_traceback
from servd.worker.restrict import ConfineError, confine


def main() -> None:
    """Runs the worker; exits 3 when its app cannot be imported or started."""
    gc_tuning.pause()
    channel = Channel(int(sys.argv[1]))
    text = channel.receive()
    if text is None:
        return  # the daemon died before it could say what to do
    spec = WorkerSpec.from_json(text)
    assert spec.app is not None
    sys.argv[1:] = []
    watch = DaemonWatch(channel, spec.app.timeouts.drain)
    watch.start()
    sockets = [item.fd for item in spec.sockets]
    counters = Counters(spec.counters)
    events = fcntl.fcntl(spec.events, fcntl.F_DUPFD_CLOEXEC, listen_fds.first_free_fd())
    os.close(spec.events)
    os.environ.update(listen_fds.lay(sockets, [item.name for item in spec.sockets]))
    announce_watchdog(spec.watchdog)
    writer = EventWriter(spec.service, spec.worker, spec.generation, events)
    writer.dropped = counters.dropped
    faulthandler.enable()
    configure_logging(writer, spec.app.log.level)
    try:
        confine(spec.rlimits, spec.cpus, no_new_privs=spec.no_new_privs)
    except ConfineError as error:
        channel.send(failed=str(error))
        writer.event("error", str(error))
        writer.close()
        sys.exit(STARTUP_FAILURE)
    try:
        context = _tls_context(spec)
    except (ssl.SSLError, OSError, ValueError) as error:
        channel.send(failed=f"TLS cannot be set up: {error}")
        writer.event("error", "TLS cannot be set up", error=str(error))
        writer.close()
        sys.exit(STARTUP_FAILURE)
    _serve(spec, context, writer, counters, watch)


def _tls_context(spec: WorkerSpec) -> ssl.SSLContext | None:
    if spec.tls is None:
        return None
    from servd.http.tls import tls_context

    return tls_context(spec.tls)


def _listeners(
    spec: WorkerSpec, context: ssl.SSLContext | None
) -> list[tuple[socket.socket, ssl.SSLContext | None]]:
    """The inherited sockets, each with its TLS context.

    Made anew from the descriptor, so that family and protocol are those of the real socket: asyncio
    and uvloop set TCP_NODELAY only on what they recognise as TCP.
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
    context: ssl.SSLContext | None,
    writer: EventWriter,
    counters: Counters,
    watch: DaemonWatch,
) -> None:
    from servd.worker import telemetry
    from servd.worker.load_app import AppLoadError, LoadsNowError, missing_variable

    assert spec.app is not None
    channel = watch.channel
    traces = telemetry.begin(spec.service, writer) if telemetry.is_wanted(os.environ) else None
    try:
        app = _load(spec.app, spec.worker)
    except AppLoadError as error:
        cause = error.__cause__
        _tell_sources(spec, channel, cause)
        channel.send(
            failed=str(error),
            missing_variable=missing_variable(cause),
            loads_now=isinstance(error, LoadsNowError),
        )
        fields = {"exception": users_traceback(cause)} if cause is not None else {}
        writer.event("error", f"cannot load {spec.app.app}", error=str(error), **fields)
        writer.close()
        sys.exit(STARTUP_FAILURE)
    from servd.worker.application import Outlets, build_application
    from servd.worker.control import Control
    from servd.worker.server import WorkerServer

    def recycle(reason: str) -> None:
        channel.send(recycle=reason)

    outlets = Outlets(writer, counters, recycle)
    application = build_application(app, spec.app, outlets, traces)
    server = WorkerServer(application, spec, _listeners(spec, context))
    server.report = channel.send
    server.say = writer.event
    control = Control(server, context, channel)

    def started(loop: asyncio.AbstractEventLoop) -> None:
        writer.attach(loop)
        _tell_sources(spec, channel)

        def begin(message: str) -> None:
            loop.call_soon_threadsafe(
                lambda: server.keep(loop.create_task(control.handle(message)))
            )

        watch.hand_to(begin)

    server.on_loop = started
    server.run()
    if traces is not None:
        traces.end()
    writer.close()
    if application.requests.stuck:
        os._exit(0)  # the interpreter would wait for their threads


def _tell_sources(spec: WorkerSpec, channel: Channel, error: BaseException | None = None) -> None:
    """In development: what the app was loaded from, as far as it was."""
    if not spec.tells_sources or spec.app is None:
        return
    from servd.worker.sources import loaded_files

    for files in loaded_files(spec.app.directory, error):
        channel.send(sources=files)


def _load(spec: AppSpec, worker: int) -> Any:
    """The app itself. Raises `AppLoadError`."""
    if spec.bento is not None:
        from servd.worker.bento.load import load_bento

        return load_bento(spec.app, spec.directory, spec.bento, worker)
    from servd.worker.load_app import load_app

    return load_app(spec.app, factory=spec.factory, directory=spec.directory)


if __name__ == "__main__":
    main()
