"""The configuration of Ray Serve: of the samples as it was looked at, and key by key."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.exports import (
    NAMES,
    RAY_GOLDEN,
    RAY_NAMES,
    Exported,
    documents,
    export,
    export_sample,
    export_to_ray,
)  # fmt: skip

REFUSED = sorted({*NAMES} - {*RAY_NAMES})
CODE = ("--working-dir", "s3://code/app.zip")

TWO = """\
[services.web]
app = "main:app"
listen = "{web}"
depends_on = ["inner"]
{keys}

[services.api]
app = "main:app"
listen = "{api}"

[services.inner]
app = "main:app"
"""


def exported_text(folder: Path, text: str, *options: str) -> Exported:
    (folder / "servd.toml").write_text(text)
    (folder / "main.py").write_text("async def app(scope, receive, send): ...\n")
    return export(folder, "ray", *CODE, *options)


def applications(exported: Exported) -> dict[str, Any]:
    assert exported.status == 0, exported.told
    (document,) = exported.objects
    return {each["name"]: each for each in document["applications"]}


def deployment(folder: Path, keys: str) -> dict[str, Any]:
    text = TWO.format(web=":8000", api="internal", keys=keys)
    (found,) = applications(exported_text(folder, text))["web"]["deployments"]
    return dict(found)


@pytest.mark.parametrize("name", RAY_NAMES)
def test_a_sample_has_the_configuration_that_was_looked_at(tmp_path: Path, name: str) -> None:
    """`PYTHONPATH=tests .venv/bin/python -m support.exports` writes them again."""
    exported = export_to_ray(name, tmp_path)
    assert exported.status == 0, exported.told
    assert exported.text == (RAY_GOLDEN / f"{name}.yaml").read_text()


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_weaker_or_does_not_run_is_refused(tmp_path: Path, name: str) -> None:
    exported = export_sample(name, tmp_path, *CODE, engine="ray")
    assert (exported.status, exported.text) == (1, "")
    assert "nothing was written" in exported.told
    if name == "tls":
        assert "tls.client_auth: not carried over to Ray Serve: Ray verifies no" in exported.told


def test_what_is_lost_is_listed_with_its_place_and_an_error_with_strict(tmp_path: Path) -> None:
    text = '[services.web]\napp = "main:app"\nlisten = ":80"\nwatchdog = "5s"\n'
    exported = exported_text(tmp_path, text)
    place = "servd.toml:4:1: warning: services.web.watchdog: not carried over to Ray Serve: "
    assert exported.status == 0
    assert place + "Ray watches no event loop" in exported.told
    strict = exported_text(tmp_path, text, "--strict")
    assert (strict.status, strict.text) == (1, "")


def test_one_port_serves_everything_and_internal_services_have_no_route(tmp_path: Path) -> None:
    exported = exported_text(tmp_path, TWO.format(web=":8000", api=":9000", keys=""))
    routes = {name: each["route_prefix"] for name, each in applications(exported).items()}
    assert routes == {"web": "/", "api": "/api", "inner": None}
    assert list(routes)[-1] != "inner"  # a dependency comes before its dependents
    (document,) = exported.objects
    assert document["http_options"] == {
        "host": "0.0.0.0", "port": 8000, "keep_alive_timeout_s": 5,
    }  # fmt: skip
    assert "servd.toml:9:10: warning: services.api.listen: Ray serves one port" in exported.told


def test_what_only_this_machine_may_reach_is_not_opened_to_others(tmp_path: Path) -> None:
    closed = exported_text(tmp_path, TWO.format(web=":8000", api="127.0.0.1:9000", keys=""))
    assert closed.status == 1
    assert "127.0.0.1:9000 would be reached at every interface" in closed.told
    both = exported_text(tmp_path, TWO.format(web="127.0.0.1:80", api="127.0.0.1:81", keys=""))
    assert both.objects[0]["http_options"]["host"] == "127.0.0.1"


def test_a_secret_is_refused_and_no_output_has_it(tmp_path: Path) -> None:
    keys = 'env = { API_TOKEN = "hunter2", LEVEL = "info" }'
    exported = exported_text(tmp_path, TWO.format(web=":8000", api="internal", keys=keys))
    assert exported.status == 1
    assert "services.web.env.API_TOKEN: not carried over to Ray Serve: a secret" in exported.told
    assert 'env_passthrough = ["API_TOKEN"]' in exported.told
    assert "hunter2" not in exported.told + exported.text


def test_every_key_that_lost_requests_when_left_alone_is_written(tmp_path: Path) -> None:
    plain = deployment(tmp_path, "")
    assert plain == {
        "name": "web", "num_replicas": 1, "max_ongoing_requests": 1000,
        "graceful_shutdown_wait_loop_s": 1, "graceful_shutdown_timeout_s": 35,
        "health_check_timeout_s": 30, "max_surge_percent": 100,
        "ray_actor_options": {"num_cpus": 1},
    }  # fmt: skip
    keys = 'health = { timeout = "1s", interval = "5s" }\nlimits = { concurrency = 4, queue = 2 }'
    limited = deployment(tmp_path, keys)
    assert (limited["health_check_period_s"], limited["health_check_timeout_s"]) == (5, 30)
    assert limited["max_ongoing_requests"] == 7
    patient = deployment(tmp_path, 'health = { timeout = "45s" }')
    assert patient["health_check_timeout_s"] == 45


@pytest.mark.parametrize(
    ("rollout", "expected"),
    [
        ('strategy = "surge"', {"max_surge_percent": 100}),
        ('max_surge = "30%"', {"max_surge_percent": 30}),
        ("max_surge = 1", {"max_surge_percent": 25}),
        (
            'strategy = "one-by-one"',
            {"max_surge_percent": 1, "rolling_update_percentage": 0.25},
        ),
        ('strategy = "recreate"', {"max_surge_percent": 0, "rolling_update_percentage": 1.0}),
    ],
)
def test_rollouts_are_those_of_servd(
    tmp_path: Path, rollout: str, expected: dict[str, float]
) -> None:
    found = deployment(tmp_path, f"workers = 4\nrollout = {{ {rollout} }}")
    kept = {key: found.get(key) for key in ("max_surge_percent", "rolling_update_percentage")}
    assert kept == {"rolling_update_percentage": None, **expected}


def test_numbers_of_replicas_and_gpus(tmp_path: Path) -> None:
    scale = 'min = 1, max = 3, target_in_flight = 2, up_after = "1s", down_after = "5s"'
    found = deployment(tmp_path, f"autoscale = {{ {scale} }}\ngpus = 0.5")
    assert found["autoscaling_config"] == {
        "min_replicas": 1, "max_replicas": 3, "target_ongoing_requests": 2,
        "look_back_period_s": 1, "upscale_delay_s": 1, "downscale_delay_s": 5,
    }  # fmt: skip
    assert "num_replicas" not in found
    assert found["ray_actor_options"] == {"num_cpus": 1, "num_gpus": 0.5}
    assert deployment(tmp_path, 'workers = "auto"')["num_replicas"] == 1
    stopped = exported_text(tmp_path, TWO.format(web=":81", api=":82", keys="workers = 0"))
    assert list(applications(stopped)) == ["api", "inner"]


def test_dependencies_are_handles_and_addresses_elsewhere(tmp_path: Path) -> None:
    text = """
        [services.web]
        app = "main:app"
        listen = ":80"
        depends_on = ["model", "inner"]

        [services.inner]
        app = "main:app"

        [services.model]
        external = "http://model.example.com:8000"
    """
    web = applications(exported_text(tmp_path, text))["web"]
    assert web["args"]["depends"] == {
        "inner": {"url": "http://inner", "engine": "ray"},
        "model": {"url": "http://model.example.com:8000"},
    }


def test_certificates_are_those_of_the_cluster(tmp_path: Path) -> None:
    tls = 'tls = { certfile = "c.pem", keyfile = "k.pem" }'
    text = TWO.format(web=":443", api="internal", keys=tls)
    (document,) = exported_text(tmp_path, text).objects
    options = document["http_options"]
    assert [options[key].rpartition("/")[2] for key in ("ssl_certfile", "ssl_keyfile")] == [
        "c.pem", "k.pem",
    ]  # fmt: skip
    mixed = exported_text(tmp_path, TWO.format(web=":443", api=":444", keys=tls))
    assert mixed.status == 1
    assert "services.api.listen: not carried over to Ray Serve: all services have" in mixed.told
    locked = tls.replace(" }", ', keyfile_password = "${PW:-x}" }')
    refused = exported_text(tmp_path, TWO.format(web=":443", api="internal", keys=locked))
    assert "keyfile_password: not carried over" in refused.told
    assert refused.status == 1


def test_a_change_of_code_changes_the_configuration(tmp_path: Path) -> None:
    text = TWO.format(web=":8000", api="internal", keys="")

    def digest() -> str:
        return str(applications(exported_text(tmp_path, text))["web"]["args"]["digest"])

    before = digest()
    (tmp_path / ".env").write_text("TOKEN=x\n")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "main.pyc").write_text("x")
    assert digest() == before
    (tmp_path / "other.py").write_text("x = 1\n")
    assert digest() != before


def test_code_below_the_folder_is_found_in_the_working_directory(tmp_path: Path) -> None:
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "main.py").write_text("")
    text = """
        [services.web]
        app = "web/main.py:app"
        directory = "web"
        listen = ":80"

        [services.other]
        app = "main:app"
        directory = "/opt"
        listen = ":80"
    """.replace('"/opt"\n        listen = ":80"', '"/opt"')
    exported = exported_text(tmp_path, text)
    web = applications(exported)["web"]
    assert (web["args"]["directory"], web["args"]["app"]) == ("web", "main.py:app")
    assert web["runtime_env"]["working_dir"] == "s3://code/app.zip"
    assert "services.other.directory: not below the folder" in exported.told


def test_kuberay_runs_the_same_configuration(tmp_path: Path) -> None:
    text = TWO.format(web=":8000", api="internal", keys="workers = 2\ngpus = 0.5")
    alone = exported_text(tmp_path, text)
    (found,) = exported_text(tmp_path, text, "--kuberay", "--image", "example.com/app:1").objects
    assert (found["apiVersion"], found["kind"]) == ("ray.io/v1", "RayService")
    assert documents(found["spec"]["serveConfigV2"]) == alone.objects
    cluster = found["spec"]["rayClusterConfig"]
    (group,) = cluster["workerGroupSpecs"]
    for part in (cluster["headGroupSpec"], group):
        (container,) = part["template"]["spec"]["containers"]
        assert container["image"] == "example.com/app:1"
        assert isinstance(part["rayStartParams"], dict)
    # two of web and one each of the others, twice for their surge
    assert container["resources"] == {
        "requests": {"cpu": 8}, "limits": {"nvidia.com/gpu": 2},
    }  # fmt: skip
    usage = export(tmp_path, "ray", "--kuberay")
    assert (usage.status, "needs --image" in usage.told) == (2, True)


def test_a_file_is_written_and_a_folder_of_every_node_is_the_default(tmp_path: Path) -> None:
    text = TWO.format(web=":8000", api="internal", keys="")
    exported_text(tmp_path, text)
    done = export(tmp_path, "ray", "--output", "serve.yaml")
    assert (done.status, done.text) == (0, "")
    (document,) = documents((tmp_path / "serve.yaml").read_text())
    assert document["applications"][0]["runtime_env"]["working_dir"] == f"local://{tmp_path}"
    wrong = export(tmp_path, "ray", "--working-dir", "code")
    assert (wrong.status, "expected a URI" in wrong.told) == (2, True)
