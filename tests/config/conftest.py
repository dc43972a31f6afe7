"""Whatever servd takes in these tests, editors have to take too."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jsonschema
import pytest

from servd.config import load as loading
from servd.config.find import Files, Source
from servd.config.schema import json_schema
from servd.config.tree import plain

VALIDATOR = jsonschema.Draft7Validator(json_schema())
load_sources = loading.load_sources


def _checked(
    sources: Sequence[Source], path: str, environ: Mapping[str, str], files: Files
) -> loading.Loaded:
    """Loads as usual; what has no mistake is valid by the schema, file by file."""
    loaded = load_sources(sources, path, environ, files)
    if not loaded.errors:
        for source in sources:
            root = loading.parse_source(source, {}).root
            values: Any = json.loads(json.dumps(plain(root)))
            complaints = [error.message for error in VALIDATOR.iter_errors(values)]
            assert complaints == [], source.content.decode()
    return loaded


@pytest.fixture(autouse=True, scope="module")
def schema_agrees() -> Iterator[None]:
    """Compares servd and its schema wherever a test loads a configuration."""
    loading.load_sources = _checked
    yield
    loading.load_sources = load_sources
