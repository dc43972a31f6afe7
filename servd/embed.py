"""servd from Python: `servd.serve(...)` for tests, notebooks and programs.

The daemon is a process of its own: no signal handler, no thread and no logger of this process is
touched, and any number can run at a time. It ends with `stop()`, with its `with` block, and with
this process, however that ends.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from types import TracebackType
from typing import Any

from servd.control.client import AdminClient, Answer, NoDaemonError
from servd.core.errors import ServdError, StartError, UsageError
from servd.wire.names import LIFELINE

_ENDINGS = (".toml", ".yaml", ".yml", ".json")
_LOOK_EVERY = 0.02
_PATIENCE = 10.0


def serve(
    config_or_target: str | os.PathLike[str] | None = None,
    *,
    threaded: bool = False,
    bento_identifier: str | None = None,
    start_timeout: float = 60.0,
    **options: Any,
) -> Server:
    """Runs a configuration (a file or folder), or one target as `servd serve` does, with options of
    that as keywords: `port=3000`, `workers=4`, `working_dir="."`, `ssl_certfile="cert.pem"`...

    With `threaded` it returns once everything is ready, or raises `StartError` with what went wrong
    when a service cannot start, or that takes longer than `start_timeout` seconds; else it returns
    when the daemon has ended.
    `bento_identifier` is what BentoML calls the target.
    """
    target = config_or_target if config_or_target is not None else bento_identifier
    if config_or_target is not None and bento_identifier is not None:
        raise UsageError("serve what? Give a configuration or target, or a bento_identifier")
    if target is None:
        raise UsageError("serve what? servd.serve('servd.toml') or servd.serve('main:app')")
    is_bento = bento_identifier is not None
    server = Server(arguments(os.fspath(target), options, bento=is_bento), quiet=threaded)
    if threaded:
        server.until_ready(start_timeout)
    else:
        server.wait()
    return server


def arguments(target: str, options: dict[str, Any], *, bento: bool = False) -> list[str]:
    """The command line for a configuration, a target, or a BentoML service. Raises `UsageError`."""
    if bento:
        options = {"bento": True, **options}
        if "development_mode" in options:  # as `serve_http_production` calls it
            options["development"] = options.pop("development_mode")
    elif os.path.isdir(target) or target.endswith(_ENDINGS):
        if options:
            raise UsageError(f"a configuration takes no options: {', '.join(sorted(options))}")
        return ["--config", target]
    found = ["serve", target]
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if value is True:
            found.append(flag)
        elif value is not False and value is not None:
            found += [flag, str(value)]
    return found


class Server:
    """A daemon in the background. Stop it, or use it in a `with` block."""

    def __init__(self, arguments: list[str], *, quiet: bool = True) -> None:
        """Starts it; with `quiet`, what it logs is kept for `log` alone."""
        self._folder = tempfile.mkdtemp(prefix="servd-")
        self._log = os.path.join(self._folder, "log")
        self._admin = AdminClient(os.path.join(self._folder, "run", "admin.sock"))
        theirs, self._lifeline = os.pipe()
        environ = {
            **os.environ,
            "SERVD_DAEMON__RUNTIME_DIR": os.path.join(self._folder, "run"),
            LIFELINE: str(theirs),
        }
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "servd", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log if quiet else None,
                stderr=log if quiet else None,
                env=environ,
                pass_fds=[theirs],
                start_new_session=quiet,
            )
        os.close(theirs)
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """The daemon's."""
        return self._process.pid

    @property
    def log(self) -> str:
        """Everything that it and its services have logged so far; empty once it was stopped."""
        with contextlib.suppress(OSError), open(self._log, encoding="utf-8") as file:
            return file.read()
        return ""

    def until_ready(self, seconds: float) -> None:
        """Returns once every service is ready; else stops it. Raises `StartError`."""
        end = time.monotonic() + seconds
        while not self._is_ready():
            why = self._why_never(end)
            if why:
                said = self.log.strip()[-4000:]
                self.stop()
                raise StartError(f"servd {why}:\n{said}" if said else f"servd {why}")
            time.sleep(_LOOK_EVERY)

    def _is_ready(self) -> bool:
        try:
            return self._admin.get("/readyz").good
        except NoDaemonError:
            return False

    def _why_never(self, end: float) -> str:
        """Why it is no use to wait for longer; empty where it is. A service whose workers die again
        and again does not get better by itself.
        """
        if self._process.poll() is not None:
            return "ended"
        if time.monotonic() > end:
            return "was not ready in time"
        try:
            loops = [s for s in self.status()["services"] if s["crash_loop"]]
        except NoDaemonError:
            return ""
        return f"cannot start {loops[0]['name']}: {loops[0]['error']}" if loops else ""

    def status(self) -> dict[str, Any]:
        """What runs: the shape of `GET /v1/status`. Raises `NoDaemonError` once it has ended."""
        return self._admin.status()

    def url(self, name: str | None = None) -> str:
        """Where a service listens (the only one that listens outside, without a name):
        `http://localhost:PORT` for every interface. Raises `ServdError` for one that is not there,
        or listens nowhere.
        """
        services = self._admin.services([name] if name is not None else [])
        if len(services) > 1:
            services = [s for s in services if s["listen"]] or services
        if len(services) != 1:
            raise ServdError(f"which one? there is: {', '.join(s['name'] for s in services)}")
        (found,) = services
        if not found["listen"]:
            raise ServdError(f"{found['name']} listens nowhere outside")
        where: str = found["listen"][0]
        return where.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")

    def reload(self) -> dict[str, Any]:
        """Reads the configuration anew and applies what differs; the outcome. Raises `ServdError`
        with the reason when it was undone.
        """
        answer: Answer = self._admin.post("/v1/reload")
        if not answer.good:
            details = answer.body.get("details") or [answer.body.get("detail", "")]
            raise ServdError("\n".join([answer.body["title"], *details]))
        return dict(answer.body)

    def stop(self) -> int:
        """Drains and ends everything, whether or not it runs; the daemon's exit status."""
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits for its end, and removes what it has left; its exit status. Ctrl-C ends it."""
        while True:
            try:
                status = self._process.wait()
                break
            except KeyboardInterrupt:  # it has got the same signal where it shares our terminal
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGTERM)
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        shutil.rmtree(self._folder, ignore_errors=True)
        return status

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()
