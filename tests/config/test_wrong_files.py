"""Wrong configurations, and what is said about them: place, key, message and hint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tomli_w

from servd.config.load import Loaded, load
from servd.core.diagnostics import render

from support.config_cases import SPELLINGS, WRONG_FILES, spelled

ENVIRON = {"B": "from-b", "NAME": "x", "OFF": "False", "PORT": "80"}
COMMAND = '[services.a]\ncommand = ["true"]\n'
APP = '[services.a]\napp = "main:app"\n'

WRONG = [
    (
        COMMAND + "rlimits = { nofile = 9223372036854775808 }",
        '3:22 services.a.rlimits.nofile: must be at most 9223372036854775807, or "unlimited"',
    ),
    (
        COMMAND + "rlimits = { core = 99999999999999999999 }",
        '3:20 services.a.rlimits.core: must be at most 9223372036854775807, or "unlimited"',
    ),
    (
        COMMAND + 'env = { GOOD = "x", BAD = "a\\u0000b" }',
        "3:27 services.a.env.BAD: must not contain a NUL character",
    ),
    (
        '[defaults]\nenv.BAD = "\\u0000"\n' + COMMAND,
        "2:11 defaults.env.BAD: must not contain a NUL character",
    ),
    (
        APP + "cpu_affinity = [0, 99999]",
        "3:20 services.a.cpu_affinity[1]: unknown CPU 99999: this machine has CPUs 0 to ",
    ),
    (
        APP + "health = { interval = '1s', timeout = '5s' }",
        "3:39 services.a.health.timeout: is longer than interval: a slow probe delays the next one",
    ),
    (
        COMMAND + "restart = { backoff = '1m' }",
        "3:23 services.a.restart.backoff: is longer than backoff_max: it is limited to that",
    ),
    (
        APP + 'ready = "5s"',
        "3:1 services.a.ready: applies to commands only: the worker of an app reports",
    ),
    (
        COMMAND.replace('"true"', '"true", "{port}"') + 'ready = "http"',
        "3:9 services.a.ready: probes / because health is not set: write health = { path = ",
    ),
    (COMMAND + "factory = true", "3:1 services.a.factory: does not apply to a command"),
    (COMMAND + "threads = 3", "3:1 services.a.threads: does not apply to a command"),
    (
        COMMAND + 'interface = "wsgi"',
        "3:1 services.a.interface: does not apply to a command: it is for apps",
    ),
    (
        COMMAND + 'uvicorn.http = "h11"',
        "3:1 services.a.uvicorn: does not apply to a command: it is for apps",
    ),
    (
        '[services.a]\ncommand = ["x=1", "true"]\n'.replace('"x=1", "true"', '"true", "{prt}"'),
        "2:11 services.a.command: {prt} is not a placeholder and is passed on unchanged (did you "
    ),
    (
        COMMAND + 'public_url = "example.org"',
        "3:14 services.a.public_url: must begin with http:// or https://",
    ),
    (
        APP + "proxy.trusted = ['nginx']",
        '3:18 services.a.proxy.trusted[0]: "nginx" is not a peer: ',
    ),
    (
        COMMAND + 'env.A = "${A-x}"',
        '3:9 services.a.env.A: "${A-x}" is not a valid reference (write "${A:-x}")',
    ),
    (
        COMMAND + 'env.A = "${A?x}"',
        '3:9 services.a.env.A: "${A?x}" is not a valid reference (write "${A:?x}")',
    ),
    (
        COMMAND + 'env.A = "${A:-${B:-x}"',
        '3:9 services.a.env.A: "${" has no closing "}" (write "$$" for a dollar sign)',
    ),
    (
        COMMAND + 'env.A = "${A:-${C:?no ${NAME}}}"',
        "3:9 services.a.env.A: no x (set variable C)",
    ),
    (
        COMMAND + '[[hooks]]\non = ["nothing"]\ncommand = ["true"]',
        '4:7 hooks[0].on[0]: expected "service_failed", ',
    ),
]  # fmt: skip


def read(folder: Path, text: str) -> Loaded:
    (folder / "main.py").write_text("")
    (folder / "servd.toml").write_text(text)
    return load(str(folder / "servd.toml"), ENVIRON)


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_one_mistake_is_one_message_at_its_key(tmp_path: Path, text: str, said: str) -> None:
    (found,) = read(tmp_path, text).diagnostics
    hint = f" ({found.hint})" if found.hint else ""
    place = f"{found.place.line}:{found.place.column}"
    assert f"{place} {found.path}: {found.message}{hint}".startswith(said)


@pytest.mark.parametrize(
    ("value", "meant"),
    [
        ("${A:-${B:-x}}", "from-b"),
        ("${A:-${C:-x}}", "x"),
        ("${A:-${C:-${B}}}", "from-b"),
        ("${A:-<${B}>}", "<from-b>"),
        ("${A:-$$x}", "$x"),
        ("${A:-$$}", "$"),
        ("${A:-}", ""),
        ("${B:-${C}}", "from-b"),  # what is not needed is not looked at
        ("$$${B}$$", "$from-b$"),
        ("$B {B} $", "$B {B} $"),
        ("${A:-a}b}", "ab}"),
    ],
)
def test_references_may_stand_in_defaults(tmp_path: Path, value: str, meant: str) -> None:
    loaded = read(tmp_path, COMMAND + f'root_path = "{value}"')
    assert loaded.diagnostics == ()
    assert loaded.config.services["a"].root_path == meant


@pytest.mark.parametrize(("language", "text", "said"), WRONG_FILES, ids=range(len(WRONG_FILES)))
def test_what_is_wrong_is_said_once_and_at_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str, text: str, said: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = f"servd.{language}"
    Path(file).write_text(text)
    found = [each.summary() for each in load(file, {}).diagnostics]
    assert [line.removeprefix(file).lstrip(": ") for line in found] == said


@pytest.mark.parametrize(
    "text",
    [
        "[admin]\ntoken = 987654321\n" + COMMAND,
        "[admin]\ntoken = 0987654321\n" + COMMAND,
        "[admin]\ntoken = s987654321\n" + COMMAND,
        COMMAND + "env.DB_PASSWORD = x987654321",
        COMMAND + "env.DB_PASSWORD = ['987654321']",
        COMMAND + "env.DB_PASSWORD = '987654321\n",
        COMMAND + 'env = { API_KEY = "987654321\\u0000" }',
    ],
)
def test_no_message_has_a_secret_in_it(tmp_path: Path, text: str) -> None:
    loaded = read(tmp_path, text)
    assert loaded.errors
    assert "987654321" not in "".join(render(each, loaded.texts) for each in loaded.errors)


def test_the_wrong_files_are_many() -> None:
    assert len(WRONG_FILES) + len(WRONG) > 200


@pytest.mark.parametrize(("key", "written", "meant"), SPELLINGS)
@pytest.mark.parametrize("language", ["toml", "yaml"])
def test_what_neighbours_write_is_read_where_its_meaning_is_plain(
    tmp_path: Path, language: str, key: str, written: object, meant: object
) -> None:
    values = spelled(key, written)
    path = tmp_path / f"servd.{language}"
    path.write_text(tomli_w.dumps(values) if language == "toml" else json.dumps(values))
    loaded = load(str(path), {})
    assert loaded.diagnostics == ()
    found: object = loaded.config.services["a"]
    for step in key.split("."):
        found = found[step] if isinstance(found, dict) else getattr(found, step)
    assert getattr(found, "policy", found) == meant


def test_a_long_line_is_cut_around_the_mistake_and_both_definitions_are_shown(
    tmp_path: Path,
) -> None:
    text = COMMAND + f'env = {{ A = "{"x" * 300}", B = ["y"], C = "{"z" * 300}" }}\n'
    loaded = read(tmp_path, text)
    _, line, caret = render(loaded.diagnostics[0], loaded.texts).splitlines()
    assert len(line) < 120
    assert line[caret.index("^")] == "["
    assert line.startswith("  3 | …")
    assert line.endswith("…")
    loaded = read(tmp_path, COMMAND + "workers = 1\n" + "\n" * 8 + "workers = 2\n")
    shown = render(loaded.diagnostics[0], loaded.texts).splitlines()
    assert shown[1:] == ["   3 | workers = 1", "  12 | workers = 2", "     | ^"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        (
            "SERVD_SERVICES__A__WORKERS",
            "variables can set keys of [daemon], [admin] and [defaults]",
        ),
        ("SERVD_DAEMON_WATCH", "write SERVD_DAEMON__WATCH"),
        ("SERVD_CONFG", 'did you mean "SERVD_CONFIG"?'),
        ("SERVD_SOMETHING", ""),
    ],
)
def test_a_variable_that_acts_on_nothing_is_said(tmp_path: Path, name: str, hint: str) -> None:
    path = tmp_path / "servd.toml"
    path.write_text(COMMAND)
    (found,) = load(str(path), {name: "1"}).diagnostics
    assert found.summary().startswith(f"<environment {name}>: warning: has no effect")
    assert hint in found.hint
    for text in (f'env.A = "${{{name}}}"', f'env_passthrough = "{name[:9]}*"'):
        path.write_text(COMMAND + text)
        assert load(str(path), {name: "1"}).diagnostics == ()
    known = {"SERVD_CONFIG": "x", "SERVD_DEP_DB": "x", "SERVD_WORKER": "0"}
    assert load(str(path), {**known, name: "1"}).diagnostics == ()


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("main:app", ""),
        ("pkg.inner:app", ""),
        ("json.decoder:JSONDecoder", ""),
        ("plain.inner:app", ""),
        ("makes.anything:app", ""),
        ("nosuch:app", "module not found: nosuch (searched "),
        ("mian:app", 'did you mean "main"?'),
        ("pkg.nosuch:app", "module not found: pkg.nosuch (searched "),
        ("main.inner:app", "module not found: main.inner (searched "),
    ],
)
def test_a_module_that_is_not_there_is_seen_without_an_import(
    tmp_path: Path, app: str, said: str
) -> None:
    """It is looked up where it will be run: the folder of the file that has the service."""
    inner = tmp_path / "conf.d"
    for folder in ("pkg", "plain", "makes"):
        (inner / folder).mkdir(parents=True)
        (inner / folder / "inner.py").write_text("raise SystemExit('imported')")
    (inner / "pkg" / "__init__.py").write_text("raise SystemExit('imported')")
    (inner / "makes" / "__init__.py").write_text("import sys; sys.modules['makes.anything'] = sys")
    (inner / "main.py").write_text("raise SystemExit('imported')")
    (inner / "web.toml").write_text(f'[services.a]\napp = "{app}"\n')
    (tmp_path / "servd.toml").write_text('include = "conf.d/*.toml"\n')
    found = [each.summary() for each in load(str(tmp_path / "servd.toml"), {}).diagnostics]
    assert len(found) == bool(said)
    assert said in "".join(found)


@pytest.mark.parametrize("key", ["health", "limits", "tls"])
@pytest.mark.parametrize("value", ["${H:-false}", "${OFF}"])
def test_a_variable_may_switch_a_table_off(tmp_path: Path, key: str, value: str) -> None:
    loaded = read(tmp_path, APP + f'{key} = "{value}"')
    assert loaded.diagnostics == ()
    assert getattr(loaded.config.services["a"], key) is None


def test_keys_of_ones_own_are_for_anchors(tmp_path: Path) -> None:
    """As in Compose: `x-` at the top, whatever is in it."""
    text = """
x-common: &common
  workers: 2
  anything: ${NOT_SET}
x-env: &env {A: "1"}
services:
  a:
    command: ["true"]
    workers: 1
    env: *env
  b:
    command: ["true"]
    env:
      <<: *env
      B: "2"
"""
    path = tmp_path / "servd.yaml"
    path.write_text(text)
    loaded = load(str(path), ENVIRON)
    assert loaded.diagnostics == ()
    assert loaded.config.services["b"].env == {"A": "1", "B": "2"}
    assert read(tmp_path, 'x-a = 1\n[x-b]\nc = "${NOT_SET}"\n' + COMMAND).diagnostics == ()
    (found,) = read(tmp_path, COMMAND + "x-a = 1\n").diagnostics
    assert found.message == "unknown key"
