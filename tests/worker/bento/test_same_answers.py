"""BentoML services answer the same under servd as under `bentoml serve`."""

from __future__ import annotations

from typing import Any

import pytest

from support.harness import Servd
from support.with_bentoml import PYTHON, asked, bentoml_serve, copied, environ

TARGETS = {
    "single": "service:Summariser",
    "graph": "service:Gateway",
    "streaming": "service:Writer",
}


@pytest.mark.parametrize("shape", TARGETS)
def test_a_service_answers_as_under_bentoml_serve(servd: Servd, shape: str) -> None:
    copied(shape, servd.folder)
    with bentoml_serve(TARGETS[shape], servd.folder) as url:
        expected = asked(shape, url)
    config = f"""
        [services.it]
        bento = "{TARGETS[shape]}"
        listen = "127.0.0.1:0"
        python = "{PYTHON}"
    """
    daemon = servd(config, environ=environ(servd.folder)).ready()
    found = asked(shape, daemon.url("it"))
    assert flat(found) == flat(expected)
    assert daemon.stop() == 0


def flat(document: Any, lead: str = "") -> dict[str, Any]:
    """Every value by its path, so that a difference is seen at once."""
    if not isinstance(document, dict):
        return {lead: document}
    return {
        path: value
        for key, part in document.items()
        for path, value in flat(part, f"{lead}/{key}").items()
    }
