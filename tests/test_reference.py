"""The reference says what the code says, and its examples are valid."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from servd.config.schema import json_schema

ROOT = Path(__file__).parents[1]
EXAMPLES: dict[str, dict[str, str]] = tomllib.loads(
    (ROOT / ".ci" / "reference" / "examples.toml").read_text()
)
CASES = [(section, key) for section, examples in EXAMPLES.items() for key in examples]
SCHEMA = Draft7Validator(json_schema())
PAGE = (ROOT / "docs" / "reference" / "configuration.md").read_text()


def test_the_pages_are_what_the_code_says() -> None:
    command = [sys.executable, ".ci/reference.py", "--check"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (result.returncode, result.stderr) == (0, "")


RUNNERS = ("command", "bento", "app", "external")


def config_with(section: str, key: str, example: dict[str, Any]) -> dict[str, Any]:
    """A configuration in which the example stands where its key belongs."""
    if section == "service":
        runs: dict[str, Any] = {} if key in RUNNERS else {"app": "main:app"}
        return {"services": {"web": {**runs, **example}}}
    table = key.split(".", maxsplit=1)[0]
    if table == "hooks":
        needed: dict[str, Any] = {"on": ["crash_loop"], "url": "https://example.com"}
        if key in ("hooks.command", "hooks.url"):
            del needed["url"]
        return {"hooks": [{**needed, **example}]}
    return {table: example} if "." in key else example


@pytest.mark.parametrize(("section", "key"), CASES)
def test_an_example_is_valid_and_of_its_key(section: str, key: str) -> None:
    example = tomllib.loads(EXAMPLES[section][key])
    config = {"services": {}, **config_with(section, key, example)}
    assert [error.message for error in SCHEMA.iter_errors(config)] == []
    name = key if section == "service" or "." not in key else key.partition(".")[2]
    found: Any = example
    for step in name.split("."):
        found = found[step]


def test_every_key_has_an_example() -> None:
    listed = set(re.findall(r"^### `([\w.]+)` \{#[a-z-]+\}$", PAGE, re.MULTILINE))
    tables = {"daemon.log", "daemon", "admin", "hooks"}
    shown = {key for examples in EXAMPLES.values() for key in examples}
    assert listed - shown - tables - {"depends_on", "env_file"} == set()
    assert len(listed) > 100
