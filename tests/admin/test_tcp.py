"""The admin API over TCP: a token, and nobody else's web pages."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support.apps import PLAIN, web
from support.harness import DEADLINE, Servd, ServdProcess, command, free_port, wait_until

TOKEN = "correct horse battery staple"


def on_tcp(servd: Servd, port: int, extra: str = f'token = "{TOKEN}"') -> ServdProcess:
    admin = f'[admin]\nlisten = "127.0.0.1:{port}"\n{extra}\n'
    return servd(admin + web(1), main_py=PLAIN).ready()


def get(port: int, route: str = "/v1/status", token: str = TOKEN, **headers: str) -> httpx.Response:
    shown = {"authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"http://127.0.0.1:{port}{route}", headers={**shown, **headers})


def test_who_shows_the_token_is_answered_and_nobody_else(servd: Servd) -> None:
    port = free_port()
    on_tcp(servd, port)
    assert get(port).status_code == 200
    for route in ("/", "/livez", "/metrics", "/v1/status", "/openapi.json", "/nosuch"):
        for token in ("", "wrong", TOKEN + "x", TOKEN[:-1]):
            answer = get(port, route, token)
            assert answer.status_code == 401, (route, token)
            assert answer.headers["www-authenticate"] == "Bearer"
            assert answer.headers["content-type"] == "application/problem+json"
    odd = httpx.get(f"http://127.0.0.1:{port}/livez", headers=[(b"authorization", b"Bearer \xff")])
    assert odd.status_code == 401
    basic = httpx.get(f"http://127.0.0.1:{port}/livez", auth=("", TOKEN))
    assert basic.status_code == 401


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "evil.example"}, 421),
        ({"host": "127.0.0.1.evil.example"}, 421),
        ({"host": ""}, 421),
        ({"host": "LOCALHOST"}, 200),
        ({"host": "localhost:1"}, 200),
        ({"host": "[::1]:1"}, 200),
        ({"host": "10.0.0.1:1"}, 200),
        ({"origin": "http://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://[::1"}, 403),
        ({"host": "[::1"}, 400),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 200),
        ({"sec-fetch-site": "none"}, 200),
    ],
)
def test_foreign_hosts_and_origins_are_refused_even_with_the_token(
    servd: Servd, headers: dict[str, str], status: int
) -> None:
    port = free_port()
    on_tcp(servd, port)
    assert get(port, **headers).status_code == status
    own = f"http://127.0.0.1:{port}"
    assert get(port, origin=own).status_code == 200


def test_a_token_file_can_be_rotated_while_it_runs(servd: Servd) -> None:
    port, file = free_port(), servd.folder / "token"
    file.write_text("first one\n")
    daemon = on_tcp(servd, port, 'token_file = "token"')
    assert get(port, token="first one").status_code == 200
    (servd.folder / "fresh").write_text("second one\n")
    (servd.folder / "fresh").replace(file)
    assert get(port, token="second one").status_code == 200
    assert get(port, token="first one").status_code == 401
    file.unlink()
    assert get(port, token="second one").status_code == 200, "the last one stays in use"
    file.write_text("")
    assert get(port, token="").status_code == 401
    assert "second one" not in daemon.output


def test_a_reload_changes_the_token_and_the_address(servd: Servd) -> None:
    port, other = free_port(), free_port()
    daemon = on_tcp(servd, port)
    admin = '[admin]\nlisten = "127.0.0.1:{}"\ntoken = "{}"\n'
    daemon.edit(admin.format(port, "another") + web(1))
    route = f"http://127.0.0.1:{port}/v1/reload"
    answer = httpx.post(route, headers={"authorization": f"Bearer {TOKEN}"}, timeout=DEADLINE)
    assert answer.json()["outcome"] == "applied"
    assert get(port).status_code == 401
    assert get(port, token="another").status_code == 200
    daemon.edit(admin.format(other, "another") + web(1))
    httpx.post(route, headers={"authorization": "Bearer another"}, timeout=DEADLINE)
    assert get(other, token="another").status_code == 200
    with pytest.raises(httpx.ConnectError):
        get(port, token="another")
    assert "another" not in daemon.output


@pytest.mark.parametrize(
    ("admin", "mistake"),
    [
        ('listen = "127.0.0.1:1"', "admin.listen: a TCP address requires a token"),
        ('listen = ":1"\ntoken = ""', "admin.listen: a TCP address requires a token"),
        ('listen = ":1"\ntoken_file = "nosuch"', "admin.token_file"),
        ('listen = ":1"\ntoken_file = "empty"', "admin.token_file"),
        ('listen = ":1"\ntoken = "a"\ntoken_file = "token"', "either token or token_file"),
    ],
)
def test_tcp_without_a_usable_token_is_a_mistake(tmp_path: Path, admin: str, mistake: str) -> None:
    (tmp_path / "main.py").write_text("app = None\n")
    (tmp_path / "token").write_text("secret")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "servd.toml").write_text(f'[admin]\n{admin}\n[services.web]\napp = "main:app"\n')
    done = command("check", folder=tmp_path)
    assert done.returncode == 78, done.stderr
    assert mistake in done.stderr


def test_a_reload_that_moves_the_api_is_answered_though_it_lasts(servd: Servd) -> None:
    slow = PLAIN.replace("asyncio.sleep(1)", "asyncio.sleep(8)")
    daemon = servd(web(1), main_py=slow).ready()
    with daemon.asking("web", "/slow"), daemon.follow("/v1/events?lines=0") as events:
        daemon.begun("web")
        daemon.edit(f'[admin]\nlisten = "unix:{servd.folder}/other.sock"\n' + web(2))
        answer = daemon.ask("POST", "/v1/reload", json={"wait_drained": True})
        assert answer.json()["outcome"] == "applied"
        assert next(events)["data"]["event"] == "reload started"  # it goes on, where it was
    assert not [event for event in daemon.events if event["level"] == "error"]
    assert daemon.stop() == 0


def test_a_taken_port_is_one_line_and_nothing_is_started(servd: Servd) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        admin = f'[admin]\nlisten = "127.0.0.1:{port}"\ntoken = "{TOKEN}"\n'
        daemon = servd(admin + web(1), main_py=PLAIN)
        assert daemon.wait() == 1
    assert f"admin: cannot listen on 127.0.0.1:{port}" in daemon.output
    assert "Traceback" not in daemon.output


def test_the_command_line_finds_the_address_and_the_token_by_itself(servd: Servd) -> None:
    port = free_port()
    (servd.folder / "token").write_text(f"{TOKEN}\n")
    daemon = on_tcp(servd, port, 'token_file = "token"')
    done = daemon.cli("scale", "web=1")
    assert done.returncode == 0, done.stderr
    wait_until(lambda: "web" in daemon.cli("status", "--json").stdout, "status")
    place = f"http://127.0.0.1:{port}"
    done = daemon.cli("status", "--admin", place, SERVD_ADMIN_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    for token, said in (
        ("", "needs a token: set SERVD_ADMIN_TOKEN"),
        ("wrong", "rejected the token"),
    ):
        done = daemon.cli("status", "--admin", place, SERVD_ADMIN_TOKEN=token)
        assert (done.returncode, done.stdout) == (1, "")
        assert said in done.stderr
        assert done.stderr.count("\n") == 1


def test_half_heads_of_strangers_keep_nobody_out_for_long(servd: Servd) -> None:
    port = free_port()
    daemon = on_tcp(servd, port)
    worker = daemon.workers("web")[0]
    with contextlib.ExitStack() as strangers:
        for _ in range(300):
            stranger = strangers.enter_context(socket.create_connection(("127.0.0.1", port)))
            stranger.sendall(b"GET /v1/status HTTP/1.1\r\n")
        files = psutil.Process(daemon.pid).num_fds
        wait_until(lambda: files() < 200, "most are closed")
        os.kill(worker, signal.SIGKILL)
        daemon.wait_for("worker exited", service="web")

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return get(port).status_code == 200
            return False

        wait_until(answers, "the owner of the token is answered")
        assert get(port).json()["services"][0]["state"] == "ready"
    assert daemon.stop() == 0


def test_bodies_without_end_are_not_read(servd: Servd) -> None:
    port = free_port()
    daemon = on_tcp(servd, port)
    before = psutil.Process(daemon.pid).memory_info().rss

    def endless() -> Iterator[bytes]:
        for _ in range(400):
            yield b" " * 65536

    headers = {"authorization": f"Bearer {TOKEN}", "content-type": "application/json"}
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.post(
            f"http://127.0.0.1:{port}/v1/reload", content=endless(), headers=headers
        )
        assert answer.status_code >= 400
    assert psutil.Process(daemon.pid).memory_info().rss - before < 40 * 2**20
    assert get(port).status_code == 200


def test_the_address_for_metrics_answers_probes_too_and_nothing_else(servd: Servd) -> None:
    port = free_port()
    daemon = servd(f'[admin]\nmetrics = "127.0.0.1:{port}"\n' + web(1), main_py=PLAIN).ready()

    def status(path: str) -> int:
        return httpx.get(f"http://127.0.0.1:{port}{path}", timeout=DEADLINE).status_code

    assert status("/livez") == status("/readyz") == status("/readyz?verbose") == 200
    assert status("/v1/status") == status("/v1/config") == status("/") == 404
    assert httpx.post(f"http://127.0.0.1:{port}/v1/reload", json={}).status_code == 404
    daemon.act("web", "stop")
    assert status("/livez") == 200
    assert status("/readyz?exclude=web") == 200


def test_metrics_are_told_to_no_page_of_a_stranger(servd: Servd) -> None:
    port = free_port()
    servd(f'[admin]\nmetrics = "127.0.0.1:{port}"\n' + web(1), main_py=PLAIN).ready()
    here = socket.gethostname().partition(".")[0]
    for host, status in (("evil.example", 421), (f"{here}.example", 200), ("127.0.0.1", 200)):
        url = f"http://127.0.0.1:{port}/metrics"
        assert httpx.get(url, headers={"host": host}).status_code == status
    for path in ("/readyz", "/metrics"):  # as a load balancer asks that speaks HTTP/1.0
        with socket.create_connection(("127.0.0.1", port), DEADLINE) as plain:
            plain.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
            assert plain.makefile("rb").readline().split()[1] == b"200"
