"""Exports a Dockerfile: one image with servd, the code of all services and their packages."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Literal

from servd.config.tree import Path
from servd.core.diagnostics import Diagnostic, in_order
from servd.core.quick_dataclass import dataclass
from servd.export.containers.fitness import paths_elsewhere
from servd.export.containers.needs import home_variables
from servd.export.containers.options import APP_FOLDER, RUNTIME_FOLDER, USER, ExportSource
from servd.export.report import CODE, context_of, not_carried

Packages = Literal["uv.lock", "requirements.txt", "pyproject.toml", ""]

SECRET_NAMES = (
    ".env", ".env.*", "*.key", "*.pem", "*.p12", "*.pfx", "*.jks", ".netrc",
    "id_rsa", "id_ecdsa", "id_ed25519",
)  # fmt: skip
"""Names of files that may hold secrets, and are in no image."""

_BUILT_NAMES = (".git", ".venv", "venv", "__pycache__", "node_modules", ".pytest_cache")

_PLAIN = re.compile(r"[A-Za-z0-9_./][A-Za-z0-9_./-]*")
"""Paths that mean themselves everywhere."""

_FOUND_BY_ITSELF = ("servd.toml", "servd.yaml", "servd.yml")

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, slots=True)
class DockerfileOptions:
    """The version of Python, of servd, and the file that names the packages of the project."""

    python: str
    servd: str
    packages: Packages = ""


@dataclass(frozen=True, slots=True)
class DockerfileExport:
    """A Dockerfile with its .dockerignore, files that the configuration reads and that are not
    in the image, and what is not carried over.
    """

    text: str
    ignore: str
    left_out: tuple[str, ...]
    diagnostics: tuple[Diagnostic, ...]


def export_dockerfile(source: ExportSource, options: DockerfileOptions) -> DockerfileExport:
    """Returns the Dockerfile of a configuration. It is to be in the folder of the configuration."""
    found = [
        *not_carried(source.loaded, "dockerfile"),
        *_loopback(source),
        *paths_elsewhere(source),
    ]
    secrets = secret_files(source)
    return DockerfileExport(
        _text(source, options, secrets), _ignore(secrets), tuple(secrets), tuple(in_order(found))
    )


def secret_files(source: ExportSource) -> list[str]:
    """Returns the files below the folder that the configuration takes secrets from, relative."""
    config = source.as_written.config
    tables = (config.defaults, *config.services.values())
    tls = [each.tls for each in config.services.values() if each.tls is not None]
    paths = {
        *source.as_written.read,
        *(file.path for table in tables for file in table.env_file),
        *(file for each in tls for file in (each.certfile, each.keyfile, each.ca_certs)),
        config.admin.token_file,
    }
    return _inside((path for path in paths if path), source)


def _text(source: ExportSource, options: DockerfileOptions, secrets: list[str]) -> str:
    stop = math.ceil(source.plan.stop_seconds + (source.as_written.config.daemon.stop_delay or 0))
    base = f"python:{options.python}-slim"
    return "\n".join(
        [
            "# Made by `servd export dockerfile`. In this folder: docker build -t NAME .",
            "# servd is the first process: it reaps orphans and forwards signals.",
            f"FROM {base} AS build",
            "WORKDIR /src",
            *_installed(source, options),
            *(_copy(path) for path in copied(source)),
            "# what may hold secrets is in no image, whatever .dockerignore says",
            f"RUN find {APP_FOLDER} \\( {_found(secrets)} \\) -exec rm -rf {{}} +",
            "",
            f"FROM {base}",
            f"RUN useradd --system --uid {USER} --user-group --home-dir {APP_FOLDER} \\",
            "        --shell /usr/sbin/nologin servd \\",
            f"    && install -d -o servd -g servd -m 0700 {RUNTIME_FOLDER}",
            "COPY --from=build /opt/servd /opt/servd",
            f"COPY --from=build {APP_FOLDER} {APP_FOLDER}",
            "ENV PATH=/opt/servd/bin:$PATH \\",
            *_config_variable(source),
            *(f"    {n}={value} \\" for n, value in home_variables(source.plan.services).items()),
            f"    SERVD_DAEMON__RUNTIME_DIR={RUNTIME_FOLDER}",
            f"WORKDIR {APP_FOLDER}",
            f"USER {USER}:{USER}",
            *(f"EXPOSE {port}" for port in exposed(source)),
            f"# needs up to {stop} s to drain and stop: docker run --stop-timeout {stop + 10}",
            "STOPSIGNAL SIGTERM",
            'HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["servd", "status"]',
            'ENTRYPOINT ["servd"]',
            "",
        ]
    )


def _installed(source: ExportSource, options: DockerfileOptions) -> Iterator[str]:
    """Yields the steps that install servd and the packages of the project."""
    bento = any(each.bento for each in source.as_written.config.services.values())
    servd = f"'servd-serve[bentoml]=={options.servd}'" if bento else f"servd-serve=={options.servd}"
    pip = "/opt/servd/bin/python -m pip install --no-cache-dir"
    venv = "RUN python -m venv /opt/servd \\"
    if options.packages == "uv.lock":
        yield "COPY pyproject.toml uv.lock ./"
        yield venv
        yield "    && python -m pip install --no-cache-dir 'uv>=0.5' \\"
        yield "    && UV_PROJECT_ENVIRONMENT=/opt/servd uv sync --frozen --no-dev --inexact \\"
        yield "        --no-install-project --no-cache \\"
        yield f"    && {pip} {servd}"
    elif options.packages == "requirements.txt":
        yield "COPY requirements.txt ./"
        yield venv
        yield f"    && {pip} {servd} -r requirements.txt"
    elif options.packages == "pyproject.toml":
        yield "COPY pyproject.toml ./"
        yield venv
        yield "    && python -m pip install --no-cache-dir 'uv>=0.5' \\"
        yield "    && uv pip install --no-cache --python /opt/servd/bin/python \\"
        yield f"        {servd} -r pyproject.toml"
    else:
        yield venv
        yield f"    && {pip} {servd}"


def copied(source: ExportSource) -> list[str]:
    """Returns what is copied, relative: the directories of the services and the configuration."""
    services = source.as_written.config.services.values()
    folders = _inside((each.directory for each in services if not each.external), source)
    if "." in folders or not folders:
        return ["."]
    return sorted({*folders, *_inside(source.as_written.files, source)})


def _inside(paths: Iterable[str], source: ExportSource) -> list[str]:
    """Returns those of these paths that are below the folder, relative to it."""
    relative = {os.path.relpath(path, source.folder) for path in paths}
    return sorted(path for path in relative if path.split("/")[0] != "..")


def _copy(path: str) -> str:
    """Returns the step that copies a path. Docker reads a source as a pattern, and quotes and
    variables in both words.
    """
    target = f"{APP_FOLDER}/{'' if path == '.' else path}"
    if _PLAIN.fullmatch(path):
        return f"COPY {path} {target}"
    pattern = re.sub(r"[*?\[]", r"[\g<0>]", path.replace("\\", "\\\\"))
    return f"COPY {json.dumps([_escaped(word) for word in (pattern, target)], ensure_ascii=False)}"


def _escaped(text: str) -> str:
    """Returns a text in which Docker replaces nothing."""
    return re.sub(r"""[\\"'$]""", r"\\\g<0>", text)


