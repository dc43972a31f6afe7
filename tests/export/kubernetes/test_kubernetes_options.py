"""What the keys of a configuration become, and what the options of the command change."""

from __future__ import annotations

import textwrap
import tomllib
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from support.exports import IMAGE, Exported, documents, export, export_sample
from support.manifests import Object, container_of, of_kind, problems

APP = '[services.web]\napp = "main:app"\nlisten = ":8000"\n'


def exported(folder: Path, text: str, *options: str, status: int = 0) -> Exported:
    (folder / "main.py").touch()
    (folder / "servd.toml").write_text(textwrap.dedent(text))
    done = export(folder, "kubernetes", "--image", IMAGE, *options)
    assert done.status == status, done.told
    return done


def objects_of(folder: Path, text: str, *options: str) -> list[Object]:
    objects = exported(folder, text, *options).objects
    assert problems(objects) == []
    for each in objects:
        if "k8s.io" in each["apiVersion"] or "." not in each["apiVersion"]:
            kubernetes_validate.validate(each, "1.37", strict=True)
    return objects


def only(objects: list[Object], kind: str) -> Any:
    (found,) = of_kind(objects, kind)
    return found


def config_of(objects: list[Object]) -> dict[str, Any]:
    return tomllib.loads(only(objects, "ConfigMap")["data"]["servd.toml"])


def services_of(objects: list[Object]) -> dict[str, dict[str, Any]]:
    """The services of the configuration of each pod."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/name"]: tomllib.loads(
            one["data"]["servd.toml"]
        )["services"]
        for one in of_kind(objects, "ConfigMap")
    }


def pod_of(objects: list[Object]) -> Any:
    return only(objects, "Deployment")["spec"]["template"]["spec"]


def test_the_grace_holds_the_sleep_and_everything_that_servd_waits_for(tmp_path: Path) -> None:
    text = APP + 'timeouts = { drain = "100s", shutdown = "7s" }\n'
    objects = objects_of(tmp_path, text)
    assert pod_of(objects)["terminationGracePeriodSeconds"] == 5 + 100 + 7 + 3 + 5
    delayed = objects_of(tmp_path, f'[daemon]\nstop_delay = "12s"\n{text}')
    assert pod_of(delayed)["terminationGracePeriodSeconds"] == 12 + 100 + 7 + 3 + 5
    container = container_of(only(delayed, "Deployment"))
    assert container["lifecycle"] == {"preStop": {"sleep": {"seconds": 12}}}
    assert "stop_delay" not in config_of(delayed)["daemon"]


def test_where_the_kubelet_cannot_sleep_servd_waits(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, APP, "--kubernetes", "1.29")
    assert "lifecycle" not in container_of(only(objects, "Deployment"))
    assert config_of(objects)["daemon"]["stop_delay"] == 5
    assert pod_of(objects)["terminationGracePeriodSeconds"] == 5 + 30 + 5 + 3 + 5
    wrong = exported(tmp_path, APP, "--kubernetes", "new", status=2)
    assert "expected a version from 1.25" in wrong.told


def test_resources_are_those_of_all_workers(tmp_path: Path) -> None:
    text = APP + 'workers = 3\nlimits.memory = "1GiB"\ngpus = 1\n'
    assert container_of(only(objects_of(tmp_path, text), "Deployment"))["resources"] == {
        "requests": {"cpu": "3", "memory": "3200Mi"},
        "limits": {"memory": "6272Mi", "nvidia.com/gpu": "3"},
    }
    auto = container_of(only(objects_of(tmp_path, APP + 'workers = "auto"\n'), "Deployment"))
    assert auto["resources"] == {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}


def test_limits_are_enough_for_the_most_workers_that_servd_may_start(tmp_path: Path) -> None:
    text = """\
    [defaults]
    limits.memory = "100MiB"
    [services.web]
    app = "main:app"
    autoscale = { min = 1, max = 4 }
    [services.other]
    app = "main:app"
    """
    container = container_of(only(objects_of(tmp_path, text, "--whole"), "Deployment"))
    assert container["resources"] == {
        "requests": {"cpu": "2", "memory": "328Mi"},
        "limits": {"memory": "1128Mi"},
    }


def test_a_service_that_is_off_has_no_pods(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, APP + "workers = 0\n")
    assert only(objects, "Deployment")["spec"]["replicas"] == 0
    assert config_of(objects)["services"]["web"]["workers"] == 1


@pytest.mark.parametrize(
    ("rollout", "strategy"),
    [
        ('{ strategy = "recreate" }', {"type": "Recreate"}),
        ('{ strategy = "one-by-one" }', {"maxSurge": 1, "maxUnavailable": 0}),
        ("{ max_surge = 2 }", {"maxSurge": 2, "maxUnavailable": 0}),
        ('{ max_surge = "50%" }', {"maxSurge": "50%", "maxUnavailable": 0}),
    ],
)
def test_a_rollout_is_that_of_the_service(
    tmp_path: Path, rollout: str, strategy: dict[str, Any]
) -> None:
    objects = objects_of(tmp_path, f"{APP}rollout = {rollout}\n")
    found = only(objects, "Deployment")["spec"]["strategy"]
    assert found == strategy or found.get("rollingUpdate") == strategy


def test_ports_that_need_rights_are_others_in_the_pod(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, APP.replace('":8000"', '["0.0.0.0:80", "127.0.0.1:9464"]'))
    ports = only(objects, "Service")["spec"]["ports"]
    assert [port["port"] for port in ports] == [80, 9464]
    inside = container_of(only(objects, "Deployment"))["ports"]
    assert [port["containerPort"] for port in inside] == [8080, 9464, 9465]
    assert config_of(objects)["services"]["web"]["listen"] == [":8080", ":9464"]
    assert config_of(objects)["admin"]["metrics"] == ":9465"


GRAPH = """\
[services.web]
app = "main:app"
listen = ":8000"
depends_on = ["a_b", "store"]

