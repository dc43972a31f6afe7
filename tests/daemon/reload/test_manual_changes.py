"""Scaling, stopping and starting by hand, beside what the file says."""

from __future__ import annotations

import json
import os
import signal
import threading

import httpx
import pytest
import trustme

from support.apps import BINDS_ITSELF, HOLD, PLAIN, SLEEP, plain, web
from support.harness import Servd, ServdProcess, wait_until
from support.load import client_of, under_load
from support.strict_client import AROUND

GRAPH = f"""
    [services.front]
    {SLEEP}
    depends_on = ["middle"]
    [services.middle]
    {SLEEP}
    depends_on = ["back"]
    [services.back]
    {SLEEP}
"""


def states(daemon: ServdProcess) -> dict[str, str]:
    return {service["name"]: service["state"] for service in daemon.status()["services"]}


def test_a_scale_keeps_the_others_and_survives_a_reload_of_something_else(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    answer = daemon.act("web", "scale", workers=3)
    assert [(c["service"], c["kind"]) for c in answer["changes"]] == [("web", "scale")]
    assert daemon.pids("web")[:2] == pids
    service = daemon.service("web")
    assert service["workers"] == {"desired": 3, "ready": 3}
    assert service["by_hand"] == {"workers": 3, "file": 2}
    plan = daemon.ask("GET", "/v1/plan").json()
    assert plan["changes"] == []
    assert plan["by_hand"] == [{"service": "web", "workers": 3, "file": 2}]
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.reload(web(2))["outcome"] == "applied"  # env.V
    assert daemon.service("web")["workers"] == {"desired": 3, "ready": 3}


def test_a_scale_by_hand_lasts_until_the_file_changes_workers(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    daemon.act("web", "scale", workers=4)
    daemon.edit(web(1, workers=3))
    (change,) = daemon.ask("GET", "/v1/plan").json()["changes"]
    assert (change["kind"], change["keys"]) == (
        "scale", [{"sign": "~", "key": "workers", "before": "4 (set manually)", "after": "3"}],
    )  # fmt: skip
    assert daemon.reload()["outcome"] == "applied"
    assert daemon.service("web")["workers"]["desired"] == 3
    assert daemon.service("web")["by_hand"] is None


def test_a_scale_that_cannot_start_is_undone_and_forgotten(servd: Servd) -> None:
    breaks = plain("assert os.environ['SERVD_WORKER'] != '2', 'no third'")
    daemon = servd(web(1), main_py=breaks).ready()
    pids = daemon.pids("web")
    answer = daemon.act("web", "scale", workers=3)
    assert (answer["status"], answer["outcome"]) == (409, "rolled_back")
    assert "no third" in "\n".join(answer["last_lines"])
    assert daemon.pids("web") == pids
    assert daemon.service("web")["by_hand"] is None


def test_a_stopped_service_refuses_connections_and_comes_back(servd: Servd) -> None:
    daemon = servd(web(1, listen="unix:w.sock"), main_py=PLAIN).ready()
    generation = daemon.service("web")["generation"]
    assert daemon.act("web", "stop")["outcome"] == "applied"
    service = daemon.service("web")
    assert (service["state"], service["processes"]) == ("stopped", [])
    assert service["by_hand"] == {"workers": 0, "file": 2}
    assert not (servd.folder / "w.sock").exists()
    assert daemon.ask("GET", "/readyz").status_code == 200  # none wanted, none missing
    assert daemon.reload()["outcome"] == "unchanged"
    assert daemon.service("web")["state"] == "stopped"
    assert daemon.act("web", "start")["outcome"] == "applied"
    transport = httpx.HTTPTransport(uds=str(servd.folder / "w.sock"))
    with httpx.Client(transport=transport, base_url="http://w") as client:
        assert client.get("/").text == "1"
    assert daemon.service("web")["generation"] > generation
    assert daemon.service("web")["by_hand"] is None
    assert daemon.stop() == 0


def test_a_request_in_flight_is_answered_when_its_service_is_stopped(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    found: list[httpx.Response] = []
    asking = threading.Thread(target=lambda: found.append(daemon.get("web", "/held")))
    asking.start()
    daemon.wait_for_line("held")
    stopping = threading.Thread(target=daemon.act, args=("web", "stop"))
    stopping.start()
    wait_until(lambda: daemon.service("web")["draining"], "it is being stopped")
    (servd.folder / "go").touch()
    stopping.join()
    asking.join()
    assert (found[0].status_code, found[0].text) == (200, "1")


def test_what_others_need_is_stopped_with_them_or_not_at_all(servd: Servd) -> None:
    daemon = servd(GRAPH).ready()
    answer = daemon.act("back", "stop")
    assert (answer["status"], answer["title"]) == (409, "middle, front depend on back")
    assert states(daemon) == {"back": "ready", "middle": "ready", "front": "ready"}
    daemon.act("back", "stop", cascade=True)
    assert states(daemon) == {"back": "stopped", "middle": "stopped", "front": "stopped"}
    ended = [e["service"] for e in daemon.find("worker stopped")]
    assert ended == ["front", "middle", "back"]
    daemon.act("front", "start")
    assert states(daemon) == {"back": "ready", "middle": "ready", "front": "ready"}


ASKS = """
    import httpx, servd

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        try:
            body = (await servd.depends("backend").get("/")).content
        except httpx.ConnectError as error:
            body = str(error).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


def test_a_call_to_a_dependency_that_the_file_keeps_stopped_says_so(servd: Servd) -> None:
    both = web(1, workers=1, extra='depends_on = ["backend"]')
    both += '\n[services.backend]\napp = "back:app"\nenv.V = "here"\n'
    daemon = servd(both, main_py=ASKS, back_py=PLAIN).ready()
    assert daemon.get("web").text == "here"
    assert daemon.reload(both + "workers = 0\n", wait_drained=True)["outcome"] == "applied"
    assert 'the dependency "backend" is down' in daemon.get("web").text


def test_restart_starts_what_was_stopped_and_start_replaces_what_is_not_well(servd: Servd) -> None:
    """It does not come back by itself: its pause is an hour."""
    pause = 'restart = { backoff = "1h", backoff_max = "1h" }'
    daemon = servd(web(1, extra=pause), main_py=PLAIN).ready()
    daemon.act("web", "stop")
    assert daemon.act("web", "restart")["outcome"] == "applied"
    assert daemon.service("web")["state"] == "ready"
    (servd.folder / "main.py").write_text("import nothing_of_that_name")
    for pid in daemon.pids("web"):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.service("web")["state"] == "backoff", "it does not come back")
    answer = daemon.act("web", "start")
    assert (answer["status"], answer["outcome"]) == (409, "rolled_back")
    assert "nothing_of_that_name" in "\n".join(answer["last_lines"])
    servd.write(main_py=PLAIN)
    assert daemon.act("web", "start")["outcome"] == "applied"
    assert daemon.service("web")["state"] == "ready"


def test_a_stop_while_the_last_one_still_drains_and_a_start_right_after(servd: Servd) -> None:
    daemon = servd(web(1, listen="unix:w.sock"), main_py=PLAIN).ready()
    for _ in range(3):
        assert daemon.act("web", "stop", wait_drained=False)["outcome"] == "applied"
        assert daemon.act("web", "start")["outcome"] == "applied"
        assert daemon.service("web")["state"] == "ready"
    assert daemon.stop() == 0


def test_a_service_that_is_kept_stopped_goes_with_the_file(servd: Servd) -> None:
    two = web(1) + f"\n[services.other]\n{SLEEP}\n"
    daemon = servd(two, main_py=PLAIN).ready()
    daemon.act("other", "stop")
    assert daemon.reload(web(1))["outcome"] == "applied"
    assert list(states(daemon)) == ["web"]
    assert daemon.reload(two)["outcome"] == "applied"
    assert states(daemon)["other"] == "ready"


@pytest.mark.parametrize(
    ("verb", "body", "title"),
    [
        ("scale", {"workers": 3}, "task is a task, which runs in one process and cannot be scaled"),
        ("scale", {"workers": -1}, "Invalid request"),
        ("scale", {}, "Invalid request"),
        ("stop", {"casade": True}, "Invalid request"),
    ],
)
def test_a_request_that_makes_no_sense_changes_nothing(
    servd: Servd, verb: str, body: dict[str, int], title: str
) -> None:
    daemon = servd('[services.task]\nkind = "task"\ncommand = ["true"]\n').ready()
    answer = daemon.act("task", verb, **body)
    assert answer["title"] == title
    assert daemon.status()["last_reload"] is None


def test_if_match_lets_only_those_act_who_know_what_runs(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    seen = daemon.ask("GET", "/v1/status").headers["etag"]
    assert daemon.ask("GET", "/v1/status").headers["etag"] == seen  # whatever was measured
    route, body = "/v1/services/web/scale", {"workers": 3}
    done = daemon.ask("POST", route, json=body, headers={"if-match": seen})
    assert done.status_code == 200
    assert done.headers["etag"] not in ("", seen)
    late = daemon.ask("POST", route, json={"workers": 1}, headers={"if-match": seen})
    assert late.status_code == 412
    assert late.headers["content-type"] == "application/problem+json"
    assert daemon.service("web")["workers"]["desired"] == 3
    for tag in (f'"other", {done.headers["etag"]}', "*"):
        again = daemon.ask("POST", "/v1/reload", headers={"if-match": tag})
        assert again.status_code == 200, tag
    weak = daemon.ask("POST", "/v1/reload", headers={"if-match": f"W/{done.headers['etag']}"})
    assert weak.status_code == 412  # RFC 9110, section 13.1.1: strong comparison


def test_an_act_is_not_undone_for_a_bad_edit_that_came_between(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    daemon.edit(web(1).replace("workers", "wrkers"))
    assert daemon.reload()["outcome"] == "invalid"
    assert daemon.act("web", "scale", workers=1)["outcome"] == "applied"
    assert daemon.service("web")["workers"] == {"desired": 1, "ready": 1}


TASK = """
    [services.mig]
    kind = "task"
    command = ["sh", "-c", "[ -e slow ] && sleep 1000; echo ran >> runs"]
    timeouts.startup = "5m"
    [services.job]
    command = ["sleep", "1000"]
    depends_on = [{ service = "mig", condition = "completed" }]
"""


def test_a_task_that_is_kept_stopped_does_not_run_before_a_roll(servd: Servd) -> None:
    daemon = servd(TASK).ready()
    daemon.act("mig", "stop", cascade=True)
    assert states(daemon) == {"mig": "stopped", "job": "stopped"}
    assert daemon.reload(TASK + "workers = 2\n", roll=True)["outcome"] == "applied"
    assert states(daemon) == {"mig": "stopped", "job": "waiting"}
    assert (servd.folder / "runs").read_text() == "ran\n"
    assert daemon.act("job", "start")["outcome"] == "applied"
    assert (servd.folder / "runs").read_text() == "ran\nran\n"


def test_a_task_that_runs_can_be_stopped_and_started(servd: Servd) -> None:
    (servd.folder / "slow").touch()
    daemon = servd(TASK)
    daemon.wait_for("worker started", service="mig")
    wait_until(lambda: daemon.pids("mig"), "it runs")
    assert daemon.act("mig", "stop", cascade=True)["outcome"] == "applied"
    assert states(daemon)["mig"] == "stopped"
    (servd.folder / "slow").unlink()
    assert daemon.act("job", "start")["outcome"] == "applied"
    assert states(daemon) == {"mig": "completed", "job": "ready"}


def test_a_start_is_not_undone_by_a_stop_that_waited_for_a_drain(servd: Servd) -> None:
    chain = web(1, extra='depends_on = ["back"]') + f"\n[services.back]\n{SLEEP}\n"
    daemon = servd(chain, main_py=PLAIN).ready()
    asking = threading.Thread(target=daemon.get, args=("web", "/held"))
    asking.start()
    daemon.wait_for_line("held")
    old = daemon.pids("back")
    stopped = daemon.act("back", "stop", cascade=True, wait_drained=False)
    assert stopped["outcome"] == "applied"
    assert daemon.act("web", "start")["outcome"] == "applied"
    (servd.folder / "go").touch()
    asking.join()
    wait_until(lambda: not daemon.service("web")["draining"], "it has drained")
    daemon.wait_for("worker stopped", pid=old[0])
    assert states(daemon) == {"back": "ready", "web": "ready"}
    assert daemon.pids("back") != old
    assert daemon.stop() == 0


def test_what_a_draining_dependent_needs_stays_until_it_has_drained(servd: Servd) -> None:
    chain = web(1, workers=1, extra='depends_on = ["back"]') + f"\n[services.back]\n{SLEEP}\n"
    daemon = servd(chain, main_py=PLAIN).ready()
    asking = threading.Thread(target=daemon.get, args=("web", "/held"))
    asking.start()
    daemon.wait_for_line("held")
    daemon.act("web", "stop", wait_drained=False)
    stopping = threading.Thread(target=daemon.act, args=("back", "stop"))
    stopping.start()
    daemon.wait_for("reload started", reason="stop of back")
    assert daemon.service("web")["draining"]
    (servd.folder / "go").touch()
    stopping.join()
    asking.join()
    assert [e["service"] for e in daemon.find("worker stopped")] == ["web", "back"]


def test_a_command_that_binds_itself_starts_when_the_stopped_one_has_left(servd: Servd) -> None:
    code = BINDS_ITSELF.replace(
        "import http.server, sys, time;",
        "import http.server, os, signal, sys, time;"
        "signal.signal(signal.SIGTERM, lambda *_: (time.sleep(1), os._exit(0)));",
    )
    command = ["python3", "-c", code, "{port}", "0"]
    daemon = servd(f"[services.self]\ncommand = {json.dumps(command)}\n").ready()
    daemon.act("self", "stop", wait_drained=False)
    assert daemon.act("self", "start")["outcome"] == "applied"
    assert states(daemon) == {"self": "ready"}
    assert daemon.stop() == 0
    assert daemon.find("worker exited") == []


def test_a_service_that_grows_is_well_all_the_while(servd: Servd) -> None:
    daemon = servd(web(1, workers=1), main_py=plain(HOLD)).ready()
    (servd.folder / "hold").touch()
    growing = threading.Thread(target=lambda: daemon.act("web", "scale", workers=3))
    growing.start()
    wait_until(lambda: daemon.service("web")["workers"]["desired"] == 3, "it grows")
    assert daemon.ask("GET", "/readyz").status_code == 200
    assert daemon.service("web")["state"] == "rolling"
    (servd.folder / "hold").unlink()
    growing.join()
    assert daemon.service("web")["state"] == "ready"
    assert daemon.stop() == 0
    assert not daemon.find("service degraded")


def test_what_a_reload_has_removed_meanwhile_is_refused(servd: Servd) -> None:
    slow = web(2) + f"\n[services.job]\n{SLEEP}\n"
    daemon = servd(slow, main_py=plain("time.sleep(1)")).ready()
    daemon.edit(web(3))
    reloading = threading.Thread(target=daemon.reload)
    reloading.start()
    daemon.wait_for("reload planned")
    for verb in ("stop", "restart", "start"):
        answer = daemon.act("job", verb)
        if answer["status"] != 404:  # it came before the end of the reload
            assert (answer["status"], answer["title"]) == (
                409, 'service "job" no longer exists',
            )  # fmt: skip
    reloading.join()
    assert "internal error" not in daemon.output


def test_scaling_down_keeps_a_worker_that_is_ready(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    (servd.folder / "main.py").write_text("raise SystemExit('broken on disk')")
    first, second = daemon.pids("web")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: daemon.service("web")["state"] == "degraded", "one is gone")
    answer = daemon.act("web", "scale", workers=1)
    assert (answer["status"], answer["outcome"]) == (409, "rolled_back")
    assert "broken on disk" in answer["detail"]
    assert daemon.get("web").text == "1"
    assert second in daemon.pids("web")  # the other is tried again meanwhile
    servd.write(main_py=PLAIN)
    assert daemon.act("web", "scale", workers=1)["outcome"] == "applied"
    assert daemon.get("web").text == "1"
    assert daemon.service("web")["workers"] == {"desired": 1, "ready": 1}


def test_scaling_up_is_not_refused_for_another_worker_that_was_given_up(servd: Servd) -> None:
    gives_up = 'restart = { give_up_after = 2, backoff = "10ms" }'
    daemon = servd(web(1, extra=gives_up), main_py=PLAIN).ready()
    (servd.folder / "main.py").write_text("raise SystemExit('broken on disk')")
    os.kill(daemon.pids("web")[0], signal.SIGKILL)
    daemon.wait_for("worker exited", next_action="not restarted (restart.give_up_after reached)")
    servd.write(main_py=PLAIN)
    assert daemon.act("web", "scale", workers=3)["outcome"] == "applied"


def test_a_command_that_is_scaled_down_is_well_at_once(servd: Servd) -> None:
    daemon = servd(f"[services.job]\n{SLEEP}\nworkers = 3\n").ready()
    for workers in (1, 2, 1):
        daemon.act("job", "scale", workers=workers)
        assert states(daemon) == {"job": "ready"}
    assert daemon.stop() == 0
    assert not daemon.find("service degraded")


def test_a_certificate_that_does_not_fit_stops_nobody_from_acting(servd: Servd) -> None:
    issued = [trustme.CA().issue_cert("localhost") for _ in range(2)]
    issued[0].private_key_pem.write_to_path(servd.folder / "key.pem")
    issued[0].cert_chain_pems[0].write_to_path(servd.folder / "cert.pem")
    tls = '\n[services.web.tls]\ncertfile = "cert.pem"\nkeyfile = "key.pem"\n'
    daemon = servd(web(1) + tls + f"[services.job]\n{SLEEP}\n", main_py=PLAIN).ready()
    issued[1].cert_chain_pems[0].write_to_path(servd.folder / "cert.pem")
    assert daemon.act("job", "scale", workers=2)["outcome"] == "applied"
    (servd.folder / "cert.pem").unlink()
    for verb in ("restart", "stop", "start"):
        assert daemon.act("job", verb)["outcome"] == "applied", verb


def test_what_a_service_needs_comes_along_with_a_scale_and_a_restart_too(servd: Servd) -> None:
    daemon = servd(GRAPH).ready()
    everything = {"back": "ready", "middle": "ready", "front": "ready"}
    for verb, body in (("scale", {"workers": 2}), ("restart", {}), ("start", {})):
        daemon.act("back", "stop", cascade=True)
        assert daemon.act("front", verb, **body)["outcome"] == "applied"
        assert states(daemon) == everything, verb


def test_a_start_replaces_a_failed_dependency_or_says_why_it_cannot(
    servd: Servd,
) -> None:
    config = web(1, workers=1, extra='depends_on = ["back"]')
    config += '\n[services.back]\napp = "back:app"\nrestart = { give_up_after = 1 }\n'
    daemon = servd(config, main_py=PLAIN, back_py="raise SystemExit('no model')").ready()
    assert states(daemon) == {"back": "failed", "web": "waiting"}
    for verb in ("start", "restart"):
        answer = daemon.act("web", verb)
        assert answer["status"] == 409, verb
        assert "no model" in "\n".join([answer["detail"], *answer["last_lines"]])
    servd.write(back_py=PLAIN)
    assert daemon.act("web", "start")["outcome"] == "applied"
    assert states(daemon) == {"back": "ready", "web": "ready"}


def test_a_start_that_would_wait_for_ever_is_refused(servd: Servd) -> None:
    config = f'[services.web]\n{SLEEP}\ndepends_on = ["db"]\n[services.db]\n{SLEEP}\nworkers = 0\n'
    daemon = servd(config).ready()
    answer = daemon.act("web", "start")
    assert (answer["status"], answer["title"]) == (
        409, "web depends on db, which has workers = 0 in the config",
    )  # fmt: skip
    assert answer["detail"] == "start a worker with `servd scale db=1`"


def test_acts_leave_what_has_failed_elsewhere_alone(servd: Servd) -> None:
    config = f"""
        [services.job]
        {SLEEP}
        [services.mig]
        kind = "task"
        command = ["sh", "-c", "echo ran >> runs; exit 1"]
    """
    daemon = servd(config).ready()
    daemon.act("job", "scale", workers=2)
    daemon.act("job", "restart")
    assert (servd.folder / "runs").read_text() == "ran\n"
    daemon.reload()  # which tries again what has failed
    wait_until(lambda: (servd.folder / "runs").read_text() == "ran\nran\n", "it ran again")


def test_an_act_does_not_hide_that_the_file_is_broken(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    daemon.edit(web(1).replace("workers", "wrkers"))
    assert daemon.reload()["outcome"] == "invalid"
    daemon.act("web", "scale", workers=1)
    assert daemon.metric("servd_config_last_reload_successful") == 0
    status = daemon.status()
    assert status["last_reload"]["outcome"] == "invalid"
    assert (status["last_act"]["outcome"], status["last_act"]["why"]) == ("applied", "scale of web")
    shown = daemon.cli("status").stdout
    assert "last reload: invalid" in shown
    assert "last manual action: applied" in shown


def test_scaling_by_hand_up_and_down_under_load_loses_nothing(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()

    def scale() -> None:
        for workers in (4, 1, 3, 2):
            answer = daemon.act("web", "scale", workers=workers)
            assert answer.get("outcome") == "applied", answer

    tally = under_load(client_of(daemon), scale)
    assert tally.lost == []
    assert tally.answered > 2 * AROUND


def test_what_needs_a_stopped_service_is_back_with_it_and_loses_nothing_else(
    servd: Servd,
) -> None:
    chain = web(1, extra='depends_on = ["back"]') + f"\n[services.back]\n{SLEEP}\n"
    chain += '\n[services.other]\napp = "main:app"\nlisten = "127.0.0.1:0"\nlog.access = false\n'
    daemon = servd(chain, main_py=PLAIN).ready()

    def stop_and_start() -> None:
        for _ in range(3):
            daemon.act("back", "stop", cascade=True)
            answer = daemon.act("web", "start")
            assert answer.get("outcome") == "applied", answer

    tally = under_load(client_of(daemon, "other"), stop_and_start)
    assert tally.lost == []
    assert states(daemon) == {"back": "ready", "web": "ready", "other": "ready"}
