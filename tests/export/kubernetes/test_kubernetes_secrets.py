"""No value of a secret is in what an export prints or writes, with any of its options."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from servd.cli.commands.export_kubernetes import command
from servd.config.load import load

from support.exports import IMAGE, Exported, export
from support.manifests import container_of, of_kind, problems

VALUES = (
    "file-value-1", "shell-value-2", "written-value-3", "url-value-4", "password-value-5",
    "hook-value-6", "argument-value-7", "envfile-value-8", "envfile-value-9", "token-value-10",
    "shared-value-11", "task-value-12",
)  # fmt: skip
TEXT = """\
[admin]
listen = "127.0.0.1:9000"
token = "token-value-10"

[[hooks]]
on = "crash_loop"
url = "https://example.com/hook-value-6"

[defaults]
env = { SHARED_TOKEN = "shared-value-11", PLAIN = "plain" }

[services.web]
app = "main:app"
listen = ":8000"
env_file = ".env"
env_passthrough = ["DATABASE_URL", "AWS_*"]
tls = { certfile = "c.pem", keyfile_password = "password-value-5" }
autoscale = { min = 2 }

[services.web.env]
FROM_FILE = "${file:token.txt}"
FROM_SHELL = "${SHELL_VALUE}"
API_KEY = "written-value-3"
STORE = "postgres://me:url-value-4@store/x"
OVER = "stronger than the file"
DOLLAR = "$$HOME and $${HOME}"

[services.other]
command = ["serve", "--password", "argument-value-7", "--port", "{port}"]

[services.job]
kind = "task"
command = ["work", "--token=task-value-12"]
"""
OPTIONS = (
    (), ("--whole",), ("--live-config",), ("--service-monitor",), ("--kubernetes", "1.28"),
    ("--namespace", "shop"), ("--kustomize", "out"), ("--kustomize", "out", "--whole"),
    ("--hpa", "keda"), ("--hpa", "in-flight"), ("--strict",),
)  # fmt: skip


def test_every_option_of_the_command_is_tried() -> None:
    tried = {word for options in OPTIONS for word in options if word.startswith("--")}
    known = {name for each in command.params for name in each.opts if name.startswith("--")}
    assert known - tried == {"--config", "--image"}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(TEXT)
    (tmp_path / "token.txt").write_text("file-value-1\n")
    (tmp_path / ".env").write_text("FIRST=envfile-value-8\nSECOND='envfile-value-9'\nOVER=file\n")
    return tmp_path


def exported(folder: Path, *options: str) -> Exported:
    environ = {"SHELL_VALUE": "shell-value-2"}
    return export(folder, "kubernetes", "--image", IMAGE, *options, environ=environ)


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_no_value_of_a_secret_is_written(shop: Path, options: tuple[str, ...]) -> None:
    done = exported(shop, *options)
    assert done.status == (1 if "--strict" in options else 0), done.told
    written = [path.read_text() for path in (shop / "out").glob("*")]
    assert bool(written) == ("--kustomize" in options)
    whole = "\n".join([done.text, done.told, *written])
    assert [value for value in VALUES if value in whole] == []
    assert "--strict" in options or "plain" in whole


def test_names_are_given_by_reference_and_the_commands_that_make_them_told(shop: Path) -> None:
    done = exported(shop)
    assert problems(done.objects) == []
    (web,) = [d for d in of_kind(done.objects, "Deployment") if d["metadata"]["name"] == "web"]
    names = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container_of(web)["env"]}
    assert sorted(names) == [
        "API_KEY", "DATABASE_URL", "FIRST", "FROM_FILE", "FROM_SHELL", "HOOKS_0_URL", "SECOND",
        "SHARED_TOKEN", "STORE", "TLS_KEYFILE_PASSWORD",
    ]  # fmt: skip
    assert {each["name"] for each in names.values()} == {"web-secrets"}
    assert [name for name, each in names.items() if each.get("optional")] == ["DATABASE_URL"]
    line = next(each for each in done.told.splitlines() if "generic web-secrets" in each)
    assert line.startswith("# create once: kubectl create secret generic web-secrets --from-")
    assert '--from-literal=API_KEY="$API_KEY"' in line
    assert f'--from-literal=FROM_FILE="$(cat {shop}/token.txt)"' in line
    assert '--from-literal=FROM_SHELL="$SHELL_VALUE"' in line
    assert (
        "kubectl create secret generic web-tls --type=kubernetes.io/tls"
        f" --from-file=tls.crt={shop}/c.pem --from-file=tls.key={shop}/c.pem" in done.told
    )


def test_servd_in_the_pod_finds_the_values_where_they_are_referred_to(shop: Path) -> None:
    """The exported configuration, with the variables of the Secret, means what the user wrote."""
    done = exported(shop)
    texts = {
        one["metadata"]["labels"]["app.kubernetes.io/name"]: one["data"]["servd.toml"]
        for one in of_kind(done.objects, "ConfigMap")
    }
    values = {
        "FROM_FILE": "file-value-1", "FROM_SHELL": "shell-value-2", "API_KEY": "written-value-3",
        "STORE": "postgres://me:url-value-4@store/x", "SHARED_TOKEN": "shared-value-11",
        "TLS_KEYFILE_PASSWORD": "password-value-5", "FIRST": "envfile-value-8",
        "SECOND": "envfile-value-9", "HOOKS_0_URL": "https://example.com/hook-value-6",
        "COMMAND_2": "argument-value-7",
    }  # fmt: skip
    pods = {name: loaded_in_pod(shop / name, text, values) for name, text in texts.items()}
    web = pods["web"].services["web"]
    assert web.env == {
        "FROM_FILE": "file-value-1", "FROM_SHELL": "shell-value-2", "API_KEY": "written-value-3",
        "STORE": "postgres://me:url-value-4@store/x", "OVER": "stronger than the file",
        "DOLLAR": "$HOME and ${HOME}", "SHARED_TOKEN": "shared-value-11", "PLAIN": "plain",
        "FIRST": "envfile-value-8", "SECOND": "envfile-value-9",
    }  # fmt: skip
    assert web.env_passthrough == ("DATABASE_URL",)
    assert web.tls.keyfile_password == "password-value-5"
    assert pods["web"].hooks[0].url == "https://example.com/hook-value-6"
    assert pods["other"].services["other"].command[2] == "argument-value-7"
    assert "token" not in tomllib.loads(texts["web"])["admin"]


def loaded_in_pod(folder: Path, text: str, values: dict[str, str]) -> Any:
    folder.mkdir()
    (folder / "servd.toml").write_text(text)
    loaded = load(str(folder / "servd.toml"), values)
    of_language = [e for e in loaded.errors if e.code not in ("file", "tls", "user")]
    assert of_language == []
    return loaded.config
