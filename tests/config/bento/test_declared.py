"""What a file says of a BentoML service, beside what its code declares."""

from __future__ import annotations

import pytest

from support.harness import Servd, command
from support.with_bentoml import GATEWAY, copied, environ

TOKENIZER = "[services.gw.components.Tokenizer]\n"
MISTAKES = [
    (
        "[services.gw.components.Tokeniser]\nworkers = 2",
        '"service:Gateway" has no component "Tokeniser" (did you mean "Tokenizer"?)',
    ),
    (
        "[services.gw.components.Gateway]\nworkers = 2",
        "Gateway is the service itself: write its keys in [services.gw]",
    ),
    ("factory = true", "does not apply to a BentoML service, whose class is the app"),
    (f"{TOKENIZER}tls = false", "does not apply to a component, which only its service calls"),
    (f'{TOKENIZER}kind = "task"', "does not apply to a component, which only its service calls"),
    (f"{TOKENIZER}preload = true", "does not apply to a BentoML service, whose class is the app"),
    (f"{TOKENIZER}limits = {{ queue = 5 }}", 'has no effect without "concurrency"'),
    (f'{TOKENIZER}user = "nosuch"', 'unknown user "nosuch"'),
    (f'{TOKENIZER}env_file = "no.env"', "/no.env: No such file or directory"),
    (f"{TOKENIZER}gpus = 1.5", "must be a whole number or a share of one GPU such as 0.5"),
]


@pytest.mark.parametrize(("text", "message"), MISTAKES)
def test_a_mistake_is_shown_where_it_stands(servd: Servd, text: str, message: str) -> None:
    copied("graph", servd.folder)
    servd.write(servd_toml=GATEWAY + text)
    done = command("check", "--imports", folder=servd.folder, environ=environ(servd.folder))
    assert done.returncode == 78
    lines = [line for line in done.stderr.splitlines() if line.startswith("servd.toml:")]
    last = len((GATEWAY + text).rstrip().splitlines())
    places = tuple(f"servd.toml:{row}:" for row in (last, last - 1))  # the key, or its table
    assert any(line.startswith(places) and message in line for line in lines), lines


def test_the_whole_reason_why_bentoml_refuses_a_setting_is_shown(servd: Servd) -> None:
    """Its message has a line for each table on the way to the value."""
    code = """
        import bentoml

        @bentoml.service(resources={"gpu": "all"})
        class Gateway:
            @bentoml.api
            def rate(self) -> str:
                return ""
    """
    servd.write(servd_toml=GATEWAY, service_py=code)
    done = command("check", "--imports", folder=servd.folder, environ=environ(servd.folder))
    assert done.returncode == 78
    (line,) = [line for line in done.stderr.splitlines() if "invalid configuration" in line]
    for part in ("Key 'resources' error:", "Key 'gpu' error:", "'all' should be instance of"):
        assert part in line


def test_a_variable_that_the_code_needs_is_asked_for(servd: Servd) -> None:
    copied("graph", servd.folder)
    code = (servd.folder / "service.py").read_text()
    needed = code.replace('"value": "blue"', '"stage": "all"').replace("SHADE", "TEST_SHADE")
    (servd.folder / "service.py").write_text(needed)
    servd.write(servd_toml=GATEWAY)
    done = command("graph", folder=servd.folder, environ=environ(servd.folder))
    assert done.returncode == 78
    assert "Tokenizer requires variable TEST_SHADE, which is not set" in done.stderr
    there = {**environ(servd.folder), "TEST_SHADE": "grey"}
    assert command("graph", folder=servd.folder, environ=there).returncode == 0
