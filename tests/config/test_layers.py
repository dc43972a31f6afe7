"""A file is read alike with and without pydantic-settings, which is loaded where variables are."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from servd.config.layers import of_file
from servd.config.model import Config
from servd.config.settings import layered

SERVICE: dict[str, Any] = {"app": "main:app"}


@pytest.mark.parametrize(
    "file",
    [
        {"services": {"web": SERVICE}},
        {"services": {"web": SERVICE}, "defaults": {"workers": 3, "env": {"A": "1"}}},
        {
            "services": {"web": {**SERVICE, "timeouts": {"drain": 1}}, "job": {"command": ["x"]}},
            "defaults": {"timeouts": {"drain": 2, "body": 3}, "listen": ["unix:a"]},
            "daemon": {"log": {"level": "debug"}},
        },
        {"services": {}, "defaults": {"workers": 2}},
        {},
        {"services": {"web": {**SERVICE, "wrkers": 2}}, "defaults": {"workers": "many"}},
        {"services": ["web"], "defaults": {"workers": 2}},
        {"services": {"web": 1, "job": SERVICE}, "defaults": 5, "unknown": None},
    ],
)
def test_both_ways_agree(file: dict[str, Any]) -> None:
    def outcome(read: Any) -> Any:
        try:
            found = read()
        except ValidationError as error:
            return [{**each, "url": ""} for each in error.errors()]
        return {name: getattr(found, name) for name in Config.model_fields}

    assert outcome(lambda: Config.model_validate(of_file(file))) == outcome(
        lambda: layered({}, file)
    )
