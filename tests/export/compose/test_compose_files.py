"""`servd export compose`: the samples, what the schema says, and what runs in the containers."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from servd.config.load import load

from support.exports import (
    BENTOML_NAMES,
    EXPORTS,
    IMAGE,
    NAMES,
    Exported,
    documents,
    export,
    export_sample,
)
from support.with_bentoml import PYTHON as WITH_BENTOML

GOLDEN = EXPORTS / "compose" / "golden"
VALID = jsonschema.Draft7Validator(
    json.loads((files("check_jsonschema.builtin_schemas.vendor") / "compose-spec.json").read_text())
)
"""The schema of the Compose Specification, which check-jsonschema ships."""


def content_of(done: Exported) -> dict[str, Any]:
    """The Compose file, which the schema finds right."""
    (found,) = documents(done.text)
    assert [error.message for error in VALID.iter_errors(found)] == []
    return found


def configurations(content: dict[str, Any]) -> dict[str, str]:
    """The texts of the configurations, as Compose hands them on."""
    return {name: each["content"].replace("$$", "$") for name, each in content["configs"].items()}


def exported(folder: Path, *options: str, environ: dict[str, str] | None = None) -> Exported:
    return export(folder, "compose", "--image", IMAGE, *options, environ=environ)


def needs_bentoml(name: str) -> None:
    if name in BENTOML_NAMES and not Path(WITH_BENTOML).exists():
        pytest.skip("BentoML is not installed")


@pytest.mark.parametrize("name", NAMES)
def test_the_samples_are_exported_as_expected(name: str, tmp_path: Path) -> None:
    needs_bentoml(name)
    done = export_sample(name, tmp_path, engine="compose")
    assert done.status == 0, done.told
    assert done.text == (GOLDEN / f"{name}.yaml").read_text()
    content_of(done)


@pytest.mark.parametrize("name", NAMES)
def test_containers_of_the_samples_have_valid_configurations(name: str, tmp_path: Path) -> None:
    needs_bentoml(name)
    for options in ((), ("--whole",)):
        content = content_of(export_sample(name, tmp_path, *options, engine="compose"))
        assert options == () or len(content["services"]) == 1
        for container, text in configurations(content).items():
            service = content["services"][container]
            environ = {key: value or "" for key, value in service.get("environment", {}).items()}
            file = tmp_path / f"{name}-{container}.toml"
            # paths of the image are those of the sample here; it has no certificates
            file.write_text(text.replace('"/app', f'"{tmp_path / name}'))
            missing = ("tls", "file")  # what this machine has not, and the container has
            wrong = [one for one in load(str(file), environ).errors if one.code not in missing]
            assert [one.summary() for one in wrong] == []
            assert {s["source"] for s in service["configs"]} == {container}
            port = text.partition('metrics = ":')[2].partition('"')[0]
            assert f"127.0.0.1:{port}/readyz" in service["healthcheck"]["test"][-1]


GRAPH = """
[daemon]
stop_delay = "3s"

[services.web]
app = "main:app"
listen = ["0.0.0.0:80", "127.0.0.1:9001"]
depends_on = [
    { service = "model", condition = "ready" },
    { service = "cache", condition = "started" },
    { service = "migrate", condition = "completed" },
    "far",
]
timeouts.drain = "20s"
limits.memory = "100MiB"
workers = 2

[services.model]
app = "model:app"
depends_on = ["migrate"]
gpus = [0, 1]

[services.cache]
command = ["cache", "--port", "{port}"]

[services.migrate]
kind = "task"
command = ["migrate", "--to", "$$HEAD"]
timeouts.startup = "5m"
restart.policy = "on-failure"

[services.off]
app = "main:app"
workers = 0

