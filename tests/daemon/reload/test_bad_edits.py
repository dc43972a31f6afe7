"""A bad edit changes nothing of what runs, and says why, with its place."""

from __future__ import annotations

import re
import socket
from typing import Any

import pytest

from support.apps import BINDS_ITSELF, PLAIN, web
from support.harness import Servd, ServdProcess, command
from support.load import client_of, under_load

RAISES = 'raise RuntimeError("no such model")\n'
HANGS = """
    async def app(scope, receive, send):
        import asyncio
        print("loading for ever")
        await asyncio.sleep(3600)
"""


def refused(daemon: ServdProcess, config: str) -> dict[str, Any]:
    """The answer to a reload that fails, under a load that loses nothing by it."""
    answers: list[dict[str, Any]] = []
    tally = under_load(client_of(daemon), lambda: answers.append(daemon.reload(config)))
    assert tally.lost == []
    assert set(tally.answers) == {"1"}
    return answers[0]


def unchanged(daemon: ServdProcess, pids: list[int]) -> dict[str, Any]:
    """The status, once it is seen that what ran before still does, and nothing beside it."""
    assert daemon.pids("web") == pids
    assert {process.pid for process in daemon.descendants()} == set(pids)
    status = daemon.status()
    assert status["config"]["generation"] == 1
    assert status["services"][0]["state"] == "ready"
    assert status["services"][0]["generation"] == 1
    assert status["services"][0]["draining"] == []
    return status


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (web(2).replace("main:app", "raises:app"), "RuntimeError: no such model"),
        (
            web(2, extra='timeouts.startup = "10s"').replace("main:app", "hangs:app"),
            "was not ready within 10 s",
        ),
    ],
)
def test_an_app_that_does_not_start_is_undone(servd: Servd, broken: str, reason: str) -> None:
    daemon = servd(web(), main_py=PLAIN, raises_py=RAISES, hangs_py=HANGS).ready()
    pids = daemon.pids("web")
    answer = refused(daemon, broken)
    assert answer["outcome"] == "rolled_back"
    assert answer["service"] == "web"
    assert reason in answer["detail"]
    assert answer["last_lines"] != []
    status = unchanged(daemon, pids)
    assert status["last_reload"]["outcome"] == "rolled_back"
    assert reason in status["last_reload"]["error"]
    assert daemon.reload(web(2))["outcome"] == "applied"
    assert daemon.service("web")["generation"] == 3  # the failed attempt consumed a number


def test_an_address_that_is_taken_is_undone(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        answer = refused(daemon, web(2, listen=f"127.0.0.1:{port}"))
    assert answer["outcome"] == "rolled_back"
    assert answer["detail"] == (
        f"web: cannot listen on 127.0.0.1:{port}: the address is in use by another process"
    )
    unchanged(daemon, pids)


def test_a_syntax_error_is_reported_with_its_place_and_touches_nothing(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    answer = refused(daemon, web(2) + "\n[services.web\n")
    assert answer["outcome"] == "invalid"
    assert "servd.toml:" in answer["details"][0]
    status = unchanged(daemon, pids)
    assert status["last_reload"]["details"] == answer["details"]
    assert daemon.find("reload failed", outcome="invalid")[0]["details"] == answer["details"]


def test_one_bad_service_undoes_all_of_a_reload(servd: Servd) -> None:
    def config(value: int, other: str, extra: str = "") -> str:
        return f"""
            [services.web]
            app = "main:app"
            listen = "127.0.0.1:0"
            env = {{ V = "{value}" }}
            [services.other]
            app = "{other}"
            env = {{ V = "{value}" }}
            depends_on = ["web"]
            {extra}
        """

    daemon = servd(config(1, "main:app"), main_py=PLAIN, raises_py=RAISES).ready()
    pids = daemon.pids("web"), daemon.pids("other")
    added = '[services.third]\ncommand = ["sleep", "1000"]'
    answer = daemon.reload(config(2, "raises:app", added))
    assert (answer["outcome"], answer["service"]) == ("rolled_back", "other")
    assert (daemon.pids("web"), daemon.pids("other")) == pids
    assert {p.pid for p in daemon.descendants()} == {*pids[0], *pids[1]}
    assert [s["name"] for s in daemon.status()["services"]] == ["web", "other"]
    assert daemon.get("web").text == "1"


def test_a_command_that_ends_at_once_is_undone(servd: Servd) -> None:
    def config(*program: str) -> str:
        return f"[services.job]\ncommand = {list(program)}\n"

    daemon = servd(config("sleep", "1000")).ready()
    pids = daemon.pids("job")
    answer = daemon.reload(config("sh", "-c", "echo no database; exit 4"))
    assert answer["outcome"] == "rolled_back"
    assert answer["last_lines"] == ["no database"]
    assert daemon.pids("job") == pids


def test_one_by_one_puts_back_what_it_had_drained(servd: Servd) -> None:
    """The second new worker fails, when the first old one has already gone."""
    sometimes = """
        import os
        from main import app
        if os.environ["SERVD_WORKER"] == "1":
            raise RuntimeError("out of memory")
    """
    extra = 'rollout = { strategy = "one-by-one" }'
    good = web(workers=3, extra=extra)
    daemon = servd(good, main_py=PLAIN, sometimes_py=sometimes).ready()
    before = daemon.pids("web")
    answer = daemon.reload(web(2, workers=3, extra=extra).replace("main:app", "sometimes:app"))
    assert answer["outcome"] == "rolled_back"
    assert "out of memory" in answer["detail"]
    web_now = daemon.service("web")
    assert (web_now["state"], web_now["generation"]) == ("ready", 1)
    assert daemon.pids("web")[1:] == before[1:]
    assert daemon.get("web").text == "1"


def test_an_interrupted_command_comes_back_when_its_successor_fails(servd: Servd) -> None:
    def config(code: str) -> str:
        return f"""
            [services.web]
            command = ["python3", "-c", "{code}", "{{port}}", "0"]
            ready = "port"
        """

    daemon = servd(config(BINDS_ITSELF)).ready()
    (before,) = daemon.pids("web")
    plan = daemon.ask("GET", "/v1/plan").json()
    assert plan["changes"] == []
    answer = daemon.reload(config("import sys; sys.exit('broken')"))
    assert answer["outcome"] == "rolled_back"
    (after,) = daemon.pids("web")
    assert after != before
    assert daemon.service("web")["state"] == "ready"
    assert daemon.service("web")["generation"] == 1


def test_the_command_line_prints_the_reason_and_exits_1(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN, raises_py=RAISES).ready()
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime)}

    def reload(config: str) -> Any:
        daemon.edit(config)
        return command("reload", folder=servd.folder, environ=environ)

    done = reload(web(2).replace("main:app", "raises:app"))
    assert done.returncode == 1
    said = done.stderr.splitlines()
    while re.match(r"  web (worker \d|rolling)", said[0]):  # the steps of a reload that takes long
        del said[0]
    assert said[0].startswith("rolled back: web: worker ")
    assert "RuntimeError: no such model" in done.stderr
    assert "The previous configuration is still running." in done.stderr
    done = reload(web(3).replace("workers", "wokers"))
    assert done.returncode == 1
    assert "unknown key" in done.stderr
    assert "servd.toml:5" in done.stderr
    assert daemon.get("web").text == "1"
