"""Manifests of the samples: as expected, valid for three versions, and right as a whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import kubernetes_validate
import pytest

from servd.config.load import load
from servd.export.containers.names import is_label, label

from support.exports import GOLDEN, NAMES, documents, export_sample
from support.manifests import Object, container_of, of_kind, problems

VERSIONS = ("1.35", "1.36", "1.37")
OBJECTS = {
    "bentoml": 4, "celery": 10, "container": 4, "gateway": 12, "hosts": 8, "minimal": 4,
    "models": 12, "nginx": 8, "socket-activation": 4, "tls": 4,
}  # fmt: skip


def golden(name: str) -> list[Object]:
    return documents((GOLDEN / f"{name}.yaml").read_text())


@pytest.mark.parametrize("name", NAMES)
def test_a_sample_has_the_manifests_that_were_looked_at(tmp_path: Path, name: str) -> None:
    """`PYTHONPATH=tests .venv/bin/python -m support.exports` writes them again."""
    exported = export_sample(name, tmp_path)
    assert exported.status == 0, exported.told
    assert exported.text == (GOLDEN / f"{name}.yaml").read_text()


def test_every_sample_has_expected_manifests() -> None:
    assert sorted(path.stem for path in GOLDEN.glob("*.yaml")) == NAMES == sorted(OBJECTS)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", NAMES)
def test_the_schemas_of_kubernetes_accept_every_object(name: str, version: str) -> None:
    objects = golden(name)
    assert len(objects) == OBJECTS[name]
    for one in objects:
        kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("name", NAMES)
def test_objects_fit_together(name: str) -> None:
    assert problems(golden(name)) == []


ADDRESSES = {
    f"SERVD_DEP_{name}": f"http://{name.lower()}:8000"
    for name in ("API", "RANKER", "REDIS", "TOKENIZER")
}


def assert_servd_accepts(objects: list[Object], folder: Path) -> None:
    maps = of_kind(objects, "ConfigMap")
    assert maps
    for one in maps:
        config = folder / "servd.toml"
        config.write_text(one["data"]["servd.toml"])
        secrets = dict.fromkeys(("REDIS_URL", "WORKER_REDIS_URL"), "redis://redis:6379")
        loaded = load(str(config), ADDRESSES | secrets)
        assert [each for each in loaded.errors if each.code not in ("file", "tls")] == []


@pytest.mark.parametrize("name", NAMES)
def test_servd_accepts_the_configuration_of_every_pod(tmp_path: Path, name: str) -> None:
    assert_servd_accepts(golden(name), tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_all_services_fit_in_one_pod(tmp_path: Path, name: str) -> None:
    exported = export_sample(name, tmp_path, "--whole")
    assert exported.status == 0, exported.told
    assert problems(exported.objects) == []
    assert len(of_kind(exported.objects, "Deployment")) == 1
    assert_servd_accepts(exported.objects, tmp_path)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("a_b", "a-b"), ("My Shop!", "my-shop"), ("2024-shop", "servd-2024-shop"), ("--", "servd"),
     ("x" * 70, "x" * 63)],
)  # fmt: skip
def test_names_become_dns_labels(name: str, shown: str) -> None:
    assert label(name) == shown
    assert is_label(shown)


def deployment(objects: list[Object], name: str = "gateway") -> Object:
    return next(d for d in of_kind(objects, "Deployment") if d["metadata"]["name"] == name)


def pod(objects: list[Object]) -> Object:
    found: Object = deployment(objects)["spec"]["template"]["spec"]
    return found


def container(objects: list[Object]) -> Object:
    return container_of(deployment(objects))


def one(objects: list[Object], kind: str, name: str = "gateway") -> Object:
    return next(o for o in of_kind(objects, kind) if o["metadata"]["name"].startswith(name))


MISTAKES: dict[str, Callable[[list[Object]], object]] = {
    "a quantity": lambda o: container(o)["resources"]["requests"].update(memory="512Mib"),
    "a name": lambda o: one(o, "Service")["metadata"].update(name="Gate_Way"),
    "a selector": lambda o: one(o, "Service")["spec"]["selector"].update(
        {"app.kubernetes.io/name": "gatewy"}
    ),
    "the selector of a Deployment": lambda o: deployment(o)["spec"]["selector"].update(
        matchLabels={"app.kubernetes.io/name": "other"}
    ),
    "a port of a Service": lambda o: one(o, "Service")["spec"]["ports"][0].update(targetPort=81),
    "a port of a probe": lambda o: container(o)["readinessProbe"]["httpGet"].update(port="admin"),
    "a grace": lambda o: pod(o).update(terminationGracePeriodSeconds=14),
    "two handlers": lambda o: container(o)["lifecycle"]["preStop"].update(
        exec={"command": ["sleep", "5"]}
    ),
    "a ConfigMap": lambda o: pod(o)["volumes"][0]["configMap"].update(name="gateway-0"),
    "a Secret": lambda o: pod(o)["volumes"].append(
        {"name": "tls", "secret": {"secretName": "web_1-tls"}}
    ),
    "a surge": lambda o: deployment(o)["spec"]["strategy"]["rollingUpdate"].update(maxSurge="lots"),
    "liveness": lambda o: container(o)["livenessProbe"]["httpGet"].update(path="/healthz"),
    "a mount": lambda o: container(o)["volumeMounts"][0].update(name="configuration"),
    "an address": lambda o: container(o)["env"][0].update(value="tokeniser"),
    "an unset variable": lambda o: container(o)["env"].pop(0),
    "a policy": lambda o: one(o, "NetworkPolicy", "ranker")["spec"]["ingress"][1].update(
        {"from": [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "web"}}}]}
    ),
    "a policy that keeps Prometheus out": lambda o: one(o, "NetworkPolicy")["spec"].update(
        ingress=[]
    ),
    "no preStop": lambda o: container(o).pop("lifecycle"),
    "an unknown key": lambda o: container(o).update(workers=2),
    "a wrong type": lambda o: deployment(o)["spec"].update(replicas="two"),
    "a missing key": lambda o: deployment(o)["spec"].pop("selector"),
    "an unknown kind": lambda o: deployment(o).update(kind="Deploiment"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_made_on_purpose_is_found(name: str) -> None:
    objects = copy.deepcopy(golden("gateway"))
    MISTAKES[name](objects)
    assert objects != golden("gateway")
    refused = 0
    for each in objects:
        try:
            kubernetes_validate.validate(each, VERSIONS[-1], strict=True)
        except (
            kubernetes_validate.ValidationError,
            kubernetes_validate.SchemaNotFoundError,
        ):
            refused += 1
    assert refused or problems(objects)
