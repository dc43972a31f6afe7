"""`servd serve` tells services of BentoML from apps by itself, however they are made."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, free_port
from support.with_bentoml import PYTHON, environ

CODE = """
    import os
    import sys

    import bentoml

    with open("imports", "a") as file:
        file.write("imported\\n")

    class Inner:
        @bentoml.api
        def name(self) -> str:
            return "a service"

    def made(cls):
        return bentoml.service(workers=1)(cls)

    Made = made(Inner)
    if os.environ.get("NEVER"):
        Chosen = None
    else:
        Chosen = bentoml.service(Inner)

    Program = bentoml.Service(
        "Program",
        cmd=[sys.executable, "-m", "http.server", os.environ["PROXIED"], "--bind", "127.0.0.1"],
        config={"endpoints": {"livez": "/"}, "http": {"proxy_port": int(os.environ["PROXIED"])}},
    )

    def wrapped(application):
        return application

    async def respond(scope, receive, send):
        assert scope["type"] == "http"
        headers = [(b"content-length", b"6")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"an app"})

    app = wrapped(respond)
    mounted = Made.to_asgi()
"""


def served(servd: Servd, target: str, *options: str) -> tuple[ServdProcess, str]:
    (servd.folder / "service.py").write_text(textwrap.dedent(CODE))
    port = str(free_port())
    daemon = servd.run(
        "serve", target, "--host", "127.0.0.1", "--port", port, *options,
        interpreter=PYTHON, environ={"PROXIED": str(free_port()), **environ(servd.folder)},
    ).ready()  # fmt: skip
    return daemon, f"http://127.0.0.1:{port}"


@pytest.mark.parametrize("target", ["service:Made", "service:Chosen", "service.py:Made"])
def test_a_service_made_by_a_function_or_by_choice(servd: Servd, target: str) -> None:
    _, url = served(servd, target)
    assert httpx.post(f"{url}/name", json={}, timeout=DEADLINE).text == "a service"
    assert (servd.folder / "imports").read_text().split() == ["imported"], "once, also to tell"


def test_a_service_that_is_a_program(servd: Servd) -> None:
    _, url = served(servd, "service:Program")
    assert "service.py" in httpx.get(url, timeout=DEADLINE).text


@pytest.mark.parametrize(
    ("target", "path", "answer"),
    [("service:app", "/", "an app"), ("service:mounted", "/livez", "")],
)
def test_an_app_in_code_that_uses_bentoml(
    servd: Servd, target: str, path: str, answer: str
) -> None:
    _, url = served(servd, target)
    assert httpx.get(url + path, timeout=DEADLINE).text.strip() == answer


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("nowhere:Thing", "No module named 'nowhere', and no Bento has that name"),
        ("no_such_bento:latest", "No module named 'no_such_bento', and no Bento has that name"),
        ("service:Missing", 'Attribute "Missing" not found in module "service"'),
        ("failing:Thing", "ZeroDivisionError"),
    ],
)
def test_what_cannot_be_served_is_refused_at_once(tmp_path: Path, target: str, reason: str) -> None:
    (tmp_path / "service.py").write_text(textwrap.dedent(CODE))
    (tmp_path / "failing.py").write_text(
        "import bentoml\n\n@bentoml.service\nclass Thing:\n    def __init__(self):\n        1 / 0\n"
    )
    done = subprocess.run(
        [PYTHON, "-m", "servd", "serve", target, "--port", str(free_port())],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE,
        env={**environ(tmp_path), "PROXIED": "1", "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert reason in said
    assert "Traceback" not in done.stderr or target == "failing:Thing"
    assert said.count("worker started") <= 1, "one attempt"


def test_without_bentoml_a_missing_module_is_that_of_an_app(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "servd", "serve", "nowhere:Thing", "--port", str(free_port())],
        cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE,
    )  # fmt: skip
    assert done.returncode != 0
    assert "cannot import" in done.stdout + done.stderr
    assert "Bento" not in done.stdout + done.stderr
