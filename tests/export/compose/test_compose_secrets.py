"""No value of a secret is in a Compose file, a Dockerfile, or what is printed with them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from support.exports import IMAGE, documents, export

VALUES = ("file-value-1", "shell-value-2", "written-value-3", "envfile-value-4", "task-value-5")
TEXT = """\
[services.web]
app = "main:app"
listen = ":8000"
env_file = ".env"
env_passthrough = ["DATABASE_URL"]

[services.web.env]
FROM_FILE = "${file:token.txt}"
FROM_SHELL = "${SHELL_VALUE}"
API_KEY = "written-value-3"
DOLLAR = "$$HOME"

[services.job]
kind = "task"
command = ["work", "--token=task-value-5"]
"""
OPTIONS = (
    ("compose", "--image", IMAGE),
    ("compose", "--image", IMAGE, "--whole"),
    ("compose", "--image", IMAGE, "--output", "out"),
    ("dockerfile",),
    ("dockerfile", "--dockerignore"),
    ("dockerfile", "--write", "--force"),
)


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(TEXT)
    (tmp_path / "token.txt").write_text("file-value-1\n")
    (tmp_path / ".env").write_text("FIRST=envfile-value-4\n")
    return tmp_path


@pytest.mark.parametrize("options", OPTIONS, ids=" ".join)
def test_no_value_of_a_secret_is_exported(shop: Path, options: tuple[str, ...]) -> None:
    done = export(shop, *options, environ={"SHELL_VALUE": "shell-value-2"})
    assert done.status == 0, done.told
    names = ("out/*", "Dockerfile", ".dockerignore")
    written = [path.read_text() for name in names for path in shop.glob(name)]
    for text in (done.text, done.told, *written):
        assert [value for value in VALUES if value in text] == []


def test_secrets_come_from_the_shell_and_from_the_env_file(shop: Path) -> None:
    environ = {"SHELL_VALUE": "shell-value-2"}
    done = export(shop, "compose", "--image", IMAGE, environ=environ)
    (content,) = documents(done.text)
    web, job = content["services"]["web"], content["services"]["job"]
    assert web["env_file"] == [{"path": "./.env"}]
    assert web["environment"] == {
        "API_KEY": "${WEB_API_KEY:?set WEB_API_KEY}",
        "DATABASE_URL": None,
        "FROM_FILE": "${WEB_FROM_FILE:?set WEB_FROM_FILE}",
        "FROM_SHELL": "${SHELL_VALUE:?set SHELL_VALUE}",
    }
    export(shop, "compose", "--image", IMAGE, "--output", "out/there", environ=environ)
    (apart,) = documents((shop / "out" / "there" / "compose.yaml").read_text())
    assert apart["services"]["web"]["env_file"] == [{"path": "../../.env"}]
    text = content["configs"]["web"]["content"]
    assert 'FIRST = "$${FIRST}"' in text
    assert 'API_KEY = "$${API_KEY}"' in text
    assert 'DOLLAR = "$$HOME"' in text
    assert job["entrypoint"] == ["work", "${JOB_COMMAND_1:?set JOB_COMMAND_1}"]
    assert "# set before `docker compose up`: export WEB_API_KEY=..." in done.told
    assert f'export WEB_FROM_FILE="$(cat {shop}/token.txt)"' in done.told


def test_the_image_is_cleared_of_what_may_be_secret(shop: Path) -> None:
    """The step of the Dockerfile, on a folder."""
    done = export(shop, "dockerfile", environ={"SHELL_VALUE": "shell-value-2"})
    step = next(line for line in done.text.splitlines() if line.startswith("RUN find /app"))
    for name in ("server.key", "deep/.env.local", "deep/id_rsa", ".git/config", "id_list.py"):
        (shop / name).parent.mkdir(exist_ok=True)
        (shop / name).write_text("x")
    left = cleared(step, shop)
    assert left == {"main.py", "servd.toml", "id_list.py"}
    assert "# not in the image, mount them below /app: .env, token.txt" in done.told


def cleared(step: str, folder: Path) -> set[str]:
    """The files that a step of the Dockerfile leaves of a folder."""
    command = step.removeprefix("RUN ").replace("/app", str(folder))
    subprocess.run(["sh", "-c", command], check=True)
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


ODD = (
    "secrets[1].txt", "it's.env", "a b.txt", "*.txt", "#x", "!x", "..x", "x ", "q?", "$HOME",
    "b\\c",
)  # fmt: skip


def test_the_image_is_cleared_of_secrets_with_odd_names(tmp_path: Path) -> None:
    for name in (*ODD, "main.py", "secrets1.txt", "kept.txt", "bc", "qq"):
        (tmp_path / name).write_text("A=1\n")
    lines = [f"V{n} = {json.dumps(f'${{file:{name}}}')}" for n, name in enumerate(ODD)]
    text = '[services.web]\napp = "main:app"\n[services.web.env]\n' + "\n".join(lines)
    (tmp_path / "servd.toml").write_text(text)
    done = export(tmp_path, "dockerfile")
    assert done.status == 0, done.told
    ignored = export(tmp_path, "dockerfile", "--dockerignore").text.splitlines()
    for line in (r"secrets\[1].txt", "it's.env", r"\*.txt", r"\#x", r"\!x", "x?", r"q\?", r"b\\c"):
        assert line in ignored
    step = next(line for line in done.text.splitlines() if line.startswith("RUN find /app"))
    left = cleared(step, tmp_path)
    assert left == {"main.py", "servd.toml", "secrets1.txt", "kept.txt", "bc", "qq"}
