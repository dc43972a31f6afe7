"""`rollout.strategy = "recreate"`: two generations never run side by side, nobody is refused."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import httpx
import pytest

from support.fake_worker import Fakes, Fleet, Script
from support.harness import DEADLINE, Servd, ServdProcess, wait_until
from support.virtual_time import BEGIN_SECONDS, now, virtual_time

TEXT = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    rollout.strategy = "recreate"
    env = {{ A = "{a}" }}
"""


@virtual_time
async def test_the_old_has_ended_before_the_new_starts(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    fakes.plays("web", Script(drains_for=3.0))
    await fleet.start(TEXT.format(a=1))
    began = now()
    await fleet.apply(TEXT.format(a=2))
    (old,), (new,) = fakes.of("web", 1), fakes.of("web", 2)
    assert not old.is_alive()
    assert new.started_at - BEGIN_SECONDS == began + 3.0
    assert fleet.states == {"web": "ready"}


@virtual_time
async def test_if_the_new_does_not_start_the_old_is_started_again(fakes: Fakes) -> None:
    fleet = Fleet(fakes)
    await fleet.start(TEXT.format(a=1))
    fakes.plays("web", Script(ready_after=None, dies_after=0.1), generation=2)
    with pytest.raises(Exception, match="exited with status 1"):
        await fleet.apply(TEXT.format(a=2))
    assert fleet["web"].generation == 1
    assert fleet.states == {"web": "ready"}
    assert fleet.supervisor.plan.service("web").environment["A"] == "1"


SINGLETON = """
    import asyncio, contextlib, fcntl, os
    import httpx

    @contextlib.asynccontextmanager
    async def lifespan(app):
        with open("lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where another one runs
            if os.environ.get("BROKEN"):
                raise RuntimeError("no room")
            yield

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            manager = lifespan(app)
            while True:
                message = await receive()
                if message["type"] == "lifespan.startup":
                    try:
                        await manager.__aenter__()
                    except Exception as error:
                        await send({"type": "lifespan.startup.failed", "message": repr(error)})
                        return
                    await send({"type": "lifespan.startup.complete"})
                else:
                    await manager.__aexit__(None, None, None)
                    await send({"type": "lifespan.shutdown.complete"})
                    return
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"connection", b"close")]})
        await send({"type": "http.response.body", "body": os.environ["A"].encode()})
"""


class Asking:
    """A client that asks on, on a connection of its own each time."""

    def __init__(self, daemon: ServdProcess) -> None:
        self.answers: list[str] = []
        self._url = daemon.url("web")
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                self.answers.append(httpx.get(self._url, timeout=DEADLINE).text)
            except httpx.HTTPError as error:
                self.answers.append(repr(error))

    def __enter__(self) -> Asking:
        self._thread.start()
        self.until("1")
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def until(self, answer: str) -> None:
        """Waits for five more of such an answer."""
        seen = len(self.answers)
        wait_until(lambda: self.answers[seen:].count(answer) >= 5, f"{answer} is answered")


def config(a: int, more: str = "") -> str:
    return TEXT.format(a=a).replace('A = "', f'{more}A = "')


def test_nothing_is_lost_and_two_never_run(servd: Servd) -> None:
    daemon = servd(config(1), main_py=SINGLETON).ready()
    with Asking(daemon) as asking:
        assert daemon.reload(config(2))["outcome"] == "applied"
        asking.until("2")
        failed = daemon.reload(config(3, 'BROKEN = "yes", '))
        assert failed["outcome"] == "rolled_back"
        assert "no room" in json.dumps(failed)
        asking.until("2")
        assert daemon.act("web", "restart")["outcome"] == "applied"
        asking.until("2")
        daemon.edit(config(2))
        answer = daemon.upgrade()
        assert answer["outcome"] == "replaced", answer
        daemon.wait_for("service ready", service="web", pid=daemon.pid)
        asking.until("2")
    assert set(asking.answers) == {"1", "2"}
    assert "BlockingIOError" not in daemon.output
    assert daemon.stop() == 0


def test_plan_says_what_it_does(servd: Servd, tmp_path: Path) -> None:
    daemon = servd(config(1), main_py=SINGLETON).ready()
    daemon.edit(config(2))
    shown = daemon.cli("plan")
    assert "recreate: old workers stop before new ones start; connections wait" in shown.stdout
    assert daemon.stop() == 0