def exposed(source: ExportSource) -> list[int]:
    """Returns the ports of the services."""
    services = source.as_written.config.services.values()
    return sorted({a.port for each in services for a in each.listen if a.kind == "tcp" and a.port})


def _config_variable(source: ExportSource) -> Iterator[str]:
    """Yields the variable that names the configuration, unless servd finds it itself."""
    path = source.as_written.path
    name = "" if os.path.isdir(path) else os.path.basename(path)
    if name not in _FOUND_BY_ITSELF:
        path = os.path.join(APP_FOLDER, name).rstrip("/")
        value = path if _PLAIN.fullmatch(path) else '"' + re.sub(r'[\\"$]', r"\\\g<0>", path) + '"'
        yield f"    SERVD_CONFIG={value} \\"


def _found(secrets: list[str]) -> str:
    names = [f"-name '{name}'" for name in (*SECRET_NAMES, *_BUILT_NAMES)]
    paths = (shlex.quote(f"{APP_FOLDER}/{_as_pattern(path)}") for path in secrets)
    return " -o ".join([*names, *(f"-path {path}" for path in paths)])


def _as_pattern(path: str) -> str:
    """Returns the pattern that matches this path alone."""
    return re.sub(r"[*?\[\\]", r"\\\g<0>", path)


def _ignored(path: str) -> str:
    """Returns the line of .dockerignore for a path: a line is no comment and no exception, and has
    no spaces at its ends.
    """
    pattern = re.sub(r"^[#!]", r"\\\g<0>", _as_pattern(path))
    return re.sub(r"^\s|\s$", "?", pattern)


def _ignore(secrets: list[str]) -> str:
    names = [f"**/{name}" for name in (*SECRET_NAMES, *_BUILT_NAMES)]
    paths = [_ignored(path) for path in secrets]
    lines = ["# what the image must not have", *names, *paths, "Dockerfile", ".dockerignore"]
    return "\n".join([*dict.fromkeys(lines), ""])


def _loopback(source: ExportSource) -> Iterator[Diagnostic]:
    """Yields a warning for each address that only the container itself reaches."""
    checked = context_of(source.loaded)
    for name, service in source.as_written.config.services.items():
        for index, address in enumerate(service.listen):
            if address.kind == "tcp" and address.host in _LOOPBACK:
                path: Path = ("services", name, "listen", index)
                message = "nothing outside the container reaches this address"
                hint = f'write ":{address.port}"'
                yield checked.problem(path, message, hint, severity="warning", code=CODE)
