"""The servers that are compared: how each is started, and what of them is installed."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

SERVD, PRELOAD, BEFORE = "servd", "servd, preload", "servd before"
UVICORN, GUNICORN, GUNICORN_PRELOAD = "uvicorn", "gunicorn", "gunicorn --preload"
GRANIAN, CIRCUS = "granian", "circus"


@dataclass(frozen=True)
class Setting:
    """What a server is to run: an app, as text, with so many workers.

    `lines` are further keys of the service, which only servd understands.
    """

    app: str
    workers: int
    access_log: bool = False
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Place:
    """Where one start of a server lives."""

    folder: Path
    port: int


Command = Callable[[Setting, Place], list[str]]


@dataclass(frozen=True)
class Server:
    """One that is measured; `python` is the interpreter that runs it and its app."""

    name: str
    python: Path
    command: Command

    @property
    def is_servd(self) -> bool:
        return self.name.startswith(SERVD)


def found(peers: Path | None, before: Path | None, say: Callable[[str], None]) -> Iterator[Server]:
    """The servers that can be measured; `say` is told what is left out, and why."""
    own = Path(sys.executable)
    yield servd(SERVD, own)
    if knows_preload(own):
        yield servd(PRELOAD, own, "preload = true")
    else:
        say(f"left out: {PRELOAD} (this commit has no `preload`)")
    if before is not None:
        yield servd(BEFORE, before)
    bin_folder = (peers or own.parent.parent).absolute() / "bin"
    for server, needs in _peers(bin_folder):
        missing = _missing(server.python, needs)
        if missing:
            say(f"left out: {server.name} ({missing} is not installed in {bin_folder.parent.name})")
        else:
            yield server


def servd(name: str, python: Path, *more: str) -> Server:
    def command(setting: Setting, place: Place) -> list[str]:
        access = f"log = {{ access = {str(setting.access_log).lower()} }}"
        lines = [f"workers = {setting.workers}", access, *more, *setting.lines]
        config = place.folder / "servd.toml"
        run = place.folder / "run"
        config.write_text(servd_toml(run, f"127.0.0.1:{place.port}", lines))
        return [str(python), "-m", "servd", "--config", str(config)]

    return Server(name, python, command)


def servd_toml(runtime_dir: Path, listen: str, lines: list[str], app: str = "main:app") -> str:
    """A configuration with one service, `lines` of which are its own."""
    text = "\n".join(lines)
    return (
        f'[daemon]\nruntime_dir = "{runtime_dir}"\n[services.web]\napp = "{app}"\n'
        f'listen = "{listen}"\n{text}\n'
    )


def knows_preload(python: Path) -> bool:
    """Whether a servd accepts `preload = true`; older ones say that it is a mistake."""
    with tempfile.TemporaryDirectory(prefix="sb", dir="/tmp") as name:
        folder = Path(name)
        (folder / "main.py").write_text("app = None\n")
        config = folder / "servd.toml"
        lines = ["preload = true"]
        config.write_text(servd_toml(folder / "run", "127.0.0.1:0", lines))
        command = [str(python), "-m", "servd", "check", "--config", str(config)]
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        return done.returncode == 0


def _peers(folder: Path) -> Iterator[tuple[Server, tuple[str, ...]]]:
    """The peers of a virtual environment, and the modules that each needs besides the app's."""
    python = folder / "python"
    yield Server(UVICORN, python, lambda s, p: uvicorn(folder, s, p)), ("uvicorn",)
    needs = ("gunicorn", "uvicorn_worker")
    yield Server(GUNICORN, python, lambda s, p: gunicorn(folder, s, p)), needs
    preloading = Server(
        GUNICORN_PRELOAD, python, lambda s, p: [*gunicorn(folder, s, p), "--preload"]
    )
    yield preloading, needs
    yield Server(GRANIAN, python, lambda s, p: granian(folder, s, p)), ("granian",)
    yield Server(CIRCUS, python, lambda s, p: circus(folder, s, p)), ("circus", "uvicorn")


def _missing(python: Path, modules: tuple[str, ...]) -> str:
    """The first of the modules that an environment does not have."""
    code = (
        "import sys, importlib.util as u;"
        "print(next((m for m in sys.argv[1:] if u.find_spec(m) is None), ''))"
    )
    if not python.exists():
        return "python"
    command = [str(python), "-c", code, "fastapi", *modules]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def uvicorn(folder: Path, setting: Setting, place: Place) -> list[str]:
    quiet = [] if setting.access_log else ["--no-access-log", "--log-level", "warning"]
    return [
        str(folder / "python"), "-m", "uvicorn", "main:app", "--port", str(place.port),
        "--workers", str(setting.workers), *quiet,
    ]  # fmt: skip


def gunicorn(folder: Path, setting: Setting, place: Place) -> list[str]:
    log = ["--access-logfile", "-"] if setting.access_log else ["--log-level", "warning"]
    return [
        str(folder / "python"), "-m", "gunicorn", "main:app", "-b", f"127.0.0.1:{place.port}",
        "-w", str(setting.workers), "-k", "uvicorn_worker.UvicornWorker", *log,
    ]  # fmt: skip


def granian(folder: Path, setting: Setting, place: Place) -> list[str]:
    log = ["--access-log"] if setting.access_log else ["--log-level", "warning"]
    return [
        str(folder / "granian"), "--interface", "asgi", "--port", str(place.port),
        "--workers", str(setting.workers), "--respawn-failed-workers", *log, "main:app",
    ]  # fmt: skip


def circus(folder: Path, setting: Setting, place: Place) -> list[str]:
    ini = place.folder / "circus.ini"
    ini.write_text(circus_ini(folder, setting, place))
    return [str(folder / "circusd"), "--log-level", "error", str(ini)]


def circus_ini(folder: Path, setting: Setting, place: Place) -> str:
    """circusd with uvicorn processes on a socket that it holds."""
    quiet = "" if setting.access_log else "--no-access-log --log-level warning"
    return f"""
[circus]
endpoint = ipc://{place.folder}/circus
pubsub_endpoint = ipc://{place.folder}/pubsub
[watcher:web]
cmd = {folder}/python -m uvicorn --fd $(circus.sockets.web) {quiet} main:app
working_dir = {place.folder}
use_sockets = True
numprocesses = {setting.workers}
copy_env = True
[socket:web]
host = 127.0.0.1
port = {place.port}
"""


PACKAGES = ("servd-serve", "uvicorn", "gunicorn", "uvicorn-worker", "granian", "circus", "fastapi",
            "uvloop", "httptools")  # fmt: skip


def versions(python: Path) -> dict[str, str]:
    """The versions of an environment: Python's, and those of the packages that matter."""
    code = (
        "import json, sys, platform, importlib.metadata as m\n"
        "found = {'python': platform.python_version()}\n"
        "for name in sys.argv[1:]:\n"
        "    try: found[name] = m.version(name)\n"
        "    except m.PackageNotFoundError: pass\n"
        "print(json.dumps(found))"
    )
    command = [str(python), "-c", code, *PACKAGES]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return dict(json.loads(output))
