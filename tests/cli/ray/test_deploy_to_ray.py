"""`servd deploy --engine ray` and `servd status --engine ray`, at a dashboard that runs nothing."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.fake_ray import FakeRay, fake_ray
from support.harness import DEADLINE

CONFIG = """\
[services.web]
app = "main:app"
listen = "127.0.0.1:8000"
depends_on = ["inner"]
env = { LEVEL = "info" }

[services.inner]
app = "main:app"
depends_on = ["deepest"]

[services.deepest]
app = "main:app"
"""


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    with fake_ray() as ray:
        yield ray


class Here:
    """A folder with a configuration, and the command in it."""

    def __init__(self, folder: Path, ray: FakeRay) -> None:
        self.folder, self.ray = folder, ray
        self.write(CONFIG)
        (folder / "main.py").write_text("async def app(scope, receive, send): ...\n")
        (folder / ".env").write_text("TOKEN=hunter2\n")

    def write(self, text: str) -> None:
        (self.folder / "servd.toml").write_text(text)

    def run(self, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
        around = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        return subprocess.run(
            [sys.executable, "-m", "servd", *argv, "--engine", "ray", "--address", self.ray.url],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            env={**around, "HOME": str(self.folder), **environ},
        )

    def deployed(self, *options: str, **environ: str) -> subprocess.CompletedProcess[str]:
        done = self.run("deploy", *options, **environ)
        assert done.returncode == 0, done.stdout + done.stderr
        return done


@pytest.fixture
def here(tmp_path: Path, ray: FakeRay) -> Here:
    return Here(tmp_path, ray)


def names(document: dict[str, Any]) -> list[str]:
    return [each["name"] for each in document["applications"]]


def test_everything_is_added_in_the_order_of_the_graph(here: Here, ray: FakeRay) -> None:
    done = here.deployed()
    lines = done.stdout.splitlines()
    assert lines[:5] == [
        "+ deepest  add  internal, 1 replica",
        "+ inner    add  internal, 1 replica",
        "+ web      add  /, 1 replica",
        "",
        "3 to add, 0 to change, 0 to remove",
    ]
    assert [names(put) for put in ray.puts] == [
        ["deepest"], ["deepest", "inner"], ["deepest", "inner", "web"],
    ]  # fmt: skip
    assert lines[5:] == [
        f"{name}  {state}"
        for name in ("deepest", "inner", "web")
        for state in ("DEPLOYING 0/1", "RUNNING 1/1")
    ] + ["deployed"]
    assert ray.puts[0]["http_options"]["port"] == 8000


def test_the_code_is_uploaded_once_without_hidden_files_and_secrets(
    here: Here, ray: FakeRay
) -> None:
    for name in (".env", "server.key", "deep/cert.pem"):
        (here.folder / name).parent.mkdir(exist_ok=True)
        (here.folder / name).write_text("x")
    here.deployed()
    ((name, content),) = ray.packages.items()
    assert zipfile.ZipFile(io.BytesIO(content)).namelist() == ["main.py"]
    for config in ray.configs.values():
        assert config["runtime_env"]["working_dir"] == f"gcs://{name}"
        assert config["args"]["digest"] in name
    here.write(CONFIG.replace("info", "debug"))
    here.deployed("--working-dir", "s3://code/app.zip")
    assert list(ray.packages) == [name]
    assert ray.configs["web"]["runtime_env"]["working_dir"] == "s3://code/app.zip"


def test_every_key_that_changes_is_shown_and_nothing_else_is_touched(
    here: Here, ray: FakeRay
) -> None:
    here.deployed()
    assert here.deployed().stdout == "No changes.\n"
    here.write(CONFIG.replace("LEVEL = ", 'NAME = "x", LEVEL = '))
    assert here.deployed().stdout.splitlines() == [
        "~ web  roll",
        '    + runtime_env.env_vars.NAME  "x"',
        "",
        "0 to add, 1 to change, 0 to remove",
        "web  DEPLOYING 0/1",
        "web  RUNNING 1/1",
        "deployed",
    ]
    here.write(CONFIG.replace("env = ", "workers = 2\nenv = "))
    done = here.deployed()
    assert "~ web  roll" in done.stdout
    here.write(CONFIG.replace("env = ", "workers = 3\nenv = "))
    scaled = here.deployed().stdout.splitlines()
    assert scaled[:2] == ["~ web  scale", "    ~ num_replicas  2 -> 3"]
    (here.folder / "main.py").write_text("x = 1\n")
    assert "0 to add, 3 to change, 0 to remove" in here.deployed().stdout


def test_a_removed_service_goes_last_and_those_of_others_stay(here: Here, ray: FakeRay) -> None:
    here.deployed()
    other = {
        "name": "other", "route_prefix": "/other", "import_path": "theirs:app",
        "deployments": [{"name": "other", "num_replicas": 1}],
    }  # fmt: skip
    ray.put({"applications": [*ray.configs.values(), other]})
    ray.puts.clear()
    here.write(CONFIG.replace('depends_on = ["deepest"]', "").partition("[services.deepest]")[0])
    done = here.deployed()
    assert "- deepest  remove" in done.stdout
    assert "deepest  removed" in done.stdout
    assert "deepest" in names(ray.puts[-2])
    assert sorted(names(ray.puts[-1])) == ["inner", "other", "web"]
    assert ray.configs["other"] == other


def test_a_route_passes_to_another_service(here: Here, ray: FakeRay) -> None:
    here.deployed()
    here.write(CONFIG.replace("services.web", "services.shop"))
    done = here.deployed()
    assert "- web   remove" in done.stdout
    assert sorted(ray.configs) == ["deepest", "inner", "shop"]
    two = CONFIG + '[services.api]\napp = "main:app"\nlisten = "127.0.0.1:8001"\n'
    here.write(two)
    here.deployed()
    first = "[services.api]" + two.partition("[services.api]")[2] + CONFIG
    here.write(first)
    here.deployed()
    assert {n: c["route_prefix"] for n, c in ray.configs.items() if c["route_prefix"]} == {
        "api": "/", "web": "/web",
    }  # fmt: skip


def test_a_route_of_somebody_else_is_not_taken(here: Here, ray: FakeRay) -> None:
    other = {
        "name": "other", "route_prefix": "/", "import_path": "theirs:app",
        "deployments": [{"name": "other", "num_replicas": 1}],
    }  # fmt: skip
    ray.put({"applications": [other]})
    done = here.run("deploy")
    assert done.returncode == 1
    assert "web cannot have /: other has that route" in done.stderr
    assert ray.configs == {"other": other}


def test_a_failure_shows_the_reason_and_puts_the_last_configuration_back(
    here: Here, ray: FakeRay
) -> None:
    here.deployed()
    good = ray.configs
    ray.puts.clear()
    trace = "\n".join(f"  frame {n}" for n in range(40)) + "\nAppLoadError: no module named x"
    ray.fails = lambda config: trace if config["args"]["app"] == "broken:app" else ""
    here.write(
        CONFIG.replace('[services.inner]\napp = "main:app"', '[services.inner]\napp = "broken:app"')
    )
    done = here.run("deploy")
    assert done.returncode == 1
    assert "servd: inner failed:" in done.stderr
    assert "AppLoadError: no module named x" in done.stderr
    assert "frame 10" not in done.stderr
    assert "The previous configuration is still running." in done.stderr
    assert ray.configs == good
    assert len(ray.puts) == 2  # nothing was touched before its dependency ran


def test_a_failed_deployment_is_left_where_it_is_wanted(here: Here, ray: FakeRay) -> None:
    ray.fails = lambda config: "it does not start"
    done = here.run("deploy", "--no-rollback")
    assert (done.returncode, len(ray.puts)) == (1, 1)
    ray.fails = lambda config: "it does not start" if config["name"] == "web" else ""
    assert here.run("deploy", "--no-rollback").returncode == 1
    same = here.run("deploy", "--no-rollback")
    assert same.returncode == 1
    assert "web has failed before, and Ray does not try the same again" in same.stderr


def test_the_first_deployment_that_fails_leaves_nothing(here: Here, ray: FakeRay) -> None:
    ray.fails = lambda config: "no" if config["name"] == "web" else ""
    done = here.run("deploy")
    assert done.returncode == 1
    assert "Nothing is deployed." in done.stderr
    assert ray.configs == {}


def test_one_that_never_runs_is_a_failure_after_the_time_given(here: Here, ray: FakeRay) -> None:
    ray.steps = 10**9
    done = here.run("deploy", "--wait", "100ms")
    assert done.returncode == 1
    assert "not running after 0.1 s: deepest (DEPLOYING 0/1)" in done.stderr
    wrong = here.run("deploy", "--wait", "soon")
    assert (wrong.returncode, "is not a duration" in wrong.stderr) == (2, True)


@pytest.mark.parametrize("version", ["2.52.1", "2.9.3", "", "master"])
def test_an_older_ray_is_refused(here: Here, ray: FakeRay, version: str) -> None:
    ray.version = version
    done = here.run("deploy")
    assert (done.returncode, ray.puts) == (1, [])
    assert "servd needs 2.60 or newer" in done.stderr


def test_a_newer_ray_is_accepted(here: Here, ray: FakeRay) -> None:
    ray.version = "3.0.0rc1"
    here.deployed()


def test_the_token_is_found_where_ray_finds_it(here: Here, ray: FakeRay) -> None:
    ray.token = "sesame"
    missing = here.run("deploy")
    assert missing.returncode == 1
    assert "needs a token: set RAY_AUTH_TOKEN" in missing.stderr
    wrong = here.run("deploy", RAY_AUTH_TOKEN="other")
    assert "rejected the token" in wrong.stderr
    assert "other" not in wrong.stderr
    here.deployed(RAY_AUTH_TOKEN="sesame")
    (here.folder / "token").write_text("sesame\n")
    assert here.deployed(RAY_AUTH_TOKEN_PATH=str(here.folder / "token")).stdout
    lost = here.run("deploy", RAY_AUTH_TOKEN_PATH="/nonexistent")
    assert "RAY_AUTH_TOKEN_PATH: /nonexistent: No such file" in lost.stderr
    (here.folder / ".ray").mkdir()
    (here.folder / ".ray" / "auth_token").write_text("sesame")
    here.deployed()


def test_nothing_is_deployed_where_the_configuration_would_be_weaker(
    here: Here, ray: FakeRay
) -> None:
    tls = 'tls = { certfile = "c.pem", client_auth = "required", ca_certs = "a.pem" }'
    here.write(CONFIG.replace('env = { LEVEL = "info" }', tls))
    done = here.run("deploy")
    assert (done.returncode, ray.puts) == (1, [])
    assert "tls.client_auth: not carried over to Ray Serve" in done.stderr
    here.write(CONFIG)
    ray.http_options = {"host": "0.0.0.0", "port": 8000}
    ray.put({"applications": [{
        "name": "other", "route_prefix": "/o", "import_path": "theirs:app",
        "deployments": [{"name": "other"}],
    }]})  # fmt: skip
    ray.puts.clear()
    opened = here.run("deploy")
    assert (opened.returncode, ray.puts) == (1, [])
    assert "listen on 0.0.0.0, and the configuration says 127.0.0.1" in opened.stderr


def test_status_shows_the_same_table(here: Here, ray: FakeRay) -> None:
    here.deployed()
    ray.fails = lambda config: "a\nreason" if config["name"] == "web" else ""
    done = here.run("status", COLUMNS="100")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == f"Ray 2.60.0  {ray.url}"
    assert lines[2].split()[:3] == ["SERVICE", "STATE", "READY"]
    (row,) = (line.split() for line in lines if line.startswith("web "))
    assert row[1:3] == ["failed", "0/1"]
    assert any("reason" in line for line in lines)
    assert "http://127.0.0.1:8000" in done.stdout
    shown = json.loads(here.run("status", "inner", "--json").stdout)
    (inner,) = shown["services"]
    assert (inner["state"], inner["depends_on"]) == ("ready", ["deepest"])
    unknown = here.run("status", "nobody")
    assert (unknown.returncode, "Services: deepest, inner, web" in unknown.stderr) == (1, True)


def test_what_is_no_dashboard_is_named(here: Here, ray: FakeRay) -> None:
    ray.url += "/nothing"
    done = here.run("deploy")
    assert done.returncode == 1
    assert "answered 404" in done.stderr or "not a dashboard of Ray" in done.stderr
    ray.url = "http://127.0.0.1:1"
    down = here.run("deploy")
    assert (down.returncode, "ray start --head" in down.stderr) == (69, True)