[services.far]
external = "https://far.example.com"
"""


def graph(folder: Path, *options: str) -> Exported:
    (folder / "main.py").touch()
    (folder / "model.py").touch()
    (folder / "servd.toml").write_text(GRAPH)
    return exported(folder, *options)


def test_dependencies_become_conditions_which_are_reported(tmp_path: Path) -> None:
    done = graph(tmp_path)
    assert done.status == 0, done.told
    services = content_of(done)["services"]
    assert services["web"]["depends_on"] == {
        "model": {"condition": "service_healthy"},
        "cache": {"condition": "service_started"},
        "migrate": {"condition": "service_completed_successfully"},
    }
    assert services["model"]["depends_on"] == {
        "migrate": {"condition": "service_completed_successfully"}
    }
    assert "far" not in services
    told = done.told.splitlines()
    assert "web depends on model (ready): service_healthy" in told
    assert "web depends on cache (started): service_started" in told
    assert "model depends on migrate (ready): service_completed_successfully" in told
    assert services["web"]["environment"]["SERVD_DEP_MODEL"] == "http://model:8000"
    text = configurations(content_of(done))["web"]
    assert 'external = "https://far.example.com"' in text
    assert 'external = "${SERVD_DEP_MODEL}"' in text


def test_a_container_is_reached_by_its_callers_alone(tmp_path: Path) -> None:
    content = content_of(graph(tmp_path))
    services = content["services"]
    assert {name: sorted(each["networks"]) for name, each in services.items()} == {
        "web": ["cache", "migrate", "model", "web"],
        "model": ["migrate", "model"],
        "cache": ["cache"],
        "migrate": ["migrate"],
        "off": ["off"],
    }
    assert [name for name, each in services.items() if "ports" in each] == ["web"]
    assert services["web"]["ports"] == [
        {"target": 8080, "published": "80"},
        {"target": 9001, "published": "9001", "host_ip": "127.0.0.1"},
    ]
    assert sorted(content["networks"]) == ["cache", "migrate", "model", "off", "web"]


def test_a_port_is_published_on_each_of_its_hosts(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(
        '[services.web]\napp = "main:app"\ndepends_on = ["api"]\n'
        'listen = ["127.0.0.1:9000", "10.1.2.3:9000"]\n'
        '[services.api]\napp = "main:app"\nlisten = ["10.1.2.4:9000", "[::]:80", "127.0.0.1:81"]\n'
    )
    found = {name: s["ports"] for name, s in content_of(exported(tmp_path))["services"].items()}
    web = [
        {"target": 9000, "published": "9000", "host_ip": "10.1.2.3"},
        {"target": 9000, "published": "9000", "host_ip": "127.0.0.1"},
    ]
    api = {"target": 9000, "published": "9000", "host_ip": "10.1.2.4"}
    others = [
        {"target": 8080, "published": "80"},
        {"target": 8081, "published": "81", "host_ip": "127.0.0.1"},
    ]
    assert found == {"web": web, "api": [api, *others]}
    (whole,) = content_of(exported(tmp_path, "--whole"))["services"].values()
    assert [p for p in whole["ports"] if p["target"] != 9000] == [
        *others,
        *({**port, "target": 9001} for port in web),
    ]


def test_a_dependency_is_asked_at_the_port_in_its_container(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(
        '[services.web]\napp = "main:app"\ndepends_on = ["api"]\n'
        '[services.api]\napp = "main:app"\nlisten = ":80"\n'
    )
    services = content_of(exported(tmp_path))["services"]
    assert services["web"]["environment"] == {"SERVD_DEP_API": "http://api:8080"}


def test_a_container_has_no_rights_and_time_to_drain(tmp_path: Path) -> None:
    services = content_of(graph(tmp_path))["services"]
    for name, each in services.items():
        assert each["user"] == "10001:10001", name
        assert each["cap_drop"] == ["ALL"]
        assert each["security_opt"] == ["no-new-privileges:true"]
        assert "init" not in each
        assert "privileged" not in each
    web = services["web"]
    assert web["stop_grace_period"] == "36s"  # 3 + 20 + 5 + 3 s, and a margin
    assert web["deploy"]["resources"]["limits"] == {"memory": "528m"}
    assert services["model"]["deploy"]["resources"]["reservations"] == {
        "devices": [{"driver": "nvidia", "capabilities": ["gpu"], "device_ids": ["0", "1"]}]
    }
    assert services["off"]["scale"] == 0
    assert services["migrate"]["entrypoint"] == ["migrate", "--to", "$$HEAD"]
    assert services["migrate"]["restart"] == "on-failure"
    assert "healthcheck" not in services["migrate"]


def test_memory_is_enough_for_the_workers_that_servd_may_start(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(
        '[defaults]\nautoscale = { min = 1, max = 4 }\nlimits.memory = "100MiB"\n'
        '[services.web]\napp = "main:app"\n'
        '[services.store]\ncommand = ["store"]\n'
    )
    services = content_of(exported(tmp_path))["services"]
    limits = {name: s["deploy"]["resources"]["limits"]["memory"] for name, s in services.items()}
    assert limits == {"web": "928m", "store": "328m"}


def test_a_folder_has_files_of_configuration_and_a_read_only_root(tmp_path: Path) -> None:
    done = graph(tmp_path, "--output", str(tmp_path / "out"))
    assert done.status == 0, done.told
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    files = [f"servd-{name}.toml" for name in ("cache", "model", "off", "web")]
    assert names == ["compose.yaml", *files]
    (content,) = documents((tmp_path / "out" / "compose.yaml").read_text())
    assert [error.message for error in VALID.iter_errors(content)] == []
    assert all(each["read_only"] for each in content["services"].values())
    assert content["configs"]["web"] == {"file": "./servd-web.toml"}
    assert 'external = "${SERVD_DEP_MODEL}"' in (tmp_path / "out" / "servd-web.toml").read_text()


def test_what_is_lost_is_listed_with_its_place_and_is_an_error_if_strict(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(
        '[services.web]\napp = "main:app"\nlisten = "unix:/run/x.sock"\nuser = "www-data"\n'
    )
    done = exported(tmp_path)
    assert done.status == 0
    expected = "servd.toml:3:1: warning: services.web.listen: not carried over to Compose:"
    assert expected in done.told
    strict = exported(tmp_path, "--strict")
    assert (strict.status, strict.text) == (1, "")
    assert "servd.toml:4:1: " in strict.told
    assert "nothing was written: 2 keys are not carried over" in strict.told


def test_a_whole_graph_is_one_container(tmp_path: Path) -> None:
    content = content_of(graph(tmp_path, "--whole"))
    ((name, service),) = content["services"].items()
    assert "depends_on" not in service
    assert "networks" not in content
    text = configurations(content)[name]
    for each in ("web", "model", "cache", "migrate", "off", "far"):
        assert f"[services.{each}]" in text


def test_an_engine_accepts_what_is_written(tmp_path: Path) -> None:
    version = shutil.which("docker") and subprocess.run(
        ["docker", "compose", "version"], capture_output=True
    )
    if not version or version.returncode:
        pytest.skip("docker compose is not installed")
    done = graph(tmp_path, "--output", str(tmp_path))
    assert done.status == 0, done.told
    checked = subprocess.run(
        ["docker", "compose", "config", "--quiet"], cwd=tmp_path, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stderr
