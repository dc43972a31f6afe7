"""`servd serve TARGET`: runs one service without a file, with the options of `bentoml serve`."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import click

from servd.bento.describe_client import Description, DescriptionError
from servd.cli.bento_target import is_bento, source_of
from servd.cli.launch import LaunchOptions, launch
from servd.config.bento.declared import Declared, DeclaredGraph, GivenAddress, arguments_text
from servd.config.tree import plain
from servd.core.address import EVERY_V4, AddressError, parse_address
from servd.core.errors import UsageError
from servd.wire.names import DESCRIBE_MODULE, HANDOVER, PROMETHEUS_FOLDER

SOURCE = "<servd serve>"
_SECONDS = 60.0
"""Longest import of the code of a BentoML service whose configuration is printed."""

_CLIENT_AUTH = {"0": "none", "1": "optional", "2": "required"}
_VERSIONS = {"TLSv1.2": "TLSv1.2", "TLSv1.3": "TLSv1.3", "2": "TLSv1.2", "17": "TLSv1.2"}
"""Names, and Python's numbers of PROTOCOL_TLS and PROTOCOL_TLS_SERVER: the newest of both sides."""


@dataclass(frozen=True)
class ServeOptions:
    """The command's options; None if not given."""

    target: str
    bento: bool
    host: str | None
    port: int | None
    backlog: int | None
    workers: str | None
    timeout: str | None
    development: bool
    working_dir: str | None
    ssl_certfile: str | None
    ssl_keyfile: str | None
    ssl_keyfile_password: str | None
    ssl_ca_certs: str | None
    ssl_cert_reqs: str | None
    ssl_version: str | None
    ssl_ciphers: str | None
    timeout_startup: str | None
    timeout_keep_alive: str | None
    timeout_graceful_shutdown: str | None
    factory: bool
    interface: str | None
    arg: tuple[str, ...]
    arg_file: str | None
    verbosity: str | None
    print_config: bool

    @property
    def directory(self) -> str:
        """The working directory, absolute."""
        return os.path.abspath(self.working_dir or ".")

    @cached_property
    def is_bento(self) -> bool:
        """Whether the target is a BentoML service: from its source, or else by an import."""
        found = self.bento or is_bento(self.target, self.directory, os.environ)
        if found is None:
            asked = self._description
            found = asked is not None and asked.is_service()
        return found

    def begin_description(self) -> Description | None:
        """Starts the slow query of what a BentoML service declares, in parallel."""
        return self._description if self.is_bento else None

    @cached_property
    def _description(self) -> Description | None:
        if not os.path.isdir(self.directory):
            return None
        argv = [sys.executable, "-P", "-m", DESCRIBE_MODULE, self.target, self.directory]
        environ = {**os.environ, PROMETHEUS_FOLDER: os.devnull}  # each process has its own
        given = arguments_text(self.arguments)
        stays = not self.print_config and HANDOVER not in os.environ
        near = os.path.dirname(self.runtime_dir) if stays else None
        begun = Description(
            argv, self.directory, environ, given, near=near, level=self._level or "info"
        )
        atexit.register(begun.drop)
        return begun

    @property
    def runtime_dir(self) -> str:
        """The daemon's folder, for this process alone."""
        from servd.core.paths import default_runtime_dir

        is_root = os.geteuid() == 0
        return default_runtime_dir(f"serve-{os.getpid()}", os.environ, is_root=is_root)

    @cached_property
    def arguments(self) -> dict[str, Any]:
        """The arguments of a BentoML service; the command line outranks the file. Raises
        `UsageError`.
        """
        found = _in_file(self.arg_file) if self.arg_file is not None else {}
        for item in self.arg:
            key, equals, value = item.partition("=")
            if not equals or not key:
                raise UsageError(f"--arg {item}: expected KEY=VALUE")
            found[key] = value
        return found

    @property
    def address(self) -> GivenAddress:
        """What is given of the address; the code of a BentoML service, or a default, has the rest.
        Raises `UsageError`.
        """
        given = GivenAddress(self.host, self.port)
        try:
            parse_address(str(Declared("").address(given)))
        except AddressError as error:
            raise UsageError(f"--host {self.host}: {error}") from None
        return given

    def declared(self) -> Declared:
        """Waits for what the code of a BentoML service declares; nothing if it is not imported."""
        begun = self.begin_description()
        try:
            graph = DeclaredGraph.from_document(begun.document(_SECONDS)) if begun else None
        except (DescriptionError, KeyError, TypeError):
            graph = None
        return graph.services[graph.entry] if graph is not None else Declared("")

    def tables(self, declared: Declared | None = None) -> dict[str, Any]:
        """Returns the equivalent configuration. The address of a BentoML service is left out unless
        it is known what its code has `declared`.
        """
        bento, address = self.is_bento, (declared or Declared("")).address(self.address)
        workers = "auto" if self.workers in ("auto", "cpu_count") else _number(self.workers)
        service = _given(
            **{"bento" if bento else "app": self.target},
            bento_args=self.arguments,
            listen=None if bento and declared is None else str(address),
            directory=self.directory,
            factory=self.factory or None,
            interface=self.interface,
            backlog=self.backlog,
            workers=1 if self.development else workers,
            env_passthrough=["*"],
            timeouts=_given(
                startup=_number(self.timeout_startup),
                request=_number(self.timeout),
                keep_alive=_number(self.timeout_keep_alive),
                drain=_number(self.timeout_graceful_shutdown),
            ),
            log=_given(level=self._level),
            tls=self._tls(),
        )
        log = _given(format="console" if self.development else None, level=self._level)
        daemon = _given(on_start_failure="exit", log=log)
        return {"daemon": daemon, "services": {self._name(bento=bento): service}}

    @property
    def _level(self) -> str | None:
        return self.verbosity or ("debug" if self.development else None)

    def _tls(self) -> dict[str, Any]:
        reqs, version = self.ssl_cert_reqs, self.ssl_version
        if version is not None and version not in _VERSIONS:
            raise UsageError(f"--ssl-version {version}: expected TLSv1.2 or TLSv1.3")
        return _given(
            certfile=_absolute(self.ssl_certfile),
            keyfile=_absolute(self.ssl_keyfile),
            keyfile_password=self.ssl_keyfile_password,
            ca_certs=_absolute(self.ssl_ca_certs),
            client_auth=_CLIENT_AUTH.get(reqs, reqs) if reqs is not None else None,
            min_version=_VERSIONS[version] if version is not None else None,
            ciphers=self.ssl_ciphers,
        )

    def _name(self, *, bento: bool) -> str:
        """Returns the service's name: that of its module or file, or of its BentoML class."""
        source, _, attribute = self.target.rpartition(":")
        if bento and source and not source_of(source, self.directory):
            stem = source.lower()  # the name of a tag
        elif bento and source and attribute.isidentifier():
            stem = attribute.lower()
        else:
            file = os.path.basename(os.path.abspath(source or self.target))
            stem = file.removesuffix(".py").rpartition(".")[2].lower()
        name = "".join(c if c.isascii() and c.isalnum() else "-" for c in stem).strip("-")
        return name[:63] if name[:1].isalpha() else "web"


