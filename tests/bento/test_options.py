"""Every option of `bentoml serve`, and every keyword of its functions, is one of servd."""

from __future__ import annotations

import json
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from servd.cli.commands.serve import command as serve
from servd.embed import arguments

from support.harness import DEADLINE, command
from support.with_bentoml import PYTHON

OF_BENTOML = """
import inspect, json
import bentoml
from bentoml.serving import serve_http_production
from bentoml_cli.serve import serve_command

def options(command):
    return sorted(o for p in command.params for o in p.opts if o.startswith("-"))

print(json.dumps({
    "options": options(serve_command.commands["serve"]),
    "serve_http_production": list(inspect.signature(serve_http_production).parameters),
    "serve": list(inspect.signature(bentoml.serve).parameters),
}))
"""

WRITTEN: dict[str, tuple[list[str], dict[str, Any]]] = {
    "--host": (["--host", "127.0.0.1"], {"listen": "127.0.0.1:3000"}),
    "--port": (["--port", "4000"], {"listen": "0.0.0.0:4000"}),
    "-p": (["-p", "4000"], {"listen": "0.0.0.0:4000"}),
    "--backlog": (["--backlog", "5"], {"backlog": 5}),
    "--api-workers": (["--api-workers", "3"], {"workers": 3}),
    "--timeout": (["--timeout", "7"], {"timeouts": {"request": 7}}),
    "--timeout-keep-alive": (["--timeout-keep-alive", "8"], {"timeouts": {"keep_alive": 8}}),
    "--timeout-graceful-shutdown": (
        ["--timeout-graceful-shutdown", "9"],
        {"timeouts": {"drain": 9}},
    ),
    "--ssl-certfile": (["--ssl-certfile", "/c.pem"], {"tls": {"certfile": "/c.pem"}}),
    "--ssl-keyfile": (["--ssl-keyfile", "/k.pem"], {"tls": {"keyfile": "/k.pem"}}),
    "--ssl-keyfile-password": (
        ["--ssl-keyfile-password", "secret"],
        {"tls": {"keyfile_password": "secret"}},
    ),
    "--ssl-ca-certs": (["--ssl-ca-certs", "/a.pem"], {"tls": {"ca_certs": "/a.pem"}}),
    "--ssl-cert-reqs": (["--ssl-cert-reqs", "2"], {"tls": {"client_auth": "required"}}),
    "--ssl-version": (["--ssl-version", "17"], {"tls": {"min_version": "TLSv1.2"}}),
    "--ssl-ciphers": (["--ssl-ciphers", "ECDHE"], {"tls": {"ciphers": "ECDHE"}}),
    "--working-dir": (["--working-dir", "/"], {"directory": "/"}),
    "--arg": (["--bento", "--arg", "name=dog"], {"bento_args": {"name": "dog"}}),
    "--arg-file": (["--bento", "--arg-file", "args.yaml"], {"bento_args": {"kind": "animal"}}),
    "--development": (["--development"], {"workers": 1, "log": {"level": "debug"}}),
    "--debug": (["--debug"], {"log": {"level": "debug"}}),
    "--verbose": (["--verbose"], {"log": {"level": "debug"}}),
    "-q": (["-q"], {"log": {"level": "error"}}),
    "--quiet": (["--quiet"], {"log": {"level": "error"}}),
    "--production": (["--production"], {}),
    "--do-not-track": (["--do-not-track"], {}),
    "--context": (["--context", "cloud"], {}),
    "--env": (["--env", "conda"], {}),
    "--reload": (["--reload"], {}),
}
"""What each option writes into the configuration of the service. What `--reload` does is not in
it: `test_targets` has it."""


@pytest.fixture(scope="module")
def of_bentoml() -> dict[str, list[str]]:
    done = subprocess.run(
        [PYTHON, "-c", OF_BENTOML], capture_output=True, text=True, timeout=DEADLINE * 2
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_no_option_of_bentoml_is_missing(of_bentoml: dict[str, list[str]]) -> None:
    known = {option for parameter in serve.params for option in parameter.opts}
    assert set(of_bentoml["options"]) - known == set()
    assert set(of_bentoml["options"]) - WRITTEN.keys() == set(), "each has a test"


@pytest.mark.parametrize("function", ["serve_http_production", "serve"])
def test_no_keyword_of_bentoml_is_missing(of_bentoml: dict[str, list[str]], function: str) -> None:
    own = {"bento", "bento_identifier", "threaded", "bentoml_home", "blocking", "args"}
    for name in of_bentoml[function]:
        if name not in own:
            arguments("service:Writer", {name: None}, bento=True)


def test_keywords_of_bentoml_say_what_they_say_there() -> None:
    def given(**options: Any) -> list[str]:
        return arguments("service:Writer", options, bento=True)[2:]

    assert given(production=True, server_type="http", env=None) == ["--bento"]
    assert given(production=False) == given(development_mode=True) == ["--bento", "--development"]
    assert given(env="conda") == ["--bento", "--env", "conda"]
    assert given(enable_reflection=None, max_concurrent_streams=None) == ["--bento"]
    with pytest.raises(TypeError, match="server_type='grpc': run it as a program"):
        given(server_type="grpc")
    with pytest.raises(TypeError, match="enable_reflection is for gRPC"):
        given(enable_reflection=True)
    with pytest.raises(TypeError, match="unexpected keyword argument 'wrokers'"):
        given(wrokers=1)


@pytest.mark.parametrize("option", WRITTEN)
def test_an_option_has_its_effect(tmp_path: Path, option: str) -> None:
    (tmp_path / "main.py").write_text("async def app(scope, receive, send): ...\n")
    (tmp_path / "args.yaml").write_text("kind: animal\n")
    given, expected = WRITTEN[option]
    done = command("serve", "main:app", *given, "--print-config", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (service,) = tomllib.loads(done.stdout)["services"].values()
    found = {key: service.get(key) for key in expected}
    assert found == expected
    if option in ("--context", "--env"):
        assert f"{option} has no effect" in done.stderr
