"""servd from Python: `servd.serve(...)` for tests, notebooks and programs.

Each daemon is a separate process. It stops with `stop()`, at the end of its `with` block, or when
this process exits.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

from servd.control.client import AdminClient, Answer, NoDaemonError
from servd.core.errors import ServdError, StartError, UsageError
from servd.wire.names import LIFELINE

_CONFIG_SUFFIXES = (".toml", ".yaml", ".yml", ".json")
_POLL_SECONDS = 0.02


def serve(
    config_or_target: str | os.PathLike[str] | Any = None,
    *,
    threaded: bool = False,
    blocking: bool | None = None,
    bento_identifier: str | Any = None,
    args: Mapping[str, Any] | None = None,
    bentoml_home: str | os.PathLike[str] | None = None,
    start_timeout: float | None = None,
    **options: Any,
) -> Server:
    """Runs a configuration (a file or folder), or one target with the options of `servd serve` as
    keywords: `port=3000`, `workers=4`, `working_dir="."`, `ssl_certfile="cert.pem"`...
    A service, a Bento or a tag of BentoML is a target too; `bento_identifier` is BentoML's name for
    it, `args` are the arguments of its code, any values that JSON has, `bentoml_home` is where
    BentoML keeps its Bentos. Returns when the daemon has exited; with `threaded` (or
    `blocking=False`), as soon as every service is ready. Raises `StartError` with the log if a
    service cannot start, or is not ready within `start_timeout` seconds (None: its own limits
    decide, and BentoML services have none), and `TypeError` for a
    keyword that `servd serve` does not have.
    """
    threaded = threaded if blocking is None else not blocking
    is_bento = bento_identifier is not None
    if is_bento and config_or_target is not None:
        raise UsageError("expected a configuration or target, or a bento_identifier, not both")
    target = bento_identifier if config_or_target is None else config_or_target
    if target is None:
        raise UsageError("missing target: use servd.serve('servd.toml') or servd.serve('main:app')")
    if not isinstance(target, str | os.PathLike):
        is_bento, (target, folder) = True, _target_of(target)
        options = {"working_dir": folder or None, **options}
    given = arguments(os.fspath(target), options, bento=is_bento)
    if args and given[0] != "serve":
        raise UsageError("args need a target, not a configuration: set bento_args there")
    environ = {} if bentoml_home is None else {"BENTOML_HOME": os.path.abspath(bentoml_home)}
    server = Server(given, quiet=threaded, bento_args=args, environ=environ)
    if threaded:
        server.until_ready(start_timeout)
    else:
        server.wait()
    return server


def _target_of(thing: Any) -> tuple[str, str]:
    """Returns the target that stands for a service, a Bento or a tag of BentoML, and the working
    directory of its code, or "". Raises `TypeError`, or `UsageError` for one in no module.
    """
    module = type(thing).__module__
    if not module.startswith(("bentoml", "_bentoml")):
        raise TypeError(f"expected a configuration or a target, got {type(thing).__name__}")
    if hasattr(thing, "get_service_import_origin"):
        return _variable_of(thing), str(thing._working_dir)
    if hasattr(thing, "import_string"):
        return thing.import_string, str(thing.working_dir)
    return str(getattr(thing, "tag", thing)), ""


def _variable_of(service: Any) -> str:
    """Returns the import string of a service of BentoML 1.1, whose own `get_service_import_origin`
    searches the wrong module unless BentoML has loaded it. Raises `UsageError`.
    """
    if service._import_str:
        return str(service._import_str)
    # a module comes after the first one that imports it; the program that runs comes last here
    newest_first = reversed(list(sys.modules.items()))
    modules = sorted(newest_first, key=lambda item: item[0] == "__main__")
    for module_name, module in modules:
        found = [name for name, each in getattr(module, "__dict__", {}).items() if each is service]
        source = module_name if module_name != "__main__" else getattr(module, "__file__", None)
        if found and source:
            return f"{source}:{found[0]}"
    raise UsageError(f"{service.name} is no variable of a module, where workers could import it")


def arguments(target: str, options: dict[str, Any], *, bento: bool = False) -> list[str]:
    """Returns the command line of a configuration, target or Bento. Raises `UsageError`, or
    `TypeError` for an unknown option.
    """
    if bento:
        options = {"bento": True, **options}
    elif os.path.isdir(target) or target.endswith(_CONFIG_SUFFIXES):
        if options:
            raise UsageError(
                f"options need a target, not a configuration: {', '.join(sorted(options))}"
            )
        return ["--config", target]
    options = _of_bentoml(options)
    found = ["serve", target]
    known = _flags()
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        if flag not in known:
            raise TypeError(f"serve() got an unexpected keyword argument {name!r}")
        if value is True:
            found.append(flag)
        elif value is not False and value is not None:
            found += [flag, str(value)]
    return found


_OF_GRPC = {
    "enable_reflection", "enable_channelz", "max_concurrent_streams", "grpc_protocol_version",
}  # fmt: skip


def _of_bentoml(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of `servd serve` for keywords of `bentoml.serve` and
    `serve_http_production`. Raises `TypeError` for gRPC, which servd does not serve.
    """
    found = dict(options)
    if (kind := found.pop("server_type", "http")) not in ("http", None):
        raise TypeError(f"server_type={kind!r}: {_GRPC_ADVICE}")
    for name in _OF_GRPC & found.keys():
        if found.pop(name) is not None:
            raise TypeError(f"{name} is for gRPC: {_GRPC_ADVICE}")
    if "development_mode" in found:
        found["development"] = found.pop("development_mode")
    if "production" in found:
        found["development"] = found.pop("production") is False or found.get("development")
    return found


