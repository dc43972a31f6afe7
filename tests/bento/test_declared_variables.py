"""The variables that code declares (`envs`) reach each service as under `bentoml serve`."""

from __future__ import annotations

from typing import Any

import httpx

from support.harness import DEADLINE, Servd, free_port
from support.with_bentoml import GATEWAY, PYTHON, bentoml_serve, environ

CODE = """
    import os
    import bentoml

    NAMES = ["OF_ENTRY", "OF_BOTH", "OF_INNER", "OF_DEEP", "ASKED_OF_ENTRY", "ASKED_OF_INNER"]

    def mine():
        return [os.environ.get(name) for name in NAMES]

    AT_IMPORT = mine()

    def valued(*names):
        return [{"name": name, "value": name[3:].lower()} for name in names]

    @bentoml.service(envs=[{"name": "OF_DEEP", "value": "deep"}])
    class Deep:
        @bentoml.api
        def seen(self) -> list[list[str | None]]:
            return [AT_IMPORT, mine()]

    @bentoml.service(envs=[
        {"name": "OF_INNER", "value": "inner"},
        {"name": "OF_BOTH", "value": "inner"},
        {"name": "ASKED_OF_INNER"},
    ])
    class Inner:
        deep = bentoml.depends(Deep)

        @bentoml.api
        def seen(self) -> list[list[str | None]]:
            return [AT_IMPORT, mine(), *self.deep.seen()]

    @bentoml.service(envs=[
        {"name": "OF_ENTRY", "value": "entry"},
        {"name": "OF_BOTH", "value": "entry"},
        {"name": "ASKED_OF_ENTRY"},
    ])
    class Gateway:
        inner = bentoml.depends(Inner)

        @bentoml.api
        def seen(self) -> list[list[str | None]]:
            return [AT_IMPORT, mine(), *self.inner.seen()]
"""
ASKED = {"ASKED_OF_ENTRY": "asked", "ASKED_OF_INNER": "asked"}


def seen(url: str) -> Any:
    answer = httpx.post(f"{url}/seen", json={}, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    at_import_and_later: list[list[str | None]] = answer.json()
    assert at_import_and_later[::2] == at_import_and_later[1::2]
    return at_import_and_later[::2]


def test_variables_of_the_entry_reach_its_dependencies_as_bentoml_has_it(servd: Servd) -> None:
    """The daemon's own variables outrank the values of the entry, not those of a dependency."""
    servd.write(service_py=CODE)
    for given in (
        ASKED,
        {**ASKED, "OF_ENTRY": "host", "OF_BOTH": "host", "OF_INNER": "host", "OF_DEEP": "host"},
    ):
        with bentoml_serve("service:Gateway", servd.folder, **given) as url:
            wanted = seen(url)
        port = free_port()
        argv = ["serve", "service:Gateway", "--host=127.0.0.1", f"--port={port}"]
        variables = {**environ(servd.folder), **given}
        daemon = servd.run(*argv, interpreter=PYTHON, environ=variables).ready()
        assert seen(f"http://127.0.0.1:{port}") == wanted
        assert daemon.stop() == 0
    entry, inner, deep = wanted
    assert entry[:4] == ["host"] * 4
    assert inner[:4] == ["host", "host", "inner", "host"]
    assert deep[:4] == ["host", "host", "host", "deep"]


def test_a_file_passes_on_what_the_code_names_and_outranks_it(servd: Servd) -> None:
    config = f"""
        {GATEWAY}
        env = {{ ASKED_OF_INNER = "file", OF_INNER = "file", OF_BOTH = "file" }}
        [services.gw.components.Deep]
        env = {{ OF_BOTH = "deep", ASKED_OF_ENTRY = "deep" }}
    """
    given = {**environ(servd.folder), "ASKED_OF_ENTRY": "host", "OF_DEEP": "host"}
    daemon = servd(config, service_py=CODE, environ=given).ready()
    assert seen(daemon.url("gw")) == [
        ["entry", "file", "file", None, "host", "file"],
        ["entry", "file", "file", None, "host", "file"],
        ["entry", "deep", "file", "deep", "deep", "file"],
    ]


def test_a_change_of_a_variable_of_the_entry_replaces_its_dependencies(servd: Servd) -> None:
    given = {**environ(servd.folder), **ASKED}
    daemon = servd(GATEWAY, service_py=CODE, environ=given).ready()
    changed = CODE.replace('"OF_ENTRY", "value": "entry"', '"OF_ENTRY", "value": "another"')
    servd.write(service_py=changed)
    report = daemon.reload()
    assert {(c["service"], c["kind"]) for c in report["changes"]} == {
        ("gw", "roll"), ("gw.inner", "roll"), ("gw.deep", "roll"),
    }  # fmt: skip
    assert [each[0] for each in seen(daemon.url("gw"))] == ["another"] * 3
