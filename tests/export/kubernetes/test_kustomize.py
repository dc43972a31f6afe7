"""A folder for Kustomize: names may change, and addresses change with them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest

from support.exports import documents, export, export_sample
from support.kustomize import kustomized
from support.manifests import Object, container_of, of_kind, problems

KUBECTL = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    done = export_sample("gateway", tmp_path, "--kustomize", str(tmp_path / "base"))
    assert done.status == 0, done.told
    assert sorted(Path(line).name for line in done.text.split()) == [
        "gateway.toml", "gateway.yaml", "kustomization.yaml", "names.yaml", "ranker.toml",
        "ranker.yaml", "tokenizer.toml", "tokenizer.yaml",
    ]  # fmt: skip
    return tmp_path / "base"


def hosts(objects: list[Object]) -> list[str]:
    (gateway,) = [
        one for one in of_kind(objects, "Deployment") if one["metadata"]["name"].count("gateway")
    ]
    env = container_of(gateway)["env"]
    return [each["value"] for each in env if each["name"].startswith("HOST_OF_")]


def kubectl_kustomize(folder: Path) -> list[Object]:
    done = subprocess.run(
        ["kubectl", "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    objects = documents(done.stdout)
    for one in objects:
        if not one["apiVersion"].startswith("keda.sh/"):
            kubernetes_validate.validate(one, "1.37", strict=True)
    assert problems(objects) == []
    return objects


def with_overlay(folder: Path, name: str, *lines: str) -> Path:
    overlay = folder / name
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text("\n".join(lines))
    return overlay


def test_replacements_follow_a_prefix_and_a_namespace(base: Path) -> None:
    objects = kustomized(base, prefix="prod-", namespace="shop")
    assert problems(objects) == []
    assert hosts(objects) == ["prod-tokenizer", "prod-ranker"]
    assert len(objects) == 12
    without = [{**one} for one in kustomized(base, prefix="prod-")]
    for one in of_kind(without, "Deployment"):
        for each in container_of(one).get("env", []):
            each["value"] = each["value"].replace("prod-", "")
    assert len(problems(without)) == 2  # so the check sees it


@KUBECTL
def test_kustomize_itself_makes_the_same_addresses(base: Path) -> None:
    assert hosts(kubectl_kustomize(base)) == ["tokenizer", "ranker"]
    with (base / "kustomization.yaml").open("a") as file:
        file.write("namePrefix: prod-\nnamespace: shop\n")
    objects = kubectl_kustomize(base)
    assert hosts(objects) == ["prod-tokenizer", "prod-ranker"]
    maps = of_kind(objects, "ConfigMap")
    assert all(one["immutable"] for one in maps)
    assert len({one["metadata"]["name"] for one in maps}) == 3


@KUBECTL
def test_overlays_over_overlays_make_them_too(base: Path) -> None:
    folder = base.parent
    with_overlay(folder, "prod", "namePrefix: prod-", "resources: [../base]")
    twice = with_overlay(folder, "eu", "nameSuffix: -eu", "namespace: x", "resources: [../prod]")
    assert hosts(kubectl_kustomize(twice)) == ["prod-tokenizer-eu", "prod-ranker-eu"]


@KUBECTL
def test_autoscalers_find_their_deployments_by_the_new_names(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    text = '[services.web]\napp = "main:app"\nautoscale = { min = 2 }\n'
    (tmp_path / "servd.toml").write_text(text)
    for hpa in ("cpu", "keda"):
        given = ("--image", "app:1", "--hpa", hpa, "--kustomize", hpa)
        assert export(tmp_path, "kubernetes", *given).status == 0
        overlay = with_overlay(tmp_path, f"x-{hpa}", "namePrefix: x-", f"resources: [../{hpa}]")
        objects = kubectl_kustomize(overlay)
        kinds = ("HorizontalPodAutoscaler", "ScaledObject")
        (scaler,) = of_kind(objects, *kinds)
        assert scaler["spec"]["scaleTargetRef"]["name"] == "x-web"
