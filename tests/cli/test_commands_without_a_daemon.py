"""Commands that need no daemon, as a user runs them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest

from servd.cli.main import COMMANDS, servd

from support.harness import command

GOOD = """
[defaults]
workers = 2
[services.web]
app = "main:app"
listen = "127.0.0.1:8000"
depends_on = ["api"]
env = { DATABASE_PASSWORD = "hunter2", URL = "postgres://me:hunter3@db/x", PLAIN = "shown" }
[services.api]
app = "main:app"
env = { SIGNING = "${file:secret.txt}" }
"""
MISTAKES_TOML = """
[daemon]
log = { level = "loud" }
[services.web]
app = "main:app"
wrkers = 3
depends_on = ["apii"]
timeouts = { drain = "5x" }
[services.api]
app = "main:app"
listen = "localhost"
env_file = "not-there.env"
"""
MISTAKES_YAML = """
daemon:
  log: { level: loud }
services:
  web:
    app: main:app
    wrkers: 3
    depends_on: [apii]
    timeouts: { drain: 5x }
  api:
    app: main:app
    listen: localhost
    env_file: not-there.env
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "servd.toml").write_text(GOOD)
    (tmp_path / "secret.txt").write_text("hunter4\n")
    (tmp_path / "main.py").write_text("app = lambda scope: None\n")
    return tmp_path


def test_check_names_the_services_of_a_valid_file(folder: Path) -> None:
    done = command("check", folder=folder)
    assert done.returncode == 0
    assert done.stdout == "servd.toml is valid: api, web\n"


