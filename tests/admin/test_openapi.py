"""The admin API against its own description: whatever is asked, nothing breaks, and every answer is
a documented one.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from support.harness import Servd, free_port

TOKEN = "a token for this test alone"
CHECKS = (
    "not_a_server_error", "status_code_conformance", "content_type_conformance",
    "response_schema_conformance", "unsupported_method",
)  # fmt: skip
CONFIG = """
    [admin]
    listen = "127.0.0.1:{port}"
    token = "{token}"
    [services.front]
    command = ["sleep", "1000"]
    depends_on = ["back"]
    [services.back]
    command = ["sleep", "1000"]
    [services.job]
    kind = "task"
    command = ["true"]
"""
HOOKS = """
import schemathesis

NAMES = ["front", "back", "job", "nosuch"]


@schemathesis.hook
def map_query(context, query):
    # a stream that goes on for ever is no answer that could be looked at
    if query and context.operation.path in ("/v1/events", "/v1/logs"):
        query["follow"] = False if not isinstance(query.get("follow"), str) else query["follow"]
    return query


@schemathesis.hook
def before_call(context, case, kwargs):
    if case.path in ("/v1/events", "/v1/logs"):
        case.query = {**(case.query or {}), "follow": "false"}


@schemathesis.hook
def map_path_parameters(context, path_parameters):
    if path_parameters and len(str(path_parameters.get("name"))) % 4:
        path_parameters["name"] = NAMES[len(str(path_parameters["name"])) % len(NAMES)]
    return path_parameters


@schemathesis.hook
def map_body(context, body):
    # what may be asked for is not what two processors can run
    if isinstance(body, dict) and isinstance(body.get("workers"), int):
        body["workers"] = min(body["workers"], 3)
    return body
"""


@pytest.mark.timeout(1200)
def test_no_answer_is_undocumented_and_none_is_a_5xx(servd: Servd, tmp_path: Path) -> None:
    port = free_port()
    daemon = servd(CONFIG.format(port=port, token=TOKEN)).ready()
    (tmp_path / "hooks.py").write_text(HOOKS)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "run",
            f"http://127.0.0.1:{port}/openapi.json",
            "--header", f"Authorization: Bearer {TOKEN}",
            "--checks", ",".join(CHECKS),
            "--max-examples", "40", "--request-timeout", "90", "--seed", "1",
            "--phases", "examples,coverage,fuzzing", "--suppress-health-check", "all",
            "--no-color",
            "--exclude-path", "/v1/upgrade",  # another process would be the daemon
        ],
        cwd=tmp_path,
        env={"SCHEMATHESIS_HOOKS": "hooks", "PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=1100,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    assert "Tested: 21" in done.stdout, done.stdout[-3000:]
    shown = {"authorization": f"Bearer {TOKEN}"}
    assert httpx.get(f"http://127.0.0.1:{port}/livez", headers=shown).status_code == 200
    assert not [e for e in daemon.events if "Exception in ASGI" in str(e.get("event"))]


def test_the_description_names_every_route_of_the_readme(servd: Servd) -> None:
    daemon = servd('[services.job]\ncommand = ["sleep", "1000"]\n').ready()
    found = daemon.ask("GET", "/openapi.json").json()
    routes = {f"{method.upper()} {path}" for path, of in found["paths"].items() for method in of}
    assert routes == {
        "GET /", "GET /livez", "GET /readyz", "GET /metrics",
        "GET /page/dagre.min.js", "GET /v1/gpus", "GET /v1/history", "GET /v1/measurements",
        "GET /v1/status", "GET /v1/services/{name}", "GET /v1/config", "GET /v1/plan",
        "GET /v1/events", "GET /v1/logs", "POST /v1/reload", "POST /v1/restart",
        "POST /v1/upgrade", "POST /v1/gpus/{gpu}/release",
        "POST /v1/services/{name}/restart", "POST /v1/services/{name}/start",
        "POST /v1/services/{name}/stop", "POST /v1/services/{name}/scale",
    }  # fmt: skip
    for path, methods in found["paths"].items():
        for method, operation in methods.items():
            assert operation["summary"], (method, path)


@pytest.mark.parametrize("secret", ['"${file:secret.txt}"', '"plain"'])
def test_the_config_is_shown_without_its_secrets(servd: Servd, secret: str) -> None:
    (servd.folder / "secret.txt").write_text("hidden-value")
    secret = secret.replace("plain", "hidden-value")
    config = f'[services.job]\ncommand = ["sleep", "1000"]\nenv = {{ API_TOKEN = {secret} }}\n'
    daemon = servd(config).ready()
    daemon.reload(config + "workers = 2\n")
    shown = daemon.ask("GET", "/v1/config")
    assert shown.json()["services"]["job"]["workers"] == 2
    assert "watch_debounce" not in shown.text
    assert "watch_debounce" in daemon.ask("GET", "/v1/config?all=true").text
    for route in ("/v1/config?all=true", "/v1/status", "/v1/plan", "/v1/logs?follow=false"):
        assert "hidden-value" not in daemon.ask("GET", route).text, route