[services.a_b]
app = "main:app"

[services.store]
command = ["store", "--port", "{port}"]

[services.loner]
command = ["consume"]
"""


def test_internal_services_are_reached_by_their_callers_alone(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, GRAPH)
    policies = {
        p["metadata"]["name"]: p["spec"]["ingress"] for p in of_kind(objects, "NetworkPolicy")
    }
    metrics = {"port": "metrics", "protocol": "TCP"}
    callers = [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "web"}}}]
    assert policies == {
        "web": [{"ports": [metrics, {"port": "http", "protocol": "TCP"}]}],
        "a-b": [
            {"ports": [metrics]},
            {"from": callers, "ports": [{"port": "http", "protocol": "TCP"}]},
        ],
        "store": [
            {"ports": [metrics]},
            {"from": callers, "ports": [{"port": "tcp", "protocol": "TCP"}]},
        ],
        "loner": [{"ports": [metrics]}],
    }
    assert {one["metadata"]["name"] for one in of_kind(objects, "Service")} == {
        "web",
        "a-b",
        "store",
    }
    (web,) = [d for d in of_kind(objects, "Deployment") if d["metadata"]["name"] == "web"]
    assert [each["name"] for each in container_of(web)["env"]] == [
        "HOST_OF_A_B", "SERVD_DEP_A_B", "HOST_OF_STORE", "SERVD_DEP_STORE",
    ]  # fmt: skip


def test_dependencies_are_external_at_the_address_that_the_pod_is_given(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, GRAPH)
    maps = {
        o["metadata"]["labels"]["app.kubernetes.io/name"]: o for o in of_kind(objects, "ConfigMap")
    }
    web = tomllib.loads(maps["web"]["data"]["servd.toml"])["services"]
    assert web["a_b"] == {"external": "${SERVD_DEP_A_B}"}
    assert web["store"] == {"external": "${SERVD_DEP_STORE}"}
    assert {each["condition"] for each in web["web"]["depends_on"]} == {"started"}


def test_what_is_external_stays_so(tmp_path: Path) -> None:
    text = (
        GRAPH.replace('"store"]', '"store", "far"]')
        + """
    [services.far]
    external = "http://far.example.com:8000"
    health.path = "/ready"
    """.replace("    ", "")
    )
    objects = objects_of(tmp_path, text)
    assert len(of_kind(objects, "Deployment")) == 4
    maps = {
        o["metadata"]["labels"]["app.kubernetes.io/name"]: o for o in of_kind(objects, "ConfigMap")
    }
    services = {
        name: tomllib.loads(o["data"]["servd.toml"])["services"] for name, o in maps.items()
    }
    assert [name for name, each in services.items() if "far" in each] == ["web"]
    assert services["web"]["far"]["external"] == "http://far.example.com:8000"
    assert services["web"]["far"]["health"] == {"path": "/ready"}
    assert {"service": "far"} in services["web"]["web"]["depends_on"]


@pytest.mark.parametrize(
    ("hpa", "metric"),
    [
        ("cpu", {"type": "Utilization", "averageUtilization": 70}),
        ("in-flight", {"type": "AverageValue", "averageValue": "2500m"}),
        ("keda", None),
    ],
)
def test_an_autoscaler_has_pods_with_one_worker(
    tmp_path: Path, hpa: str, metric: dict[str, Any] | None
) -> None:
    scale = '{ min = 2, max = 5, target_in_flight = 2.5, up_after = "20s", down_after = "10m" }'
    objects = objects_of(tmp_path, f"{APP}autoscale = {scale}\n", "--hpa", hpa)
    assert config_of(objects)["services"]["web"]["workers"] == 1
    assert "autoscale" not in config_of(objects)["services"]["web"]
    assert "replicas" not in only(objects, "Deployment")["spec"]
    assert only(objects, "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1
    windows = {
        "scaleUp": {"stabilizationWindowSeconds": 20},
        "scaleDown": {"stabilizationWindowSeconds": 600},
    }
    if metric is None:
        spec = only(objects, "ScaledObject")["spec"]
        assert spec["triggers"][0]["metadata"]["threshold"] == "2.5"
        assert spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"] == windows
        assert (spec["minReplicaCount"], spec["maxReplicaCount"]) == (2, 5)
        return
    spec = only(objects, "HorizontalPodAutoscaler")["spec"]
    (found,) = spec["metrics"]
    assert found.get("resource", found.get("pods"))["target"] == metric
    assert (spec["minReplicas"], spec["maxReplicas"], spec["behavior"]) == (2, 5, windows)


def test_an_autoscaler_looks_back_an_hour_at_most(tmp_path: Path) -> None:
    text = APP + 'autoscale = { min = 1, up_after = "30m", down_after = "2h" }\n'
    for hpa in ("cpu", "keda"):
        done = exported(tmp_path, text, "--hpa", hpa)
        (scaler,) = of_kind(done.objects, "HorizontalPodAutoscaler", "ScaledObject")
        spec = scaler["spec"]
        behavior = (
            spec.get("behavior") or spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]
        )
        assert behavior == {
            "scaleUp": {"stabilizationWindowSeconds": 1800},
            "scaleDown": {"stabilizationWindowSeconds": 3600},
        }
        assert (
            "servd.toml:4:42: warning: services.web.autoscale.down_after: not carried" in done.told
        )
    assert exported(tmp_path, text, "--strict", status=1).text == ""


def test_a_program_that_inherits_autoscale_is_one_pod(tmp_path: Path) -> None:
    text = """\
    [defaults]
    autoscale = { min = 2, max = 5 }

    [services.store]
    command = ["store"]
    limits.memory = "100MiB"
    """
    objects = objects_of(tmp_path, text)
    assert of_kind(objects, "HorizontalPodAutoscaler", "PodDisruptionBudget") == []
    deployment = only(objects, "Deployment")
    assert deployment["spec"]["replicas"] == 1
    assert "workers" not in config_of(objects)["services"]["store"]
    assert container_of(deployment)["resources"]["requests"] == {"cpu": "1", "memory": "228Mi"}


def test_names_that_are_one_in_kubernetes_are_refused(tmp_path: Path) -> None:
    text = '[services.a_b]\napp = "main:app"\n[services.a-b]\napp = "main:app"\n'
    done = exported(tmp_path, text, status=1)
    assert 'servd.toml:3:11: services.a-b: the name "a-b" in Kubernetes is also' in done.told
    assert done.text == ""


def test_what_does_not_hold_in_pods_of_their_own_is_told(tmp_path: Path) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "here").mkdir()
    text = """\
    [services.store]
    command = ["store"]
    listen = "127.0.0.1:6379"

    [services.web]
    app = "main:app"
    directory = "../code"
    env = { STORE = "redis://localhost:6379/0", OTHER = "http://127.0.0.1:63790" }
    depends_on = ["secure"]
    proxy = { headers = true, trusted = ["unix"] }

    [services.secure]
    app = "main:app"
    listen = ":8443"
    tls = { certfile = "c.pem" }
    """
    told = exported(tmp_path / "here", text).told
    assert f"7:13: warning: services.web.directory: {tmp_path}/code is not below" in told
    assert '8:17: warning: services.web.env.STORE: localhost:6379 is service "store"' in told
    assert "63790 is" not in told
    assert '9:15: warning: services.web.depends_on[0]: service "secure" is reached by HTTPS' in told
    assert "services.web.proxy.trusted: not carried over to Kubernetes" in told
    whole = exported(tmp_path / "here", text, "--whole").told
    assert "is not below" in whole
    assert "localhost:6379 is" not in whole
    assert "by HTTPS" not in whole
    assert "trusted" not in whole


def test_strict_writes_nothing_where_something_is_lost(tmp_path: Path) -> None:
    text = APP + 'user = "root"\n'
    done = exported(tmp_path, text)
    assert "servd.toml:4:1: warning: services.web.user: not carried over to Kubernetes" in done.told
    assert "user" not in config_of(done.objects)["services"]["web"]
    strict = exported(tmp_path, text, "--strict", "--kustomize", "out", status=1)
    assert strict.text == ""
    assert not (tmp_path / "out").exists()
    assert "nothing was written: 1 key is not carried over" in strict.told
    assert exported(tmp_path, APP, "--strict").objects


def test_what_is_refused_is_an_error_without_strict_too(tmp_path: Path) -> None:
    done = exported(tmp_path, APP + 'gpus = ["0"]\n', status=1)
    assert done.text == ""
    assert "services.web.gpus: not carried over to Kubernetes: the scheduler" in done.told


def test_a_task_is_a_job_that_runs_the_program_itself(tmp_path: Path) -> None:
    text = """\
    [services.migrate]
    kind = "task"
    command = ["python3", "migrate.py", "--as", "$$(whoami)"]
    env = { STEP = "1", DB_PASSWORD = "hunter2" }
    timeouts = { startup = "3m" }

    [services.web]
    app = "main:app"
    depends_on = [{ service = "migrate", condition = "completed" }]
    """
    done = exported(tmp_path, text)
    assert "hunter2" not in done.text + done.told
    assert "nothing waits for a Job" in done.told
    job = only(done.objects, "Job")
    container = container_of(job)
    assert container["command"] == ["python3", "migrate.py", "--as", "$$(whoami)"]
    assert container["workingDir"] == "/app"
    assert container["env"] == [
        {
            "name": "DB_PASSWORD",
            "valueFrom": {"secretKeyRef": {"name": "migrate-secrets", "key": "DB_PASSWORD"}},
        },
        {"name": "STEP", "value": "1"},
    ]
    assert job["spec"]["template"]["spec"]["activeDeadlineSeconds"] == 180
    assert problems(done.objects) == []
    changed = exported(tmp_path, text.replace('STEP = "1"', 'STEP = "2"'))
    assert only(changed.objects, "Job")["metadata"]["name"] != job["metadata"]["name"]


def test_with_whole_one_pod_keeps_sockets_order_and_tasks(tmp_path: Path) -> None:
    objects = export_sample("gateway", tmp_path, "--whole", "--namespace", "shop").objects
    assert problems(objects) == []
    assert [one["kind"] for one in objects] == [
        "ConfigMap",
        "Deployment",
        "Service",
        "NetworkPolicy",
    ]
    assert {one["metadata"]["namespace"] for one in objects} == {"shop"}
    services = config_of(objects)["services"]
    assert [d["service"] for d in services["gateway"]["depends_on"]] == ["tokenizer", "ranker"]
    assert services["gateway"]["listen"] == [":3000"]
    assert services["tokenizer"].get("listen", ["internal"]) == ["internal"]
    assert "env" not in container_of(only(objects, "Deployment"))
    assert pod_of(objects)["terminationGracePeriodSeconds"] == 5 + 2 * (10 + 5 + 3) + 5


def test_a_live_configuration_keeps_its_name_and_is_watched(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, APP, "--live-config")
    one = only(objects, "ConfigMap")
    assert (one["metadata"]["name"], one.get("immutable")) == ("web-config", None)
    assert config_of(objects)["daemon"]["watch"] is True


def test_a_change_of_the_configuration_is_another_configmap(tmp_path: Path) -> None:
    names = [
        only(objects_of(tmp_path, text), "ConfigMap")["metadata"]["name"]
        for text in (APP, APP, APP + "workers = 2\n")
    ]
    assert names[0] == names[1] != names[2]


def test_a_service_monitor_finds_the_port_of_metrics(tmp_path: Path) -> None:
    objects = objects_of(tmp_path, APP, "--service-monitor")
    monitor = only(objects, "ServiceMonitor")
    service = only(objects, "Service")
    assert (
        monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    )
    ports = [port["name"] for port in service["spec"]["ports"]]
    assert monitor["spec"]["endpoints"][0]["port"] in ports


def test_readers_of_both_yaml_versions_read_the_same(tmp_path: Path) -> None:
    """`on` and `1e3` are no texts in some of them."""
    words = ["on", "1e3", "0o17", "12:30", "", "~", "two\nlines\n", "é", "y", "=", "0x1f"]
    text = f'[services.on]\nkind = "task"\ncommand = {["say", *words]!r}\n'.replace("'", '"')
    done = exported(tmp_path, text)
    assert container_of(only(done.objects, "Job"))["command"][1:] == words
    assert list(yaml.safe_load_all(done.text)) == documents(done.text)