def _in_file(path: str) -> dict[str, Any]:
    """Returns the table in a YAML or JSON file. Raises `UsageError`."""
    from servd.config.parse_yaml import parse_yaml

    try:
        with open(path, encoding="utf-8") as file:
            parsed = parse_yaml(file.read(), path)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise UsageError(f"cannot read {path}: {reason}") from None
    for mistake in parsed.diagnostics:
        raise UsageError(mistake.summary())
    return dict(plain(parsed.root))


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None and value != {}}


def _number(text: str | None) -> int | float | str | None:
    """Converts a number for TOML; other text stays as it is, for the validation."""
    for kind in (int, float):
        with contextlib.suppress(ValueError, TypeError):  # TypeError: None
            return kind(text)  # type: ignore[arg-type]
    return text


def _absolute(path: str | None) -> str | None:
    return os.path.abspath(path) if path is not None else None


@click.command("serve")
@click.argument("target", default=".")
@click.option("--bento", is_flag=True, help="Treat TARGET as a BentoML service, if not detected.")
@click.option(
    "--host",
    envvar="BENTOML_HOST",
    metavar="HOST",
    help=f"Address to listen on.  [default: that of the code, or {EVERY_V4}]",
)
@click.option(
    "--port",
    "-p",
    envvar="BENTOML_PORT",
    type=click.IntRange(0, 65535),
    metavar="PORT",
    help="Port to listen on; 0 for a free port.  [default: that of the code, or 3000]",
)
@click.option(
    "--backlog", type=int, metavar="N", help="Maximum of pending connections.  [default: 2048]"
)
@click.option(
    "--workers",
    "--api-workers",
    "-w",
    envvar="BENTOML_API_WORKERS",
    metavar="N",
    help="Number of workers, or auto: one per CPU.  [default: 1]",
)
@click.option(
    "--timeout",
    envvar="BENTOML_TIMEOUT",
    metavar="DURATION",
    help="Time until the response begins, else 504.  [default: none]",
)
@click.option("--development", is_flag=True, help="Run one worker with verbose console logs.")
@click.option("--reload", is_flag=True, help="Restart when source files change.")
@click.option("--production", is_flag=True, hidden=True, help="On by default.")
@click.option(
    "--working-dir", metavar="FOLDER", help="Working directory, first on sys.path.  [default: .]"
)
@click.option("--ssl-certfile", type=click.Path(), metavar="FILE", help="TLS certificates (PEM).")
@click.option("--ssl-keyfile", type=click.Path(), metavar="FILE", help="TLS private key (PEM).")
@click.option("--ssl-keyfile-password", metavar="TEXT", help="Password of the private key.")
@click.option(
    "--ssl-ca-certs", type=click.Path(), metavar="FILE", help="CAs for client certificates (PEM)."
)
@click.option(
    "--ssl-cert-reqs",
    metavar="MODE",
    help="Client certificates: none, optional or required (0, 1, 2).",
)
@click.option("--ssl-version", metavar="VERSION", help="Minimum TLS version: TLSv1.2 or TLSv1.3.")
@click.option("--ssl-ciphers", metavar="LIST", help="OpenSSL cipher list.")
@click.option(
    "--timeout-startup",
    metavar="DURATION",
    help="Time until a worker is ready.  [default: 60s, or no limit for a BentoML service]",
)
@click.option(
    "--timeout-keep-alive",
    metavar="DURATION",
    help="Close idle connections after this time.  [default: 5s]",
)
@click.option(
    "--timeout-graceful-shutdown",
    metavar="DURATION",
    help="Time to finish requests when stopping.  [default: 30s]",
)
@click.option("--factory", is_flag=True, help="TARGET is a function that returns the app.")
@click.option(
    "--interface",
    type=click.Choice(["auto", "asgi3", "asgi2", "wsgi"]),
    metavar="NAME",
    help="auto, asgi3, asgi2 or wsgi.  [default: auto]",
)
@click.option(
    "--arg",
    multiple=True,
    metavar="KEY=VALUE",
    help="Argument of a BentoML service; may be repeated.",
)
@click.option(
    "--arg-file",
    type=click.Path(),
    metavar="FILE",
    help="YAML or JSON file with arguments of a BentoML service.",
)
@click.option(
    "-q", "--quiet", "verbosity", flag_value="error", help="Log errors only, as `bentoml -q`."
)
@click.option(
    "--verbose", "--debug", "verbosity", flag_value="debug", help="Log details for debugging."
)
@click.option("--do-not-track", is_flag=True, hidden=True, help="servd sends no usage data.")
@click.option("--context", "cloud_context", hidden=True, help="No effect: there is no BentoCloud.")
@click.option("--env", "environment", hidden=True, help="No effect: run servd there.")
@click.option("--print-config", is_flag=True, help="Print the equivalent configuration and exit.")
def command(
    reload: bool,
    production: bool,
    do_not_track: bool,
    cloud_context: str | None,
    environment: str | None,
    **options: Any,
) -> int:
    """Serve one app or BentoML service without a config file.

    TARGET is an app ("module:app", "path/file.py:app") or a BentoML service ("service:MyService", a
    folder, the tag of a Bento).
    """
    if cloud_context is not None:
        click.echo("servd: --context has no effect: servd uses no BentoCloud", err=True)
    if environment is not None:
        click.echo("servd: --env has no effect: run servd in that environment", err=True)
    given = ServeOptions(**options)
    begun = None if given.print_config else given.begin_description()
    from servd.config.dump import to_text

    declared = given.declared() if given.print_config and given.is_bento else None
    text = to_text(given.tables(declared), "toml")
    if given.print_config:
        click.echo(text, nl=False)
        return 0
    from servd.config.find import Disk, Source
    from servd.config.load import Loaded, load_sources

    source = Source(SOURCE, text.replace("$", "$$").encode())  # its text contains no references

    def written() -> Loaded:
        return load_sources([source], SOURCE, os.environ, Disk())

    return launch(
        LaunchOptions(
            load=written,
            development=options["development"],
            watches_sources=reload,
            runtime_dir=given.runtime_dir,
            begun=begun,
            address=given.address if given.is_bento else None,
            needs_app=not reload,
        )
    )
