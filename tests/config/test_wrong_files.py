"""Wrong configurations, and what is said about them: place, key, message and hint."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.config.load import Loaded, load

ENVIRON = {"B": "from-b", "NAME": "x", "OFF": "False", "PORT": "80"}
COMMAND = '[services.a]\ncommand = ["true"]\n'
APP = '[services.a]\napp = "main:app"\n'

WRONG = [
    (
        COMMAND + "rlimits = { nofile = 9223372036854775808 }",
        '3:11 services.a.rlimits: the limit nofile can be 9223372036854775807, or "unlimited"',
    ),
    (
        COMMAND + "rlimits = { core = 99999999999999999999 }",
        '3:11 services.a.rlimits: the limit core can be 9223372036854775807, or "unlimited"',
    ),
    (
        COMMAND + 'env = { GOOD = "x", BAD = "a\\u0000b" }',
        "3:7 services.a.env: BAD holds a NUL character, which ends a text there",
    ),
    (
        '[defaults]\nenv.BAD = "\\u0000"\n' + COMMAND,
        "2:1 defaults.env: BAD holds a NUL character, which ends a text there",
    ),
    (
        APP + "cpu_affinity = [0, 99999]",
        "3:20 services.a.cpu_affinity[1]: there is no CPU 99999: this machine has 0 to ",
    ),
    (
        APP + "health = { interval = '1s', timeout = '5s' }",
        "3:39 services.a.health.timeout: is longer than interval: a probe waits for it",
    ),
    (
        COMMAND + "restart = { backoff = '1m' }",
        "3:23 services.a.restart.backoff: is longer than backoff_max: it is cut to that",
    ),
    (
        APP + 'ready = "5s"',
        "3:1 services.a.ready: is for commands: a worker of an app tells",
    ),
    (COMMAND + "factory = true", "3:1 services.a.factory: means nothing for a command"),
    (COMMAND + "threads = 3", "3:1 services.a.threads: means nothing for a command"),
    (
        COMMAND + 'interface = "wsgi"',
        "3:1 services.a.interface: means nothing for a command: it is for apps",
    ),
    (
        COMMAND + 'uvicorn.http = "h11"',
        "3:1 services.a.uvicorn: means nothing for a command: it is for apps",
    ),
    (
        '[services.a]\ncommand = ["x=1", "true"]\n'.replace('"x=1", "true"', '"true", "{prt}"'),
        "2:11 services.a.command: {prt} is no placeholder, and stays as it is (did you mean port?)",
    ),
    (
        COMMAND + 'public_url = "example.org"',
        "3:14 services.a.public_url: write an address that begins with http:// or https://",
    ),
    (
        APP + "proxy.trusted = ['nginx']",
        '3:18 services.a.proxy.trusted[0]: "nginx" is no peer that can be trusted: ',
    ),
    (
        COMMAND + 'env.A = "${A-x}"',
        '3:9 services.a.env.A: "${A-x}" is not a reference (write "${A:-x}")',
    ),
    (
        COMMAND + 'env.A = "${A?x}"',
        '3:9 services.a.env.A: "${A?x}" is not a reference (write "${A:?x}")',
    ),
    (
        COMMAND + 'env.A = "${A:-${B:-x}"',
        '3:9 services.a.env.A: "${" is not closed (write "$$" for a dollar)',
    ),
    (
        COMMAND + 'env.A = "${A:-${C:?no ${NAME}}}"',
        "3:9 services.a.env.A: no x (set the variable C)",
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
