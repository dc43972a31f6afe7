"""What a worker leaves behind keeps the daemon from nothing."""

from __future__ import annotations

import contextlib
import os
import signal

import httpx

from support.harness import DEADLINE, Servd, wait_until

APP = """
    import os, subprocess

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/die":
            # a session of its own, so that the end of the worker's group does not reach it
            child = subprocess.Popen(["yes", "on and on"], start_new_session=True)
            with open("child", "w") as file:
                file.write(str(child.pid))
            os._exit(1)
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
"""


def test_a_child_that_writes_on_after_its_worker_holds_nothing_up(servd: Servd) -> None:
    daemon = servd(
        """
        [daemon]
        log.file = "/dev/null"
        [services.web]
        app = "main:app"
        listen = "unix:web.sock"
        """,
        main_py=APP,
    )
    transport = httpx.HTTPTransport(uds=str(servd.folder / "web.sock"))
    with httpx.Client(transport=transport, base_url="http://web", timeout=DEADLINE) as client:
        wait_until((servd.folder / "web.sock").exists, "the socket")
        assert client.get("/").text == "ok"
        (before,) = daemon.pids("web")
        with contextlib.suppress(httpx.TransportError):
            client.get("/die")
        wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
        child = int((servd.folder / "child").read_text())
        try:
            assert client.get("/").text == "ok"
        finally:
            with contextlib.suppress(ProcessLookupError):  # nobody read what it wrote
                os.kill(child, signal.SIGKILL)
        daemon.remember()
        daemon.send(signal.SIGTERM)
        assert daemon.wait() == 0
