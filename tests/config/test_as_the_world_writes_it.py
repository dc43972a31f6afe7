"""What people bring from elsewhere: commands as one text, ports as numbers, files of variables."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.config.env_file import EnvFileError, parse_env_file, read_env_file
from servd.config.neighbours import _HINTS
from servd.config.service import Service
from servd.core.diagnostics import Diagnostic
from servd.host.facts import inspect_host
from servd.plan.build import build_loaded
from servd.plan.model import Plan

from support.config_texts import loaded_text, plan_text


def mistakes_of(text: str) -> list[Diagnostic]:
    return loaded_text(text).errors


def parsed(text: str) -> Plan:
    """The plan of TOML or YAML."""
    path = "servd.toml" if text.startswith("[") else "servd.yaml"
    loaded = loaded_text(text, path).require()
    return build_loaded(loaded, inspect_host(loaded.config, {}), "/run/x")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("python3 -m http.server", ["python3", "-m", "http.server"]),
        ("echo 'a b' \"it's; fine\" c\\ d", ["echo", "a b", "it's; fine", "c d"]),
        ("echo 'a && b | c > $HOME `x` $(y)'", ["echo", "a && b | c > $HOME `x` $(y)"]),
        ("sh -c 'exec sleep 1'", ["sh", "-c", "exec sleep 1"]),
        ("echo {worker} a=b", ["echo", "{worker}", "a=b"]),
        ("echo \\$HOME \\; x", ["echo", "$HOME", ";", "x"]),
    ],
)
def test_a_command_may_be_one_text(text: str, words: list[str]) -> None:
    quoted = text.replace("$", "$$").replace("\\", "\\\\").replace('"', '\\"')
    (service,) = plan_text(f'[services.a]\ncommand = "{quoted}"').services
    assert list(service.definition.command) == words


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("echo a && echo b", "&&"),
        ("echo a || echo b", "||"),
        ("echo a | cat", "|"),
        ("echo a > b", ">"),
        ("echo a >> b", ">>"),
        ("cat < b", "<"),
        ("echo a; echo b", ";"),
        ("sleep 1 &", "&"),
        ("(echo a)", "("),
        ("echo $(date)", "$(...)"),
        ("echo `date`", "`...`"),
        ("echo $HOME", "$HOME"),
        ("ls ~/x", "~"),
        ("A=1 echo", "A=1"),
    ],
)
def test_what_only_a_shell_could_do_is_a_mistake_that_shows_what_to_write(
    text: str, what: str
) -> None:
    (mistake,) = mistakes_of(f"[services.a]\ncommand = '{text.replace('$', '$$')}'")
    assert mistake.message.startswith(f"{what} needs a shell")
    assert f'write ["sh", "-c", "{text}"]' in mistake.message


def test_a_quote_without_its_end_is_a_mistake() -> None:
    (mistake,) = mistakes_of("[services.a]\ncommand = '''echo 'a'''")
    assert "quote" in mistake.message


def test_a_port_may_be_a_number() -> None:
    (one, two) = plan_text(
        '[services.a]\napp = "m:a"\nlisten = 8000\n'
        '[services.b]\napp = "m:a"\nlisten = [8001, "unix:/x"]'
    ).services
    assert [str(a) for a in one.addresses] == [":8000"]
    assert [str(a) for a in two.addresses] == [":8001", "unix:/x"]
    for wrong in ("70000", "-1", "true", "1.5"):
        assert mistakes_of(f'[services.a]\napp = "m:a"\nlisten = {wrong}')


@pytest.mark.parametrize(
    "key", ["environment", "working_dir", "workdir", "numprocs", "port", "host"]
)
def test_a_key_of_a_neighbour_gets_the_right_hint(key: str) -> None:
    (mistake,) = mistakes_of(f'[services.a]\napp = "m:a"\n{key} = "x"')
    assert mistake.message == "unknown key"
    assert mistake.hint.startswith("use ")


def test_no_hint_is_about_a_key_that_servd_has() -> None:
    assert not set(_HINTS) & set(Service.model_fields)


# env_file

CASES = """
# a comment
PLAIN=value
export EXPORTED=yes
SPACED = value of three words
SINGLE='it is # no comment'
DOUBLE="a # b" # c
ESCAPED="a\\nb"
LINES="one
two"
EMPTY=
URL=http://host/?a=b#c
JSON={"a": 1}
REFERS=${PLAIN}/more
"""


def test_an_env_file_is_read_as_python_dotenv_reads_it() -> None:
    assert parse_env_file(CASES) == {
        "PLAIN": "value",
        "EXPORTED": "yes",
        "SPACED": "value of three words",
        "SINGLE": "it is # no comment",
        "DOUBLE": "a # b",
        "ESCAPED": "a\nb",
        "LINES": "one\ntwo",
        "EMPTY": "",
        "URL": "http://host/?a=b#c",
        "JSON": '{"a": 1}',
        "REFERS": "value/more",
    }


def test_a_line_that_cannot_be_read_is_named_and_not_shown(tmp_path: Path) -> None:
    file = tmp_path / "x.env"
    file.write_text("A=1\nSECRET of='unended\nB=2\n")
    with pytest.raises(EnvFileError, match=r"x\.env:2: expected NAME=value") as caught:
        read_env_file(str(file))
    assert "unended" not in str(caught.value)


def test_env_files_are_a_list_and_may_be_missing(tmp_path: Path) -> None:
    (tmp_path / "a.env").write_text("A=1\nB=1\n")
    (tmp_path / "b.env").write_text("B=2\n")
    text = f"""
        [services.a]
        command = ["sleep", "1"]
        env_file = ["{tmp_path}/a.env", {{ path = "{tmp_path}/none.env", required = false }},
                    "{tmp_path}/b.env"]
    """
    environment = plan_text(text).services[0].environment
    assert (environment["A"], environment["B"]) == ("1", "2")
    missing = f'[services.a]\ncommand = ["sleep"]\nenv_file = ["{tmp_path}/none.env"]'
    (mistake,) = mistakes_of(missing)
    assert "required = false" in mistake.hint


@pytest.mark.parametrize(
    "text",
    [
        '[services.a]\ncommand = ["sleep"]\nenv = { V = 3.10, W = 1_000, T = true }',
        "services:\n  a:\n    command: [sleep]\n    env: {V: 3.10, W: 1_000, T: true}",
        "defaults:\n  env: {V: 3.10, W: 1_000, T: true}\nservices:\n  a:\n    command: [sleep]",
    ],
)
def test_numbers_in_env_are_the_text_that_the_file_has(text: str) -> None:
    environment = parsed(text).services[0].environment
    assert (environment["V"], environment["W"], environment["T"]) == ("3.10", "1_000", "true")


def test_python_programs_do_not_hold_their_output_back() -> None:
    plan = plan_text(
        '[services.a]\ncommand = ["sleep"]\n[services.b]\napp = "m:a"\n'
        '[services.c]\ncommand = ["sleep"]\nenv = { PYTHONUNBUFFERED = "" }'
    ).by_name
    assert plan["a"].environment["PYTHONUNBUFFERED"] == "1"
    assert "PYTHONUNBUFFERED" not in plan["b"].environment
    assert plan["c"].environment["PYTHONUNBUFFERED"] == ""
