"""What Kustomize does with a folder: resources, a prefix, a namespace, and replacements."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

from support.exports import documents
from support.manifests import Object


def kustomized(folder: Path, *, prefix: str = "", namespace: str = "") -> list[Object]:
    """The objects of a folder as its kustomization makes them. ConfigMaps keep their short names;
    names are changed before replacements are made, as Kustomize has it.
    """
    (kustomization,) = documents((folder / "kustomization.yaml").read_text())
    objects = [
        one for file in kustomization["resources"] for one in documents((folder / file).read_text())
    ]
    for each in kustomization["configMapGenerator"]:
        (pair,) = each["files"]
        key, _, file = pair.partition("=")
        objects.append(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": each["name"]},
                "data": {key: (folder / file).read_text()},
            }
        )
    named = [_named(copy.deepcopy(one), prefix, namespace) for one in objects]
    by_old_name = {
        (one["kind"], one["metadata"]["name"]): new for one, new in zip(objects, named, strict=True)
    }
    for replacement in kustomization.get("replacements", []):
        source = replacement["source"]
        assert source["fieldPath"] == "metadata.name"
        value = by_old_name[source["kind"], source["name"]]["metadata"]["name"]
        for target in replacement["targets"]:
            select = target["select"]
            for path in target["fieldPaths"]:
                _set(by_old_name[select["kind"], select["name"]], path, value)
    return named


def _named(one: Object, prefix: str, namespace: str) -> Object:
    one["metadata"]["name"] = f"{prefix}{one['metadata']['name']}"
    if namespace:
        one["metadata"]["namespace"] = namespace
    for volume in _pod(one).get("volumes", []):
        if "configMap" in volume:
            volume["configMap"]["name"] = f"{prefix}{volume['configMap']['name']}"
    if "scaleTargetRef" in one.get("spec", {}):
        one["spec"]["scaleTargetRef"]["name"] = f"{prefix}{one['spec']['scaleTargetRef']['name']}"
    return one


def _pod(one: Object) -> Object:
    template: Object = one.get("spec", {}).get("template", {})
    found: Object = template.get("spec", {})
    return found


def _set(one: Object, path: str, value: str) -> None:
    """Sets the field at a path such as `spec.containers.[name=web].image`."""
    *way, last = path.split(".")
    found: Any = one
    for step in way:
        if step.startswith("["):
            key, _, wanted = step[1:-1].partition("=")
            (found,) = [item for item in found if item[key] == wanted]
        else:
            found = found[step]
    assert last in found, path
    found[last] = value
