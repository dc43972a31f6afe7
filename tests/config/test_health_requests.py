"""`health` with a real request: what fits together, and the file that it names."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.config.load import load

APP = '[services.a]\napp = "main:app"\n'
COMMAND = '[services.a]\ncommand = ["true", "{port}"]\n'
EXTERNAL = '[services.a]\nexternal = "http://host2"\n'
TRUST_HINT = '"trust" applies to apps only: servd counts the requests of no command'


def mistakes(folder: Path, text: str) -> str:
    (folder / "main.py").write_text("app = None\n")
    (folder / "ping.http").write_text("POST /v1/predict\n\n{}")
    (folder / "bad.http").write_text("# a comment\n\nPOST v1\n")
    file = folder / "servd.toml"
    file.write_text(text)
    found = load(str(file), {}).diagnostics
    return "\n".join(each.summary() for each in found).replace(f"{folder}/", "")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (APP + 'health = { request = "ping.http", expect = "2xx", busy = "trust" }', ""),
        (APP + 'health = { path = "/v1", method = "POST", body = "{}", expect = "200" }', ""),
        (COMMAND + 'health = { request = "ping.http", expect = "2xx" }', ""),
        (EXTERNAL + 'health = { request = "ping.http", expect = "2xx" }', ""),
        (EXTERNAL + 'health = { method = "HEAD" }', ""),
        (
            APP + 'health = { request = "ping.http", path = "/v1" }',
            "services.a.health.path: cannot be combined with request: write it into ",
        ),
        (
            APP + 'health = { method = "POST", request = "ping.http" }',
            "servd.toml:3:12: services.a.health.method: cannot be combined with request",
        ),
        (
            APP + 'health = { body = "{}" }',
            "servd.toml:3:12: services.a.health.body: a GET request has no body",
        ),
        (
            COMMAND + 'health = { tcp = ":80", method = "POST" }',
            "services.a.health.method: cannot be combined with tcp, which is no HTTP request",
        ),
        (
            COMMAND + 'health = { command = ["true"], expect = "200" }',
            "services.a.health.expect: cannot be combined with command, which is no HTTP request",
        ),
        (
            COMMAND + 'health = { busy = "trust" }',
            f"servd.toml:3:19: services.a.health.busy: {TRUST_HINT}",
        ),
        (
            EXTERNAL + 'health = { busy = "trust" }',
            "servd.toml:3:12: services.a.health.busy: does not apply to an external service",
        ),
        (
            APP + 'health = { request = "none.http" }',
            "servd.toml:3:22: services.a.health.request: cannot read none.http: No such file or",
        ),
        (
            APP + 'health = { request = "bad.http" }',
            "bad.http:3:1: services.a.health.request: expected a path that begins with /",
        ),
        (
            '[defaults]\nhealth = { path = "/up" }\n' + APP + 'health = { request = "ping.http" }',
            "",
        ),
    ],
)
def test_what_fits_together(tmp_path: Path, text: str, said: str) -> None:
    found = mistakes(tmp_path, text)
    assert (said in found) if said else (found == "")