_GRPC_ADVICE = 'run it as a program: command = ["bentoml", "serve-grpc", ...]'


def _flags() -> set[str]:
    from servd.cli.commands.serve import command

    return {flag for option in command.params for flag in option.opts}


class ServiceUrl(str):
    """The URL of the only service that listens, "" if there are several; called with a name, that
    of another service.
    """

    __slots__ = ("_of",)
    _of: Callable[[str | None], str]

    def __call__(self, name: str | None = None) -> str:
        """Returns the URL of a service, or of the only one. Raises `ServdError` if it has none."""
        return self._of(name)


class Server:
    """A daemon in the background. Call `stop`, or use a `with` block."""

    def __init__(
        self,
        arguments: list[str],
        *,
        quiet: bool = True,
        bento_args: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the daemon, with `environ` added to the environment of this process; with `quiet`,
        its output goes only to `log`.
        """
        self._folder = tempfile.mkdtemp(prefix="servd-")
        if bento_args:  # not on the command line, which every user of the machine can read
            file = os.path.join(self._folder, "args.json")
            with open(file, "w", encoding="utf-8") as opened:
                json.dump(dict(bento_args), opened)
            arguments = [*arguments, "--arg-file", file]
        self._log = os.path.join(self._folder, "log")
        runtime_dir = os.path.join(self._folder, "run")
        self._admin = AdminClient(os.path.join(runtime_dir, "admin.sock"))
        theirs, self._lifeline = os.pipe()
        own = {"SERVD_DAEMON__RUNTIME_DIR": runtime_dir, LIFELINE: str(theirs)}
        with open(self._log, "wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "servd", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log if quiet else None,
                stderr=log if quiet else None,
                env={**os.environ, **(environ or {}), **own},
                pass_fds=[theirs],
                start_new_session=quiet,
            )
        os.close(theirs)
        atexit.register(self.stop)

    @property
    def pid(self) -> int:
        """The process id of the daemon."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the daemon runs."""
        return self._process.poll() is None

    @property
    def log(self) -> str:
        """The log of the daemon and its services so far; empty after a stop."""
        with contextlib.suppress(OSError), open(self._log, encoding="utf-8") as file:
            return file.read()
        return ""

    def until_ready(self, seconds: float | None = None) -> None:
        """Waits until every service is ready; else stops the daemon and raises `StartError`."""
        end = math.inf if seconds is None else time.monotonic() + seconds
        while not self._is_ready():
            why = self._why_never(end)
            if why:
                said = self.log.strip()[-4000:]
                self.stop()
                raise StartError(f"servd {why}:\n{said}" if said else f"servd {why}")
            time.sleep(_POLL_SECONDS)

    def _is_ready(self) -> bool:
        try:
            return self._admin.get("/readyz").good
        except NoDaemonError:
            return False

    def _why_never(self, end: float) -> str:
        """Returns why waiting is useless (such as a crash loop), or ""."""
        if self._process.poll() is not None:
            return "exited"
        if time.monotonic() > end:
            return "was not ready in time"
        try:
            loops = [s for s in self.status()["services"] if s["crash_loop"]]
        except NoDaemonError:
            return ""
        return f"cannot start {loops[0]['name']}: {loops[0]['error']}" if loops else ""

    def status(self) -> dict[str, Any]:
        """Returns the answer of `GET /v1/status`. Raises `NoDaemonError` after an exit."""
        return self._admin.status()

    @property
    def url(self) -> ServiceUrl:
        """The URL of the only service; `url(name)` is that of any."""
        services = [service for service in self._admin.services() if service["listen"]]
        found = ServiceUrl(self._url() if len(services) == 1 else "")
        found._of = self._url
        return found

    def get_client(self) -> Any:
        """Returns BentoML's client of the only service."""
        return importlib.import_module("bentoml").SyncHTTPClient(str(self.url))

    def _url(self, name: str | None = None) -> str:
        services = self._admin.services([name] if name is not None else [])
        if len(services) > 1:
            services = [s for s in services if s["listen"]] or services
        if len(services) != 1:
            raise ServdError(
                f"expected a service name. Services: {', '.join(s['name'] for s in services)}"
            )
        (found,) = services
        if not found["listen"]:
            raise ServdError(f"{found['name']} has no `listen` address")
        where: str = found["listen"][0]
        return where.replace("//0.0.0.0:", "//localhost:").replace("//[::]:", "//localhost:")

    def reload(self) -> dict[str, Any]:
        """Reloads the configuration and returns the outcome. Raises `ServdError`."""
        answer: Answer = self._admin.post("/v1/reload")
        if not answer.good:
            details = answer.body.get("details") or [answer.body.get("detail", "")]
            raise ServdError("\n".join([answer.body["title"], *details]))
        return dict(answer.body)

    def stop(self) -> int:
        """Drains and stops the daemon if it is running, and returns its exit status."""
        atexit.unregister(self.stop)
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> int:
        """Waits until the daemon exits (Ctrl-C stops it), removes its folder and returns its exit
        status.
        """
        while True:
            try:
                status = self._process.wait()
                break
            except KeyboardInterrupt:  # a daemon on our terminal has received it too
                with contextlib.suppress(ProcessLookupError):
                    self._process.send_signal(signal.SIGTERM)
        if self._lifeline >= 0:
            os.close(self._lifeline)
            self._lifeline = -1
        shutil.rmtree(self._folder, ignore_errors=True)
        return status

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()
