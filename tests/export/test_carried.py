"""The table of what other engines are given: of every key, and told with its place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from servd.config.load import Loaded, load
from servd.config.model import Config
from servd.config.service import Service
from servd.export.carried import BY_KEY, ROWS, fate_of
from servd.export.fate import ENGINES, Engine
from servd.export.report import not_carried


def leaves(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """Every key that has a value of its own, also in the tables of a list."""
    for name, field in model.model_fields.items():
        key = f"{prefix}{name}"
        inner = list(tables(field.annotation))
        is_list = any(part in (tuple, dict) for part in origins(field.annotation))
        if not inner or is_list:
            yield key
        if key in ("components", "defaults", "services"):
            continue
        for table in inner:
            yield from leaves(table, f"{key}.")


def tables(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from tables(inner)


def origins(annotation: Any) -> Iterator[Any]:
    yield getattr(annotation, "__origin__", None)
    for inner in get_args(annotation):
        yield from origins(inner)


KEYS = {"defaults", *leaves(Config), *leaves(Service)} - {"services"}


def test_every_key_has_a_fate_and_the_table_names_no_other_key() -> None:
    assert len(KEYS) > 120
    assert {"daemon.log.level", "hooks.url", "timeouts.drain", "depends_on.condition"} <= KEYS
    assert KEYS - BY_KEY.keys() == set(), "missing in servd/export/carried.py"
    assert BY_KEY.keys() - KEYS == set(), "no such keys"
    assert [key for key, n in Counter(k for each in ROWS for k in each.keys).items() if n > 1] == []


def test_every_row_has_a_fate_in_every_engine_and_says_why() -> None:
    for each in ROWS:
        assert set(each.fates) == set(ENGINES), each.keys
        fates = [
            *each.fates.values(),
            *(fate for case in each.cases for fate in case.fates.values()),
        ]
        for fate in fates:
            assert bool(fate.text) == (fate.kind != "inside"), each.keys
            assert not fate.text.endswith("."), each.keys


def written(folder: Path, text: str) -> Loaded:
    (folder / "servd.toml").write_text(text)
    return load(str(folder / "servd.toml"), {})  # no matter whether files exist


TEXT = """\
[defaults]
user = "root"

[services.web]
app = "main:app"

listen = [":8000", "unix:/run/x.sock"]
gpus = ["0"]

[services.api]
app = "main:app"
rlimits = { nofile = 1024 }
tls = { certfile = "c.pem", client_auth = "none", ciphers = "ALL" }
"""


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        ("kubernetes", ["2:1 user", "7:1 listen", "8:1 gpus!"]),
        ("compose", ["2:1 user", "7:1 listen"]),
        ("dockerfile", ["2:1 user", "7:1 listen", "13:9 certfile"]),
        ("ray", ["2:1 user", "7:1 listen", "8:1 gpus!", "12:1 rlimits", "13:51 ciphers!"]),
    ],
)
def test_what_is_lost_is_told_once_and_where_the_user_wrote_it(
    tmp_path: Path, engine: Engine, expected: list[str]
) -> None:
    found = not_carried(written(tmp_path, TEXT), engine)
    shown = [
        f"{each.place.line}:{each.place.column} {each.path.rpartition('.')[2]}"
        + ("!" if each.severity == "error" else "")
        for each in found
    ]
    assert shown == expected


def test_a_value_decides_where_the_table_has_cases() -> None:
    assert fate_of("gpus", "kubernetes", 2).kind == "carried"
    assert fate_of("gpus", "kubernetes", 0.5).kind == "lost"
    assert fate_of("gpus", "kubernetes", ["0"]).kind == "refused"
    assert fate_of("env_passthrough", "kubernetes", ["AWS_*"]).kind == "lost"
    assert fate_of("depends_on.condition", "kubernetes", "completed").kind == "lost"
    with pytest.raises(KeyError):
        fate_of("brand_new", "kubernetes")
