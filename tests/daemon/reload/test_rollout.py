"""What is added, removed, waits, failed before, or is only adjusted."""

from __future__ import annotations

import os
import signal
import socket
import stat
from typing import Any

import httpx
import pytest

from support.apps import BINDS_ITSELF, CALLER, PLAIN, SLEEP, plain, web
from support.harness import DEADLINE, Servd, free_port, wait_until


def kinds(answer: dict[str, Any]) -> dict[str, str]:
    assert answer.get("outcome") == "applied", answer
    return {change["service"]: change["kind"] for change in answer["changes"]}


def test_services_come_and_go_in_the_order_of_the_graph(servd: Servd) -> None:
    one = f"[services.a]\n{SLEEP}\n"
    chain = one + "".join(
        f'[services.{name}]\n{SLEEP}\ndepends_on = ["{need}"]\n' for name, need in ("ba", "cb")
    )
    daemon = servd(one).ready()
    pids = daemon.pids("a")
    assert kinds(daemon.reload(chain)) == {"b": "add", "c": "add"}
    daemon.wait_for("worker ready", service="c")
    ready = [e["service"] for e in daemon.find("worker ready")]
    assert ready == ["a", "b", "c"]
    assert kinds(daemon.reload(one, wait_drained=True)) == {"c": "remove", "b": "remove"}
    daemon.wait_for("service stopped", service="b")
    stopped = [e["service"] for e in daemon.find("service stopped")]
    assert stopped == ["c", "b"]
    assert daemon.pids("a") == pids
    assert [s["name"] for s in daemon.status()["services"]] == ["a"]


def test_dependents_roll_after_their_dependency_and_others_meanwhile(
    servd: Servd,
) -> None:
    slow = plain("time.sleep(0.5)")

    def config(value: int) -> str:
        return f"""
            [defaults]
            env = {{ V = "{value}" }}
            [services.web]
            app = "main:app"
            depends_on = ["backend"]
            [services.backend]
            app = "main:app"
            [services.apart]
            app = "main:app"
        """

    daemon = servd(config(1), main_py=slow).ready()
    answer = daemon.reload(config(2))
    assert kinds(answer) == {"apart": "roll", "backend": "roll", "web": "roll"}
    happened = [
        (event["event"].removeprefix("service ").removeprefix("worker "), event["service"])
        for event in daemon.events
        if event["event"] == "service rolling"
        or (event["event"] == "worker ready" and event["generation"] == 2)
    ]
    at = {what: index for index, what in enumerate(happened)}
    assert at["rolling", "apart"] < at["ready", "backend"]
    assert at["rolling", "backend"] < at["ready", "apart"]
    assert at["ready", "backend"] < at["rolling", "web"]


def test_a_name_that_comes_back_goes_on_counting_its_generations(servd: Servd) -> None:
    both = f"[services.a]\n{SLEEP}\n[services.b]\n{SLEEP}\n"
    one = f"[services.a]\n{SLEEP}\n"
    daemon = servd(both).ready()
    daemon.reload(one)
    assert kinds(daemon.reload(both)) == {"b": "add"}
    assert daemon.service("b")["generation"] == 2


