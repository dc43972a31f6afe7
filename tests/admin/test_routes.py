"""The admin API: probes, status, plan, restart, and who may call it."""

from __future__ import annotations

import os
import signal
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from support.apps import PLAIN, plain, web
from support.harness import Servd, command, wait_until


def test_the_daemon_is_live_and_ready_and_says_which_service_is_not(servd: Servd) -> None:
    broken = '\n[services.broken]\napp = "nosuch:app"\nrestart.give_up_after = 1\n'
    daemon = servd(web() + broken, main_py=PLAIN).ready()
    assert daemon.ask("GET", "/livez").text == "ok\n"
    answer = daemon.ask("GET", "/readyz?verbose")
    assert answer.status_code == 503
    assert "[+] web ready" in answer.text
    assert "[-] broken failed" in answer.text  # it gives up after the first death
    assert daemon.ask("GET", "/readyz?exclude=broken").status_code == 200


def test_the_daemon_is_not_ready_from_before_a_drain_on(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    daemon.remember()
    transport_path = daemon.runtime / "admin.sock"
    import httpx

    with (
        httpx.Client(
            transport=httpx.HTTPTransport(uds=str(transport_path)), base_url="http://servd"
        ) as admin,
        ThreadPoolExecutor(1) as pool,
    ):
        held = pool.submit(daemon.get, "web", "/held")
        daemon.wait_for("held")
        assert admin.get("/readyz").status_code == 200
        daemon.send(signal.SIGTERM)
        wait_until(lambda: admin.get("/readyz").status_code == 503, "not ready any more")
        assert admin.get("/v1/status").json()["state"] == "stopping"
        answer = admin.post("/v1/reload")
        assert answer.status_code == 409
        assert answer.json()["detail"] == "servd is stopping"
        (servd.folder / "go").touch()
        assert held.result().text == "1"
    assert daemon.wait() == 0


def test_the_status_has_what_the_readme_says(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    status = daemon.status()
    assert {*status} == {
        "version", "pid", "state", "started_at", "config", "last_reload", "unchanged_at",
        "last_act", "services", "predecessor",
    }  # fmt: skip
    assert (status["pid"], status["state"], status["last_reload"]) == (daemon.pid, "running", None)
    assert status["config"]["path"] == str(servd.folder / "servd.toml")
    assert status["config"]["generation"] == 1
    (service,) = status["services"]
    assert service["listen"] == [daemon.url("web")]
    assert service["workers"] == {"desired": 2, "ready": 2}
    assert [p["worker"] for p in service["processes"]] == [0, 1]
    assert all(p["rss_bytes"] > 1_000_000 for p in service["processes"])
    assert service["draining"] == []
    os.kill(service["processes"][0]["pid"], signal.SIGKILL)
    wait_until(lambda: daemon.service("web")["restarts"] == 1, "the death is counted")
    assert daemon.service("web")["last_exit"]["reason"] == "was killed by SIGKILL"


def test_a_plan_touches_nothing(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    daemon.edit(web(2, workers=3))
    plan = daemon.ask("GET", "/v1/plan").json()
    assert plan["source"] == "daemon"
    (change,) = plan["changes"]
    assert (change["service"], change["kind"]) == ("web", "roll")
    assert [key["key"] for key in change["keys"]] == ["workers", "env.V"]
    assert daemon.pids("web") == pids
    daemon.edit(web(2).replace("workers", "wrkers"))
    answer = daemon.ask("GET", "/v1/plan")
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    assert "unknown key" in answer.json()["details"][0]


def test_what_is_not_there_or_not_valid_is_a_problem(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    answer = daemon.ask("POST", "/v1/services/nosuch/restart")
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"] == "Services: web"
    assert daemon.ask("GET", "/nosuch").json()["status"] == 404
    answer = daemon.ask("POST", "/v1/reload", json={"rol": True})
    assert answer.status_code == 422
    assert "rol" in answer.json()["details"][0]


def test_restarting_all_replaces_every_service_and_reads_no_file(servd: Servd) -> None:
    both = web() + f'\n[services.job]\n{"command"} = ["sleep", "1000"]\n'
    daemon = servd(both, main_py=PLAIN).ready()
    before = {*daemon.pids("web"), *daemon.pids("job")}
    daemon.edit("this is no configuration")
    answer = daemon.ask("POST", "/v1/restart").json()
    assert [(c["service"], c["kind"], c["why"]) for c in answer["changes"]] == [
        ("job", "roll", "requested"), ("web", "roll", "requested"),
    ]  # fmt: skip
    assert not before & {*daemon.pids("web"), *daemon.pids("job")}


def test_the_socket_is_for_the_daemons_user_alone(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    found = os.stat(daemon.runtime / "admin.sock")
    assert stat.S_ISSOCK(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o600


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_group_is_let_in_and_nobody_else(servd: Servd) -> None:
    daemon = servd('[admin]\ngroup = "daemon"\n' + web(), main_py=PLAIN).ready()
    import grp

    found = os.stat(daemon.runtime / "admin.sock")
    assert (stat.S_IMODE(found.st_mode), found.st_gid) == (0o660, grp.getgrnam("daemon").gr_gid)


def test_without_the_admin_api_there_is_no_socket(servd: Servd) -> None:
    daemon = servd("[admin]\nenabled = false\n" + web(), main_py=PLAIN).ready()
    assert not (daemon.runtime / "admin.sock").exists()
    daemon.edit("[admin]\nenabled = true\n" + web())
    daemon.send(signal.SIGHUP)
    wait_until((daemon.runtime / "admin.sock").exists, "a reload switches it on")


def test_a_taken_admin_address_is_said_and_nothing_is_started(servd: Servd) -> None:
    (servd.folder / "taken").write_text("a file")
    daemon = servd(f'[admin]\nlisten = "unix:{servd.folder}/taken"\n' + web(), main_py=PLAIN)
    assert daemon.wait() == 1
    assert "admin: cannot listen on unix:" in daemon.output
    assert "Traceback" not in daemon.output
    assert not daemon.find("worker started")


@pytest.mark.parametrize(
    ("table", "mistake"),
    [
        ('listen = "fd:admin"', 'admin.listen: must be "unix:PATH" or "HOST:PORT"'),
        ('group = "nosuch"', 'admin.group: unknown group "nosuch"'),
    ],
)
def test_an_admin_table_that_makes_no_sense_is_a_mistake(
    servd: Servd, table: str, mistake: str
) -> None:
    servd.write(servd_toml=f"[admin]\n{table}\n{web()}", main_py=PLAIN)
    done = command("check", folder=servd.folder)
    assert done.returncode == 78
    assert mistake in done.stderr


def test_a_reload_that_a_stop_overtakes_gets_an_answer(servd: Servd) -> None:
    slow = plain("time.sleep(10000)")
    daemon = servd(web(1), main_py=PLAIN, slow_py=slow).ready()
    daemon.edit(web(2).replace("main:app", "slow:app"))
    environ = {"SERVD_DAEMON__RUNTIME_DIR": str(daemon.runtime)}
    found: list[Any] = []
    asking = threading.Thread(
        target=lambda: found.append(command("reload", folder=servd.folder, environ=environ))
    )
    asking.start()
    daemon.wait_for("service rolling")
    assert daemon.stop() == 0
    asking.join()
    assert found[0].returncode == 1
    assert "rolled back: servd is stopping" in found[0].stderr


def test_history_has_the_samples_that_the_caller_lacks(servd: Servd) -> None:
    program = '\n[services.program]\ncommand = ["sleep", "1000"]\n'
    daemon = servd(web() + program, main_py=PLAIN).ready()
    assert daemon.ask("GET", "/v1/history").json()["interval_seconds"] == 5
    daemon.get("web")

    def sampled() -> bool:
        services = daemon.ask("GET", "/v1/history").json()["services"]
        return any(services.get("web", {}).get("rps", ()))

    wait_until(sampled, "a sample has the request")
    whole = daemon.ask("GET", "/v1/history").json()
    assert set(whole["services"]) == {"web"}, "a command has no rates"
    figures = whole["services"]["web"]
    assert set(figures) == {"rps", "rps_4xx", "rps_5xx", "p99_ms"}
    assert {len(values) for values in figures.values()} == {whole["newest"]}
    newer = daemon.ask("GET", f"/v1/history?after={whole['newest'] - 1}").json()
    assert newer["services"]["web"]["rps"][0] == figures["rps"][-1]
    assert daemon.ask("GET", "/v1/history?after=-1").status_code == 422
