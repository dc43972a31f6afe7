"""A folder for Kustomize: the objects, the configurations, and what keeps addresses right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from servd.export.containers.yaml_text import yaml_text
from servd.export.kubernetes.manifest import ExportedPod, KubernetesExport
from servd.export.kubernetes.objects import KubernetesObject
from servd.export.kubernetes.options import KubernetesOptions

_CALLERS = ("Deployment", "Job")
_NAMES = "names.yaml"


def kustomization_files(exported: KubernetesExport, options: KubernetesOptions) -> dict[str, str]:
    """Returns the text of each file by name. Kustomize makes the ConfigMaps and names them by their
    content.
    """
    files: dict[str, str] = {}
    for each in exported.pods:
        name = each.pod.name
        objects = [one for one in each.objects if one["kind"] != "ConfigMap"]
        files[f"{name}.yaml"] = yaml_text([_with_generated_name(one, each) for one in objects])
        if each.config:
            files[f"{name}.toml"] = each.config
    resources = [file for file in files if file.endswith(".yaml")]
    files[_NAMES] = yaml_text([_name_references()])
    files["kustomization.yaml"] = yaml_text([_kustomization(exported, options, resources)])
    return files


def _generated(each: ExportedPod) -> str:
    return f"{each.pod.name}-config"


def _with_generated_name(one: KubernetesObject, each: ExportedPod) -> KubernetesObject:
    """Returns a Deployment that mounts the ConfigMap by the name before its digest."""
    if one["kind"] != "Deployment":
        return one
    spec = one["spec"]["template"]["spec"]
    volumes = [
        {**volume, "configMap": {"name": _generated(each)}} if "configMap" in volume else volume
        for volume in spec["volumes"]
    ]
    template = {**one["spec"]["template"], "spec": {**spec, "volumes": volumes}}
    return {**one, "spec": {**one["spec"], "template": template}}


def _kustomization(
    exported: KubernetesExport, options: KubernetesOptions, resources: list[str]
) -> dict[str, Any]:
    generated = [each for each in exported.pods if each.config]
    found: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        **({"namespace": options.namespace} if options.namespace else {}),
        "resources": resources,
        "configurations": [_NAMES],
        "configMapGenerator": [
            {"name": _generated(each), "files": [f"servd.toml={each.pod.name}.toml"]}
            for each in generated
        ],
        "generatorOptions": (
            {"disableNameSuffixHash": True} if options.live_config else {"immutable": True}
        ),
    }
    replacements = [one for each in exported.pods for one in _replacements(each)]
    return {**found, **({"replacements": replacements} if replacements else {})}


def _replacements(each: ExportedPod) -> Iterator[dict[str, Any]]:
    """Yields what writes the names of Services into the variables of the pods that call them."""
    (caller,) = (one for one in each.objects if one["kind"] in _CALLERS)
    path = f"spec.template.spec.containers.[name={each.pod.name}].env"
    for reached in each.pod.reached:
        yield {
            "source": {"kind": "Service", "name": reached.host, "fieldPath": "metadata.name"},
            "targets": [
                {
                    "select": {"kind": caller["kind"], "name": caller["metadata"]["name"]},
                    "fieldPaths": [f"{path}.[name={reached.host_variable}].value"],
                }
            ],
        }


def _name_references() -> dict[str, Any]:
    """Returns what tells Kustomize which fields are names of other objects, so that overlays which
    set a prefix change both: replacements are made before that, and it does not know KEDA.
    """
    path = "spec/template/spec/containers/env/value"
    services = [{"path": path, "kind": kind} for kind in _CALLERS]
    scaled = [{"path": "spec/scaleTargetRef/name", "kind": "ScaledObject"}]
    return {
        "nameReference": [
            {"kind": "Service", "version": "v1", "fieldSpecs": services},
            {"kind": "Deployment", "group": "apps", "fieldSpecs": scaled},
        ]
    }