@pytest.mark.parametrize(
    ("name", "text", "places"),
    [
        ("servd.toml", MISTAKES_TOML, ["3:17", "6:1", "7:15", "8:22", "11:10", "12:12"]),
        ("servd.yaml", MISTAKES_YAML, ["3:17", "7:5", "8:18", "9:24", "12:13", "13:15"]),
    ],
)
def test_check_shows_six_mistakes_at_six_places(
    tmp_path: Path, name: str, text: str, places: list[str]
) -> None:
    """TOML and YAML give the same errors: all at once, each with its line, and exit 78."""
    (tmp_path / name).write_text(text)
    done = command("check", folder=tmp_path)
    assert done.returncode == 78
    assert [
        line.split(": ")[0].removeprefix(f"{name}:")
        for line in done.stderr.splitlines()
        if line.startswith(f"{name}:")
    ] == places
    assert 'did you mean "workers"?' in done.stderr
    assert 'did you mean "api"?' in done.stderr
    assert "6 errors" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_speaks_json(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text('[services.web]\napp = "main:app"\nwrkers = 1\n')
    done = command("check", "--json", folder=tmp_path)
    assert done.returncode == 78
    (found,) = json.loads(done.stdout)["diagnostics"]
    assert (found["line"], found["column"], found["code"]) == (3, 1, "unknown_key")
    assert found["path"] == "services.web.wrkers"


def test_check_imports_tries_each_app_in_a_process_of_its_own(folder: Path) -> None:
    assert command("check", "--imports", folder=folder).returncode == 0
    (folder / "main.py").write_text("import not_installed_anywhere\n")
    done = command("check", "--imports", folder=folder)
    assert done.returncode == 1
    assert "services.web: cannot import the app" in done.stderr
    assert "No module named 'not_installed_anywhere'" in done.stderr
    assert "servd/worker" not in done.stderr
    makes = "from prometheus_client import Counter\nCounter('calls', 'Calls')\n"
    (folder / "main.py").write_text(f"{makes}async def app(scope, receive, send): ...\n")
    done = command("check", "--imports", folder=folder)
    assert done.returncode == 0, done.stderr


def test_serve_takes_the_general_options_and_names_of_bentoml(tmp_path: Path) -> None:
    def printed(*options: str) -> dict[str, Any]:
        done = command(*options, "main:app", "--print-config", folder=tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        return tomllib.loads(done.stdout)

    plain = printed("serve")
    assert printed("serve-http") == printed("serve", "--do-not-track") == plain
    for option, level in (("-q", "error"), ("--quiet", "error"), ("--debug", "debug")):
        told = printed("serve", option)
        assert told["daemon"]["log"]["level"] == told["services"]["main"]["log"]["level"] == level
    for option, message in (("--context", "no BentoCloud"), ("--env", "in that environment")):
        done = command("serve", "main:app", "--print-config", option, "x", folder=tmp_path)
        assert tomllib.loads(done.stdout) == plain
        assert f"{option} has no effect" in done.stderr
        assert message in done.stderr
    done = command("serve-grpc", "service:svc", folder=tmp_path)
    assert done.returncode == 2
    assert "servd serves HTTP. Run gRPC as a program: command = " in done.stderr
    assert "serve-http" not in command("--help", folder=tmp_path).stdout


def test_show_is_the_effective_config_with_secrets_masked(folder: Path) -> None:
    done = command("show", folder=folder)
    shown = tomllib.loads(done.stdout)
    assert shown["services"]["api"]["workers"] == 2
    assert shown["services"]["web"]["env"]["PLAIN"] == "shown"
    for form in ((), ("--yaml",), ("--json",), ("--all",)):
        output = command("show", *form, folder=folder).stdout
        assert "hunter" not in output
        assert "shown" in output


def test_convert_there_and_back_is_the_same_configuration(folder: Path) -> None:
    import os

    from servd.config.load import load

    assert command("convert", "servd.toml", "other.yaml", folder=folder).returncode == 0
    assert command("convert", "other.yaml", "back.toml", folder=folder).returncode == 0
    text = (folder / "other.yaml").read_text()
    assert "${file:secret.txt}" in text
    assert "hunter4" not in text
    configs = [
        load(str(folder / name), os.environ).require().config
        for name in ("servd.toml", "other.yaml", "back.toml")
    ]
    assert configs[0] == configs[1] == configs[2]
    again = command("convert", "servd.toml", "other.yaml", folder=folder)
    assert again.returncode == 1
    assert "other.yaml already exists" in again.stderr


def test_graph_in_all_its_forms(folder: Path) -> None:
    text = command("graph", folder=folder).stdout
    assert text.splitlines()[1] == "└── api  (internal, 2 workers)"
    assert command("graph", "--format", "mermaid", folder=folder).stdout.startswith("flowchart")
    assert command("graph", "--format", "dot", folder=folder).stdout.startswith("digraph")
    assert json.loads(command("graph", "--json", folder=folder).stdout)["levels"] == [
        ["api"],
        ["web"],
    ]


def test_init_writes_a_config_that_is_valid_and_never_overwrites(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("app = lambda scope: None\n")
    assert command("init", folder=tmp_path).returncode == 0
    assert command("check", "--imports", folder=tmp_path).returncode == 0
    assert "# workers = 1" in (tmp_path / "servd.toml").read_text()
    again = command("init", folder=tmp_path)
    assert again.returncode == 1
    assert "servd.toml already exists" in again.stderr


def test_schema_prints_what_is_committed(tmp_path: Path) -> None:
    committed = Path(__file__).parents[2] / "schemas" / "servd.schema.json"
    assert command("schema", folder=tmp_path).stdout == committed.read_text()


def test_serve_prints_the_config_that_its_options_stand_for(tmp_path: Path) -> None:
    options = [
        "--host=127.0.0.1", "--port=8443", "--backlog=100", "--api-workers=4",
        "--timeout-keep-alive=7", "--timeout-graceful-shutdown=9",
        "--ssl-certfile=c.pem", "--ssl-keyfile=k.pem", "--ssl-keyfile-password=p",
        "--ssl-ca-certs=a.pem", "--ssl-cert-reqs=2", "--ssl-version=TLSv1.3",
        "--ssl-ciphers=HIGH", "--working-dir=.", "--timeout=60", "--print-config",
    ]  # fmt: skip
    done = command("serve", "pkg.main:app", *options, folder=tmp_path)
    assert tomllib.loads(done.stdout) == {
        "daemon": {"on_start_failure": "exit"},
        "services": {
            "main": {
                "app": "pkg.main:app",
                "listen": "127.0.0.1:8443",
                "directory": str(tmp_path),
                "backlog": 100,
                "workers": 4,
                "env_passthrough": ["*"],
                "timeouts": {"request": 60, "keep_alive": 7, "drain": 9},
                "tls": {
                    "certfile": str(tmp_path / "c.pem"),
                    "keyfile": str(tmp_path / "k.pem"),
                    "keyfile_password": "p",
                    "ca_certs": str(tmp_path / "a.pem"),
                    "client_auth": "required",
                    "min_version": "TLSv1.3",
                    "ciphers": "HIGH",
                },
            }
        },
    }


def test_serve_reports_mistakes_as_a_file_would(tmp_path: Path) -> None:
    done = command("serve", "main:app", "--timeout", "soon", "--workers", "no", folder=tmp_path)
    assert done.returncode == 78
    assert "services.main.workers: " in done.stderr
    assert "services.main.timeouts.request: " in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["chekc"], 2, 'Did you mean "check"?'),
        (["check", "--nonsense"], 2, "No such option"),
        (["check"], 78, "no configuration found"),
        (["check", "-c", "missing.toml"], 78, "missing.toml: no such file or folder"),
        (["--config", "missing.toml"], 78, "missing.toml: no such file or folder"),
        (["serve", "main:app", "--ssl-version", "3"], 2, "expected TLSv1.2 or TLSv1.3"),
        (["convert", "missing.toml", "x.yaml"], 78, "missing.toml: no such file or folder"),
    ],
)
def test_wrong_calls_end_with_their_status_and_a_clear_line(
    tmp_path: Path, arguments: list[str], status: int, words: str
) -> None:
    done = command(*arguments, folder=tmp_path)
    assert done.returncode == status
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_a_working_directory_that_is_gone_does_no_harm(folder: Path, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    line = f'rmdir "{gone}"; exec "{sys.executable}" -m servd check -c "{folder}/servd.toml"'
    done = subprocess.run(["sh", "-c", line], cwd=gone, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_two_candidates_in_one_folder_are_an_error(tmp_path: Path) -> None:
    for name in ("servd.toml", "servd.yaml"):
        (tmp_path / name).write_text("")
    done = command("check", folder=tmp_path)
    assert done.returncode == 78
    assert "found both servd.toml and servd.yaml" in done.stderr


def test_the_variable_names_the_config(folder: Path, tmp_path: Path) -> None:
    done = command("check", folder=Path("/"), environ={"SERVD_CONFIG": str(folder / "servd.toml")})
    assert done.returncode == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(tmp_path: Path, shell: str) -> None:
    done = command("completion", shell, folder=tmp_path)
    assert done.returncode == 0
    assert "_SERVD_COMPLETE" in done.stdout


def test_bash_completes_commands_and_options(tmp_path: Path) -> None:
    def complete(*words: str) -> list[str]:
        environ = {
            "_SERVD_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("servd", *words)),
            "COMP_CWORD": str(len(words)),
            "PATH": "/usr/bin:/bin",
        }
        done = subprocess.run(
            [sys.executable, "-m", "servd"],
            cwd=tmp_path, env=environ, capture_output=True, text=True,
        )  # fmt: skip
        return [line.partition(",")[2] for line in done.stdout.splitlines()]

    assert complete("gr") == ["graph"]
    assert "--format" in complete("graph", "--f")


@pytest.mark.parametrize("name", ["", "check", "graph", "show", "init", "convert", "serve", "run"])
def test_help_is_there_for_every_command(tmp_path: Path, name: str) -> None:
    done = command(*([name] if name else []), "--help", folder=tmp_path)
    assert done.returncode == 0
    assert "Usage: servd" in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_fits_80_columns_and_explains_each_option(name: str) -> None:
    found = servd.get_command(click.Context(servd), name)
    assert found is not None
    shown = servd.get_help(click.Context(servd, info_name="servd", terminal_width=80))
    (summary,) = re.findall(rf"^  {name} +(.*)$", shown, re.MULTILINE)
    assert summary.endswith("."), "it is whole"
    assert not summary.endswith("..."), "it is whole"
    context = click.Context(found, info_name=f"servd {name}", terminal_width=80)
    assert max(map(len, found.get_help(context).splitlines())) <= 80
    options = [each for each in found.params if isinstance(each, click.Option)]
    assert [each.name for each in options if not each.help] == []
