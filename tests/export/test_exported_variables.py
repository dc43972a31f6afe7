"""Variables of exported containers: each service has its own value, and not that of another."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

from support.exports import IMAGE, Exported, documents, export
from support.manifests import Object, container_of, of_kind


def exported(folder: Path, text: str, *options: str, **environ: str) -> Exported:
    (folder / "main.py").touch()
    (folder / "servd.toml").write_text(text)
    done = export(folder, *options, "--image", IMAGE, environ=environ)
    assert done.status == 0, done.told
    return done


def command_of(done: Exported, secret: str) -> str:
    """The options of the command that creates a Secret."""
    (line,) = (each for each in done.told.splitlines() if f" generic {secret} " in each)
    return line.partition(f" generic {secret} ")[2]


def test_the_value_of_a_file_is_that_which_servd_reads(tmp_path: Path) -> None:
    (tmp_path / "it's here").mkdir()
    (tmp_path / "it's here" / "pw.txt").write_text("word\n")
    text = '[services.web]\napp = "main:app"\nenv = { PW = "${file:it\'s here/pw.txt}" }\n'
    options = command_of(exported(tmp_path, text, "kubernetes"), "web-secrets")
    said = subprocess.run(
        ["sh", "-c", f"printf %s {options}"], cwd="/", capture_output=True, text=True, check=True
    )
    assert said.stdout == "--from-literal=PW=word"
    (line,) = (
        each for each in exported(tmp_path, text, "compose").told.splitlines() if "WEB_PW" in each
    )
    export_it = line.partition(": ")[2]
    said = subprocess.run(
        ["sh", "-c", f"{export_it}; printf %s $WEB_PW"], cwd="/", capture_output=True, text=True
    )
    assert said.stdout == "word"


def expanded(text: str) -> str:
    """What Kubernetes makes of a text without references (`expansion/expand.go`)."""
    found, at = "", 0
    while at < len(text):
        if text[at] == "$" and text[at + 1 : at + 2] == "(":
            raise AssertionError(f"{text} has a reference")
        at += 1 if text.startswith("$$", at) else 0
        found += text[at]
        at += 1
    return found


def test_kubernetes_leaves_the_dollars_of_a_task(tmp_path: Path) -> None:
    words = ["say", "$(x)", "$$(x)", "a$$b", "$$$", "$HOME", "100$"]
    spelled = [word.replace("$", "$$") for word in words]
    text = f'[services.job]\nkind = "task"\ncommand = {spelled!r}\nenv = {{ A = "$$$$x$$(y)" }}\n'
    (job,) = of_kind(exported(tmp_path, text.replace("'", '"'), "kubernetes").objects, "Job")
    container = container_of(job)
    assert [expanded(word) for word in container["command"]] == words
    assert {e["name"]: expanded(e["value"]) for e in container["env"]} == {"A": "$$x$(y)"}


WHOLE = """\
[services.a]
app = "main:app"
env = { API_TOKEN = "of-a" }

[services.b]
app = "main:app"
env_passthrough = ["API_TOKEN"]

[services.c]
app = "main:app"
depends_on = ["a"]
env = { SERVD_DEP_A_TOKEN = "of-c" }
"""


def envs_of(text: str) -> dict[str, Any]:
    return {name: one.get("env", {}) for name, one in tomllib.loads(text)["services"].items()}


def test_a_variable_that_is_passed_through_is_no_secret_of_another(tmp_path: Path) -> None:
    done = exported(tmp_path, WHOLE, "kubernetes", "--whole")
    (config,) = of_kind(done.objects, "ConfigMap")
    assert envs_of(config["data"]["servd.toml"])["a"] == {"API_TOKEN": "${A_API_TOKEN}"}
    (one,) = of_kind(done.objects, "Deployment")
    optional = {
        each["name"]: each["valueFrom"]["secretKeyRef"].get("optional", False)
        for each in container_of(one)["env"]
    }
    assert optional == {"A_API_TOKEN": False, "API_TOKEN": True, "SERVD_DEP_A_TOKEN": False}
    content = container(exported(tmp_path, WHOLE, "compose", "--whole"))
    assert content["environment"]["API_TOKEN"] is None
    assert "A_API_TOKEN" in content["environment"]


def container(done: Exported) -> Object:
    (content,) = documents(done.text)
    (found,) = content["services"].values()
    return dict(found)


def test_a_variable_of_an_env_file_keeps_its_case_and_is_not_asked_for(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("lower_key=x\nOVER=file\n")
    text = '[services.web]\napp = "main:app"\nenv_file = ".env"\nenv = { OVER = "${REAL}" }\n'
    done = exported(tmp_path, text, "compose", REAL="y")
    assert container(done)["environment"] == {"OVER": "${REAL:?set REAL}"}
    (content,) = documents(done.text)
    written = content["configs"]["web"]["content"].replace("$$", "$")
    assert envs_of(written) == {"web": {"OVER": "${OVER}", "lower_key": "${lower_key}"}}
    task = text.replace('app = "main:app"', 'kind = "task"\ncommand = ["work"]')
    assert container(exported(tmp_path, task, "compose", REAL="y"))["environment"] == {
        "OVER": "${REAL:?set REAL}"
    }


def test_a_file_of_one_service_sets_no_variable_of_another(tmp_path: Path) -> None:
    (tmp_path / "b.env").write_text("API_TOKEN=of-b\n")
    text = WHOLE.replace('env_passthrough = ["API_TOKEN"]', 'env_file = "b.env"')
    asked = container(exported(tmp_path, text, "compose", "--whole"))["environment"]
    assert {name for name in asked if "API" in name} == {"API_TOKEN", "B_API_TOKEN"}


def test_paths_of_a_task_are_those_of_the_image(tmp_path: Path) -> None:
    text = f"""\
[services.job]
kind = "task"
command = ["{tmp_path}/bin/work", "--in", "{tmp_path}", "{tmp_path}x"]
env = {{ DATA = "{tmp_path}/data", OTHER = "/srv/data" }}
"""
    command = ["/app/bin/work", "--in", "/app", f"{tmp_path}x"]
    env = {"DATA": "/app/data", "OTHER": "/srv/data"}
    (job,) = of_kind(exported(tmp_path, text, "kubernetes").objects, "Job")
    assert container_of(job)["command"] == command
    assert {each["name"]: each["value"] for each in container_of(job)["env"]} == env
    service = container(exported(tmp_path, text, "compose"))
    assert (service["entrypoint"], service["environment"]) == (command, env)


def test_a_glob_of_passed_variables_is_told_with_all_services_in_one_container(
    tmp_path: Path,
) -> None:
    text = '[services.web]\napp = "main:app"\nenv_passthrough = ["AWS_*", "HOME_*"]\n'
    for engine in ("kubernetes", "compose"):
        told = exported(tmp_path, text, engine, "--whole").told
        assert "servd.toml:3:1: warning: services.web.env_passthrough: not carried over" in told
