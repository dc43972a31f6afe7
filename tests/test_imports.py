"""What is imported, and what therefore costs time at every start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import servd


def modules_after(code: str) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`, beside those of a bare one."""
    report = "import sys, json; print(json.dumps(sorted(sys.modules)))"

    def run(source: str) -> set[str]:
        done = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, check=True
        )
        return set(json.loads(done.stdout.splitlines()[-1]))

    return run(f"{code}\n{report}") - run(report)


def test_version_imports_nothing_but_its_number() -> None:
    code = "import sys; sys.argv = ['servd', '--version']\nfrom servd.__main__ import main; main()"
    assert modules_after(code) == {
        "__future__",
        "servd",
        "servd.__main__",
        "servd._version",
        "typing",
        *modules_after("import typing"),
    }


def test_a_worker_imports_the_standard_library_and_uvicorn_only() -> None:
    """Everything that a worker without middleware, TLS or an app of its own needs."""
    code = (
        "import servd.worker.__main__, servd.worker.load_app, servd.worker.application\n"
        "import servd.worker.server"
    )
    top = {name.partition(".")[0] for name in modules_after(code)}
    foreign = {name for name in top if name not in sys.stdlib_module_names}
    with_uvicorn = {name.partition(".")[0] for name in modules_after("import uvicorn.server")}
    assert foreign - with_uvicorn == {"servd"}
    assert not foreign & {"pydantic", "circus", "fastapi", "structlog", "httpx", "cryptography"}
    parts = {n.split(".")[1] for n in modules_after(code) if n.startswith("servd.")}
    assert parts == {"_version", "core", "http", "wire", "worker"}
    leaves = {n for n in modules_after(code) if n.startswith("servd.core.")}
    assert leaves == {
        "servd.core.context",
        "servd.core.gc_tuning",
        "servd.core.lean_import",
        "servd.core.parent_death",
        "servd.core.quick_dataclass",
        "servd.core.unwell",
    }


def test_a_program_starts_through_the_standard_library_alone() -> None:
    code = "import servd.wire.listen_fds, servd.worker.channel"
    top = {name.partition(".")[0] for name in modules_after(code)}
    assert top - set(sys.stdlib_module_names) == {"servd"}


def test_the_command_line_names_its_commands_without_loading_the_rest() -> None:
    code = (
        "from servd.cli.main import COMMANDS\nimport importlib\n"
        "for name in COMMANDS: importlib.import_module('servd.cli.commands.' + name)"
    )
    heavy = {"pydantic", "circus", "fastapi", "structlog", "ruamel", "uvicorn", "cryptography"}
    assert {name.partition(".")[0] for name in modules_after(code)} & heavy == set()


def test_a_daemon_loads_nothing_for_tracebacks_in_colour() -> None:
    code = (
        "from servd.cli.launch import launch, import_structlog\n"
        "import_structlog()\nimport servd.daemon.run, servd.admin.server"
    )
    loaded = {name.partition(".")[0] for name in modules_after(code)}
    assert "structlog" in loaded
    assert not loaded & {"rich", "pygments", "attr", "better_exceptions"}
    assert "rich.console" in modules_after(f"{code}\nimport rich.console")


def test_public_names_are_sorted_and_can_be_had() -> None:
    assert servd.__all__ == sorted(servd.__all__)
    for name in servd.__all__:
        assert getattr(servd, name) is not None


def test_embedding_loads_no_command_line() -> None:
    loaded = {name.partition(".")[0] for name in modules_after("import servd; servd.serve")}
    assert "servd" in loaded
    assert not loaded & {"click", "pydantic", "circus", "fastapi", "structlog", "uvicorn"}


def modules_before_a_worker(folder: Path, config: str) -> set[str]:
    """Modules that a daemon has imported when it asks its template for the first worker."""
    # root's default folder would stay: the daemon ends without cleaning up
    runtime = tempfile.mkdtemp(prefix="si", dir="/tmp")
    (folder / "servd.toml").write_text(f'daemon.runtime_dir = "{runtime}"\n{config}')
    code = (
        "import json, os, sys\n"
        "def look(event, _):\n"
        "    if event == 'socket.sendmsg':\n"
        "        print(json.dumps(sorted(sys.modules)), flush=True)\n"
        "        os._exit(0)\n"
        "sys.addaudithook(look)\n"
        "sys.argv = ['servd', '-c', 'servd.toml']\n"
        "from servd.__main__ import main; main()"
    )
    outside = {name: value for name, value in os.environ.items() if not name.startswith("SERVD_")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env={**outside, "XDG_RUNTIME_DIR": str(folder), "TMPDIR": str(folder)},
        capture_output=True,
        text=True,
    )
    shutil.rmtree(runtime)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_a_daemon_imports_what_its_configuration_needs_before_its_first_worker(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text("app = None\n")
    loaded = modules_before_a_worker(
        tmp_path, '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\n'
    )
    top = {name.partition(".")[0] for name in loaded}
    assert "circus" in top, "the process was a worker"
    assert not top & {
        "anyio", "bentoml", "colorlog", "cryptography", "dotenv", "email", "fastapi", "greenlet",
        "html", "httpx", "pathspec", "prometheus_client", "psutil", "pydantic_settings", "rich",
        "ruamel", "ssl", "starlette", "tomli_w", "uvicorn", "watchfiles", "yaml", "zmq",
        "_hashlib", "_ssl", "bz2", "lzma",
    }  # fmt: skip
    assert not loaded & {
        "circus.commands", "circus.controller", "circus.plugins", "importlib.metadata",
        "logging.config", "logging.handlers",
        "servd.admin.app", "servd.admin.uvicorn_server", "servd.config.settings",
        "servd.daemon.metrics.prometheus", "servd.daemon.status",
    }  # fmt: skip


def test_an_app_with_preload_is_asked_for_before_the_imports_of_the_daemon(
    tmp_path: Path,
) -> None:
    (tmp_path / "main.py").write_text("app = None\n")
    loaded = modules_before_a_worker(tmp_path, '[services.web]\napp = "main:app"\npreload = true\n')
    assert "servd.plan.build" in loaded
    assert not loaded & {"circus", "servd.daemon.compose", "servd.supervisor.supervisor"}


def test_what_circus_does_without_can_be_imported_later() -> None:
    code = (
        "import servd.supervisor.circus.arbiter, sys\n"
        "before = set(sys.modules)\n"
        "import circus.controller, circus.plugins, psutil, zmq.utils.jsonapi\n"
        "assert before.isdisjoint({'circus.controller', 'psutil', 'yaml', 'zmq'})\n"
        "assert zmq.Context and psutil.Popen and circus.controller.Controller.dispatch\n"
        "import html, logging.config, logging.handlers\n"
        "assert html.escape('<') and logging.config.dictConfig and logging.handlers.SysLogHandler\n"
        "assert circus.plugins.get_plugin_cmd and zmq.utils.jsonapi.dumps({}) == b'{}'"
    )
    assert "zmq.ssh" not in modules_after("import servd.supervisor.circus.arbiter")
    modules_after(code)