def test_a_live_change_keeps_every_worker(servd: Servd) -> None:
    port = free_port()
    daemon = servd(web(listen=f"127.0.0.1:{port}"), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    extra = """
        backlog = 7
        log.level = "debug"
        public_url = "https://example.org"
        restart = { backoff = "2s" }
        timeouts.startup = "9s"
    """
    answer = daemon.reload(web(listen=f"127.0.0.1:{port}", extra=extra))
    assert kinds(answer) == {"web": "live"}
    assert daemon.pids("web") == pids
    web_now = daemon.service("web")
    assert (web_now["generation"], web_now["public_url"]) == (1, "https://example.org")
    listening = [line for line in _listening(port) if line]
    assert listening == ["7"]


def _listening(port: int) -> list[str]:
    """The backlog of the listener on `port`, as the kernel has it."""
    import subprocess

    done = subprocess.run(
        ["ss", "-ltnH", f"sport = :{port}"], capture_output=True, text=True, check=True
    )
    return [line.split()[2] for line in done.stdout.splitlines()]


def test_the_mode_of_a_unix_socket_changes_in_place(servd: Servd) -> None:
    def config(mode: str) -> str:
        return web(listen="unix:web.sock", extra=f'socket = {{ mode = "{mode}" }}')

    daemon = servd(config("0600"), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    assert kinds(daemon.reload(config("0660"))) == {"web": "live"}
    assert stat.S_IMODE(os.stat(servd.folder / "web.sock").st_mode) == 0o660
    assert daemon.pids("web") == pids


def test_a_broken_service_is_mended_by_an_edit(servd: Servd) -> None:
    """At first start: its dependent waits, and starts by itself once the edit is applied."""

    def config(app: str) -> str:
        return f"""
            [services.web]
            app = "caller:app"
            listen = "127.0.0.1:0"
            depends_on = ["backend"]
            [services.backend]
            app = "{app}"
            env = {{ V = "mended" }}
            restart.give_up_after = 1
        """

    daemon = servd(config("nosuch:app"), main_py=PLAIN, caller_py=CALLER).ready()
    assert daemon.service("web")["state"] == "waiting"
    assert kinds(daemon.reload(config("main:app"))) == {"backend": "roll"}
    wait_until(lambda: daemon.service("web")["state"] == "ready", "the dependent starts")
    assert daemon.get("web").text == "mended"


def test_what_is_not_ready_and_does_not_change_fails_no_reload(servd: Servd) -> None:
    def config(value: int) -> str:
        return f"""
            {web(value)}
            [services.broken]
            app = "nosuch:app"
            restart.give_up_after = 1
            [services.needy]
            app = "main:app"
            depends_on = ["broken"]
            env = {{ V = "{value}" }}
        """

    daemon = servd(config(1), main_py=PLAIN).ready()
    assert kinds(daemon.reload(config(2))) == {"web": "roll", "needy": "roll"}
    assert daemon.get("web").text == "2"
    assert daemon.service("needy")["state"] == "waiting"


def test_a_reload_retries_what_had_failed(servd: Servd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        config = web(listen=f"127.0.0.1:{port}") + 'restart.backoff = "1h"\n'
        daemon = servd(config, main_py=PLAIN).ready()
        assert daemon.service("web")["state"] == "backoff"
    assert daemon.reload()["outcome"] == "unchanged"
    wait_until(lambda: daemon.service("web")["state"] == "ready", "the address is free now")
    assert daemon.get("web").text == "1"


def test_a_reload_does_not_wait_for_the_first_start_to_be_over(servd: Servd) -> None:
    """A service that takes its time does not keep an edit of another from being applied."""
    slow = "import time; time.sleep(10000)\n"

    def config(value: int) -> str:
        return f'{web(value)}\n[services.slow]\napp = "slow:app"\n'

    daemon = servd(config(1), main_py=PLAIN, slow_py=slow)
    daemon.wait_for("service ready", service="web")
    wait_until((daemon.runtime / "admin.sock").exists, "the admin socket")
    assert kinds(daemon.reload(config(2))) == {"web": "roll"}
    assert daemon.get("web").text == "2"


def test_a_stop_during_a_reload_leaves_nothing(servd: Servd) -> None:
    slow = plain("time.sleep(10000)")
    daemon = servd(web(1), main_py=PLAIN, slow_py=slow).ready()
    daemon.edit(web(2).replace("main:app", "slow:app"))
    daemon.send(signal.SIGHUP)
    daemon.wait_for("service rolling")
    assert daemon.stop() == 0


def test_many_workers_need_not_fit_through_the_gate_at_once(servd: Servd) -> None:
    def config(value: int) -> str:
        return "[daemon]\nstart_concurrency = 1\n" + web(value, workers=4)

    daemon = servd(config(1), main_py=PLAIN).ready()
    assert kinds(daemon.reload(config(2))) == {"web": "roll"}
    assert len(daemon.pids("web")) == 4


def test_a_command_on_a_socket_of_servd_rolls_beside_the_old(servd: Servd) -> None:
    server = """
        import http.server, os, signal, socket, sys

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                body = sys.argv[1].encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        class Server(http.server.ThreadingHTTPServer):
            def server_bind(self):
                self.socket = socket.socket(fileno=3)
                self.server_address = self.socket.getsockname()
            def server_activate(self):
                pass

        Server(("", 0), Handler, bind_and_activate=True).serve_forever()
    """

    def config(value: int) -> str:
        return f"""
            [services.web]
            command = ["python3", "server.py", "{value}"]
            listen = "127.0.0.1:0"
        """

    daemon = servd(config(1), server_py=server).ready()
    wait_until(lambda: daemon.get("web").text == "1", "the first answers")
    assert kinds(daemon.reload(config(2))) == {"web": "roll"}
    wait_until(lambda: daemon.get("web").text == "2", "the second answers")
    assert daemon.service("web")["generation"] == 2


def test_an_app_gives_way_to_a_command_that_binds_the_same_address(servd: Servd) -> None:
    port = free_port()
    app = web(1, listen=f"127.0.0.1:{port}")
    program = f"""
        [services.web]
        command = ["python3", "-c", "{BINDS_ITSELF}", "{{port}}", "0"]
        listen = "127.0.0.1:{port}"
    """
    daemon = servd(app, main_py=PLAIN).ready()
    daemon.edit(program)
    (planned,) = daemon.ask("GET", "/v1/plan").json()["changes"]
    assert planned["kind"] == "interrupt"
    assert "interrupts" in planned["notes"][0]
    assert kinds(daemon.reload()) == {"web": "interrupt"}
    assert "Directory listing" in daemon.get("web").text
    assert kinds(daemon.reload(app)) == {"web": "interrupt"}
    assert daemon.get("web").text == "1"
    assert daemon.service("web")["generation"] == 3
    assert daemon.stop() == 0


def test_a_command_that_binds_any_port_keeps_the_one_that_it_was_told(servd: Servd) -> None:
    def config(value: int) -> str:
        return f"""
            [services.web]
            command = ["python3", "-m", "http.server", "{{port}}", "--bind", "127.0.0.1"]
            listen = "127.0.0.1:0"
            env = {{ V = "{value}" }}
        """

    daemon = servd(config(1)).ready()
    (url,) = daemon.service("web")["listen"]
    assert "Directory listing" in httpx.get(url, timeout=DEADLINE).text
    assert daemon.reload()["outcome"] == "unchanged"
    assert kinds(daemon.reload(config(2))) == {"web": "interrupt"}
    assert daemon.service("web")["listen"] == [url]
    assert "Directory listing" in httpx.get(url, timeout=DEADLINE).text
    assert daemon.stop() == 0


def test_a_change_of_one_of_many_services_touches_no_other(servd: Servd) -> None:
    def config(value: int) -> str:
        return "".join(
            f"[services.s{n}]\n{SLEEP}\nenv = {{ V = '{value if n == 7 else 0}' }}\n"
            for n in range(30)
        )

    daemon = servd(config(1)).ready()
    before = {s["name"]: s["processes"][0]["pid"] for s in daemon.status()["services"]}
    assert kinds(daemon.reload(config(2))) == {"s7": "roll"}
    after = {s["name"]: s["processes"][0]["pid"] for s in daemon.status()["services"]}
    assert [name for name in before if before[name] != after[name]] == ["s7"]


def test_a_unix_socket_moves_to_another_path(servd: Servd) -> None:
    import httpx

    def ask(path: str) -> str:
        transport = httpx.HTTPTransport(uds=str(servd.folder / path))
        with httpx.Client(transport=transport) as client:
            return client.get("http://web/").text

    daemon = servd(web(1, listen="unix:old.sock"), main_py=PLAIN).ready()
    assert ask("old.sock") == "1"
    assert kinds(daemon.reload(web(2, listen="unix:new.sock"))) == {"web": "rebind"}
    assert ask("new.sock") == "2"
    assert not (servd.folder / "old.sock").exists()


def test_a_backlog_is_as_it_was_when_a_roll_is_undone(servd: Servd) -> None:
    port = free_port()
    listen = f"127.0.0.1:{port}"
    daemon = servd(web(listen=listen, extra="backlog = 7"), main_py=PLAIN).ready()
    broken = web(2, listen=listen, extra="backlog = 9").replace("main:app", "nosuch:app")
    assert daemon.reload(broken)["outcome"] == "rolled_back"
    assert _listening(port) == ["7"]
    assert kinds(daemon.reload(web(2, listen=listen, extra="backlog = 9"))) == {"web": "roll"}
    assert _listening(port) == ["9"]


def test_a_service_can_be_kept_stopped_and_come_back(servd: Servd) -> None:
    daemon = servd(web(workers=1), main_py=PLAIN).ready()
    assert kinds(daemon.reload(web(workers=0), wait_drained=True)) == {"web": "scale"}
    assert daemon.service("web")["state"] == "stopped"
    with pytest.raises(httpx.ConnectError):  # refused at once, instead of waiting for ever
        daemon.get("web")
    assert kinds(daemon.reload(web(workers=2))) == {"web": "scale"}
    assert daemon.service("web")["state"] == "ready"
    assert httpx.get(daemon.service("web")["listen"][0]).text == "1"


def test_max_surge_bounds_how_many_are_above(servd: Servd) -> None:
    extra = 'rollout = { max_surge = "50%" }'
    daemon = servd(web(1, workers=4, extra=extra), main_py=PLAIN).ready()
    assert kinds(daemon.reload(web(2, workers=4, extra=extra))) == {"web": "roll"}
    started = [e for e in daemon.find("worker ready", service="web") if e["generation"] == 2]
    assert [e["worker"] for e in started][:2] in ([0, 1], [1, 0])
    assert len(daemon.pids("web")) == 4
