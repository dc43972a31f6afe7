"""`__is_ready__` of a BentoML service: it is waited for, shown, and no reason to end a worker."""

from __future__ import annotations

import textwrap

import httpx

from support.harness import DEADLINE, Servd, free_port, wait_until
from support.with_bentoml import PYTHON, environ

CODE = """
    import os
    import bentoml

    @bentoml.service
    class One:
        async def __is_ready__(self) -> bool:
            with open("asked", "a") as file:
                file.write("x")
            return os.path.exists("is.ready")

        @bentoml.api
        def say(self) -> str:
            return "said"
"""


def config(port: int, more: str = "") -> str:
    return f"""
        [services.one]
        bento = "service:One"
        listen = "127.0.0.1:{port}"
        python = "{PYTHON}"
        {more}
    """


def test_a_worker_is_ready_once_its_code_says_so(servd: Servd) -> None:
    port = free_port()
    (servd.folder / "service.py").write_text(textwrap.dedent(CODE))
    daemon = servd(config(port), environ=environ(servd.folder))
    asked = servd.folder / "asked"
    wait_until(lambda: asked.exists() and len(asked.read_text()) > 1, "it is asked again")
    status = daemon.service("one")
    assert (status["state"], status["workers"]["ready"]) == ("starting", 0)
    assert not daemon.find("worker exited")
    (servd.folder / "is.ready").touch()
    daemon.ready()
    answer = httpx.post(f"http://127.0.0.1:{port}/say", timeout=DEADLINE)
    assert answer.text == "said"
    assert daemon.stop() == 0


def test_a_file_that_sets_no_probe_has_none(servd: Servd) -> None:
    (servd.folder / "service.py").write_text(textwrap.dedent(CODE))
    daemon = servd(config(free_port(), "health = false"), environ=environ(servd.folder)).ready()
    assert daemon.service("one")["state"] == "ready"
    assert daemon.stop() == 0
