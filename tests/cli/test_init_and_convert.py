"""`servd init`, `convert` and `show` write the format of the name, and servd can read it again."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from servd.config.load import Loaded, load

from support.harness import DEADLINE, command


def blocks_of(text: str) -> dict[str, list[str]]:
    """The lines of a starter that are no description, by the table that they are of, without the
    mark of a comment. Of YAML, keys are indented or one of the top.
    """
    is_toml = "[services.web]" in text
    line_of = r"# (\[.*\]|[a-z_]+ = .*)" if is_toml else r"# ( {2,}\S.*|[a-z]+: .*|[a-z]+:)"
    found: dict[str, list[str]] = {"": []}
    current = ""
    for line in text.splitlines():
        match = re.fullmatch(line_of, line)
        kept = match[1] if match else line if line[:1] not in ("", "#") else None
        if kept is None:
            continue
        opens = re.fullmatch(r"\[+([a-z.]+)\]+" if is_toml else r"( {2}[a-z]+|[a-z]+):", kept)
        if opens and opens[1] != "services":
            current = opens[1].strip().removeprefix("services.")
            found[current] = []
        found[current].append(kept)
    return found


@pytest.mark.parametrize("name", ["servd.toml", "servd.yaml"])
def test_each_line_of_init_is_its_default_when_uncommented(tmp_path: Path, name: str) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "service.py").touch()
    path = tmp_path / name
    assert command("init", name, folder=tmp_path).returncode == 0
    text = path.read_text()
    blocks = blocks_of(text)
    assert [*blocks] == ["", "web", "worker", "model", "defaults", "daemon", "admin", "hooks"]
    opening = ["services:"] if name.endswith("yaml") else []
    web = [line for line in blocks["web"] if line != "services:"][:3]

    def loaded(*lines: str) -> Loaded:
        path.write_text("\n".join(lines) + "\n")
        return load(str(path), {}).require()

    base = loaded(*opening, *web)
    assert base.diagnostics == ()
    keys = [line for line in blocks["web"] if line != "services:"][3:]
    assert len(keys) > 25
    for key in keys:
        assert loaded(*opening, *web, key).config == base.config, key
    for key in blocks[""][:2]:
        assert loaded(key, *opening, *web).config == base.config, key
    for table in ("daemon", "admin"):
        header, *keys = blocks[table]
        assert loaded(*opening, *web, header, *keys).config == base.config
    for table, needed in (("worker", 2), ("model", 2), ("hooks", 3)):
        few = loaded(*opening, *web, *blocks[table][:needed]).config
        all_of_them = loaded(*opening, *web, *blocks[table]).config
        assert few == all_of_them != base.config
    everything = loaded(
        *blocks[""], *(line for table in list(blocks)[1:] for line in blocks[table])
    )
    assert {*everything.config.services} == {"web", "worker", "model"}
    assert everything.config.services["web"] == base.config.services["web"]


def test_init_writes_the_format_that_the_name_says(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "inner").mkdir()
    for name in ("a.toml", "a.yaml", "a.yml", "a.json", "inner"):
        assert command("init", name, folder=tmp_path).returncode == 0
        assert command("check", "-c", name, folder=tmp_path).returncode == 0, name
    assert json.loads((tmp_path / "a.json").read_text())["services"]["web"]["app"] == "main:app"
    assert (tmp_path / "a.yml").read_text() == (tmp_path / "a.yaml").read_text()
    assert (tmp_path / "inner" / "servd.toml").exists()


MOVED = """
include = ["more/*.toml"]
[services.web]
app = "code/main.py:app"
env_file = "web.env"
listen = "unix:web.sock"
env = { A = "${file:word}", B = "${HOME}/x", C = "${file:/etc/hostname}" }
log.file = "${TMPDIR:-/tmp}/web.log"
[services.mod]
app = "main:app"
[services.there]
app = "main:app"
directory = "code"
python = "python3"
"""


def test_convert_keeps_paths_right_in_another_folder(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there" / "deep"
    (here / "code").mkdir(parents=True)
    (here / "more").mkdir()
    there.mkdir(parents=True)
    for name in ("main.py", "code/main.py", "web.env"):
        (here / name).touch()
    (here / "word").write_text("said")
    (here / "more" / "job.toml").write_text('[services.job]\ncommand = ["true"]\n')
    (here / "servd.toml").write_text(MOVED)
    for target in ("../there/deep", "../there/deep/new.toml"):
        done = command("convert", "servd.toml", target, folder=here)
        assert done.returncode == 0, done.stderr
    environ = {"HOME": "/root"}
    before = load(str(here / "servd.toml"), environ).require().config
    for name in ("servd.yaml", "new.toml"):
        after = load(str(there / name), environ).require().config
        assert after.services == before.services
    assert 'A = "${file:../../here/word}"' in (there / "new.toml").read_text()
    back = command("convert", str(there / "servd.yaml"), "-", folder=here)
    assert "more/*.toml" in back.stdout


def test_convert_takes_a_folder_and_standard_input(tmp_path: Path) -> None:
    parts = tmp_path / "parts"
    parts.mkdir()
    (parts / "a.toml").write_text('[services.a]\ncommand = ["true"]\nenv_file = "a.env"\n')
    (parts / "b.yaml").write_text('services: {b: {command: ["true"], depends_on: a}}\n')
    assert command("convert", "parts", "whole.yaml", folder=tmp_path).returncode == 0
    text = (tmp_path / "whole.yaml").read_text()
    assert "env_file: parts/a.env" in text
    assert "directory: parts" in text
    for given, wanted in (("a.toml", 'command:\n    - "true"'), ("b.yaml", "[services.b]")):
        done = subprocess.run(
            [sys.executable, "-m", "servd", "convert", "-", "-"], cwd=parts,
            input=(parts / given).read_text(), capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
        assert done.returncode == 0
        assert wanted.replace('"true"', "'true'") in done.stdout or wanted in done.stdout


def test_show_is_in_the_language_of_the_configuration_or_of_its_target(tmp_path: Path) -> None:
    (tmp_path / "servd.yaml").write_text('services: {a: {command: ["true"], env: {P: "a$$b"}}}\n')
    assert "services:\n  a:\n" in command("show", folder=tmp_path).stdout
    assert "[services.a]" in command("show", "--toml", folder=tmp_path).stdout
    assert '"P": "a$b"' in command("show", "--json", folder=tmp_path).stdout
    assert command("show", "-o", "x.toml", folder=tmp_path).returncode == 0
    assert "[services.a]" in (tmp_path / "x.toml").read_text()
    assert command("show", "-o", "x.json", folder=tmp_path).returncode == 0
    again = command("show", "-c", "x.json", folder=tmp_path)
    assert json.loads(again.stdout)["services"]["a"]["env"]["P"] == "a$b" or "$$" in again.stdout


TWO = """
[defaults]
workers = 2
env = { API_TOKEN = "hidden-one", COLOUR = "blue" }
[services.web]
app = "main:app"
listen = ":8000"
depends_on = "back"
[services.back]
command = ["true"]
"""


def test_show_prints_one_service_with_what_it_inherits(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    (tmp_path / "servd.toml").write_text(TWO)
    shown = command("show", "web", "--json", folder=tmp_path)
    assert "hidden-one" not in shown.stdout
    values = json.loads(shown.stdout)
    assert values["defaults"] == {"env": {"API_TOKEN": "********", "COLOUR": "blue"}}
    assert [*values["services"]] == ["web"]
    web = values["services"]["web"]
    assert (web["workers"], web["listen"]) == (2, [":8000"])
    assert "threads" not in web
    everything = command("show", "web", "--all", folder=tmp_path).stdout
    assert "threads = 40" in everything
    assert "[services.back]" not in everything
    assert "[services.back]" in command("show", folder=tmp_path).stdout
    wrong = command("show", "wbe", folder=tmp_path)
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == 'servd: unknown service "wbe". Services: back, web\n'


@pytest.mark.parametrize(
    "text",
    [
        "[services.a]\ncommand = ['true']\n",
        "# x\nservices:\n  a: {command: [sh]}\n",
        '{"services": {"a": {"command": ["sh"]}}}',
    ],
)
def test_a_configuration_may_come_from_standard_input(tmp_path: Path, text: str) -> None:
    def run(*arguments: str, given: str = text) -> Any:
        return subprocess.run(
            [sys.executable, "-m", "servd", *arguments, "-c", "-"], cwd=tmp_path, input=given,
            capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip

    assert run("check").stdout == "<standard input> is valid: a\n"
    assert run("graph").returncode == 0
    wrong = run("check", given=text.replace("command", "comand"))
    assert wrong.returncode == 78
    assert "<standard input>:" in wrong.stderr
    for arguments in (("run",), ("status",), ("reload",)):
        refused = run(*arguments)
        assert refused.returncode == 2
        assert "this command needs a file" in refused.stderr
