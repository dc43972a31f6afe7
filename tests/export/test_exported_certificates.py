"""Certificates in other engines: of services, and of those elsewhere that they call."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

from servd.client.depends import DependencyAddress, address_of
from servd.config.load import load

from support.exports import IMAGE, Exported, documents, export
from support.manifests import container_of, of_kind, problems

TEXT = """\
[services.my_web]
app = "main:app"
listen = ":8443"
depends_on = ["far"]
tls = { certfile = "web.pem", keyfile = "web.key" }

[services.far]
external = "https://far.example.com"
tls = { ca_certs = "ca.pem", certfile = "client.pem" }

[services.trusted]
external = "https://trusted.example.com"
tls = { ca_certs = "ca.pem" }

[services.my-web2]
app = "main:app"
depends_on = ["trusted"]

[services.job]
kind = "task"
command = ["work"]
depends_on = ["far"]
"""
FAR = {
    "ca_certs": "/run/tls/far/ca.crt",
    "certfile": "/run/tls/far/tls.crt",
    "keyfile": "/run/tls/far/tls.key",
}


def exported(folder: Path, engine: str, *options: str) -> Exported:
    (folder / "main.py").touch()
    (folder / "servd.toml").write_text(TEXT)
    done = export(folder, engine, "--image", IMAGE, *options)
    assert done.status == 0, done.told
    return done


def services_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads(text)["services"]
    return found


def test_a_pod_has_the_certificates_of_what_it_calls(tmp_path: Path) -> None:
    done = exported(tmp_path, "kubernetes")
    assert problems(done.objects) == []
    texts = {
        one["metadata"]["labels"]["app.kubernetes.io/name"]: one["data"]["servd.toml"]
        for one in of_kind(done.objects, "ConfigMap")
    }
    assert services_of(texts["my-web"])["far"]["tls"] == FAR
    trusted = services_of(texts["my-web2"])["trusted"]["tls"]
    assert trusted == {"ca_certs": "/run/tls/trusted/ca.crt"}
    found = {}
    for one in of_kind(done.objects, "Deployment", "Job"):
        volumes = {v["name"]: v for v in one["spec"]["template"]["spec"]["volumes"]}
        found[one["metadata"]["labels"]["app.kubernetes.io/name"]] = {
            mount["mountPath"]: volumes[mount["name"]]["secret"]["secretName"]
            for mount in container_of(one)["volumeMounts"]
            if "secret" in volumes[mount["name"]]
        }
    assert found == {
        "my-web": {"/run/tls/my_web": "my-web-tls", "/run/tls/far": "my-web.far-tls"},
        "my-web2": {"/run/tls/trusted": "my-web2.trusted-tls"},
        "job": {"/run/tls/far": "job.far-tls"},
    }
    (job,) = of_kind(done.objects, "Job")
    environment = {each["name"]: each["value"] for each in container_of(job)["env"]}
    assert address_of("far", environment) == DependencyAddress("https://far.example.com", **FAR)
    for name, text in texts.items():
        (tmp_path / f"{name}.toml").write_text(text)
        loaded = load(str(tmp_path / f"{name}.toml"), {})
        assert [e for e in loaded.errors if e.code not in ("file", "tls")] == []
    create = "# create once: kubectl create secret generic"
    for name in ("my-web.far-tls", "job.far-tls"):
        pair = (
            f"--from-file=tls.crt={tmp_path}/client.pem --from-file=tls.key={tmp_path}/client.pem"
        )
        line = f"{create} {name} --type=kubernetes.io/tls {pair} --from-file=ca.crt="
        assert line + f"{tmp_path}/ca.pem\n" in done.told
    assert f"{create} my-web2.trusted-tls --from-file=ca.crt={tmp_path}/ca.pem\n" in done.told


def test_names_of_secrets_are_valid_with_all_services_in_one_pod(tmp_path: Path) -> None:
    done = exported(tmp_path, "kubernetes", "--whole")
    (one,) = of_kind(done.objects, "Deployment")
    volumes = one["spec"]["template"]["spec"]["volumes"]
    names = [each["secret"]["secretName"] for each in volumes if "secret" in each]
    pod = one["metadata"]["name"]
    assert names == [f"{pod}-my-web-tls", f"{pod}.far-tls", f"{pod}.trusted-tls"]
    (config,) = of_kind(done.objects, "ConfigMap")
    assert services_of(config["data"]["servd.toml"])["far"]["tls"] == FAR


def test_a_container_has_the_certificates_of_what_it_calls(tmp_path: Path) -> None:
    for options in ((), ("--whole",)):
        (content,) = documents(exported(tmp_path, "compose", *options).text)
        holders = [name for name in content["services"] if not name.endswith("2")]
        for name in holders:
            mounted = {s["source"]: s["target"] for s in content["services"][name]["secrets"]}
            assert mounted[f"{name}.far-ca.crt"] == "/run/tls/far/ca.crt"
            assert mounted[f"{name}.far-tls.key"] == "/run/tls/far/tls.key"
            assert content["secrets"][f"{name}.far-tls.key"] == {"file": "./client.pem"}
            if name in content["configs"]:
                text = content["configs"][name]["content"].replace("$$", "$")
                assert services_of(text)["far"]["tls"] == FAR
        if not options:
            environment = content["services"]["job"]["environment"]
            assert json.loads(environment["SERVD_DEPENDENCIES"])["far"]["certfile"]
