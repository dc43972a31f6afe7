"""Programs that bind an address of their own without saying so."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx

from servd.host.listening import chosen_ports, listening
from servd.supervisor.found_addresses import AddressFinder
from servd.supervisor.sockets.pool import SocketPool
from servd.supervisor.worker_registry import WorkerRegistry

from support.harness import Servd, ServdProcess, free_port, wait_until
from support.virtual_time import virtual_time

LATE = """
import http.server, os, time
while not os.path.exists("go"):
    time.sleep(0.01)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(str(os.getpid()).encode())

http.server.ThreadingHTTPServer(("127.0.0.1", PORT), Handler).serve_forever()
"""
SHARED = """
import os, socket, time
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
sock.bind(("127.0.0.1", int(os.environ["AT"])))
sock.listen()
time.sleep(1000)
"""


def test_the_kernel_tells_what_a_process_listens_on() -> None:
    with (
        tempfile.TemporaryDirectory() as folder,
        socket.socket() as v4,
        socket.socket(socket.AF_INET6) as v6,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
        socket.socket() as connected,
    ):
        v4.bind(("127.0.0.1", 0))
        v6.bind(("::1", 0))
        unix.bind(f"{folder}/a.sock")
        abstract.bind(f"\0{folder}")
        for sock in (v4, v6, unix, abstract):
            sock.listen()
        connected.connect(v4.getsockname())
        port, port6 = v4.getsockname()[1], v6.getsockname()[1]
        assert port in chosen_ports()
        found = listening([os.getpid()])
        wanted = {f"127.0.0.1:{port}", f"[::1]:{port6}", f"unix:{folder}/a.sock"}
        assert wanted <= found
        assert not any(folder in address for address in found - wanted)
        inode = os.fstat(v4.fileno()).st_ino
        assert f"127.0.0.1:{port}" not in listening([os.getpid()], but=[inode])
    assert not wanted & listening([os.getpid()])
    assert listening([2**22]) == set()


def found(daemon: ServdProcess, name: str) -> list[str]:
    addresses: list[str] = daemon.service(name)["binds_itself"]
    return addresses


def test_it_is_found_shown_interrupted_and_has_one_worker(servd: Servd) -> None:
    port, late = free_port(), free_port()
    config = f"""
        [services.named]
        command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "{port}"]
        [services.late]
        command = ["python3", "late.py"]
    """
    go = servd.folder / "go"
    go.touch()
    daemon = servd(config, late_py=LATE.replace("PORT", str(late))).ready()
    for name, address in (("named", f"127.0.0.1:{port}"), ("late", f"127.0.0.1:{late}")):
        wait_until(lambda: found(daemon, name) == [address], "it is found")  # noqa: B023
        shown = f"{address} (bound by the program, not in the config)"
        assert shown in daemon.cli("status").stdout

    before = httpx.get(f"http://127.0.0.1:{late}/").text
    go.unlink()
    with daemon.running("restart", "late") as restart:
        daemon.wait_for("reload planned", reason="restart of late", changes=["~ late interrupt"])
        wait_until(lambda: daemon.service("late")["state"] == "starting", "it waits for its port")
        go.touch()
        assert restart.wait(90) == 0
    # it is ready only now that it listens
    assert httpx.get(f"http://127.0.0.1:{late}/").text != before
    assert daemon.cli("restart", "named").returncode == 0
    plan = daemon.cli("plan")
    assert "No changes" in plan.stdout

    # what it had bound before is not chance
    for name in ("named", "late"):
        refused = daemon.cli("scale", f"{name}=2")
        assert refused.returncode == 1
        only_one = f"{name} can have only one worker: the program itself binds 127.0.0.1:"
        assert only_one in refused.stderr
    answer = daemon.reload(config.replace("[services.late]", "workers = 2\n[services.late]"))
    assert "services.named.workers: the program itself binds" in str(answer)
    assert daemon.status()["last_reload"]["outcome"] == "invalid"

    daemon.edit(config + '\nenv = { X = "1" }\n')
    shown = daemon.cli("plan").stdout
    assert "~ late  interrupt" in shown
    assert daemon.reload()["outcome"] == "applied"
    assert daemon.upgrade()["outcome"] == "replaced"
    daemon.ready()
    wait_until(lambda: daemon.service("late")["state"] == "ready", "it runs under the new daemon")
    assert httpx.get(f"http://127.0.0.1:{late}/").status_code == 200
    assert daemon.stop() == 0


@virtual_time
async def test_only_services_whose_time_has_come_are_looked_at() -> None:
    """Twice as late each time; the start of one worker concerns its own service alone."""
    services = {name: _Program(name) for name in ("old", "new")}
    registry = WorkerRegistry()
    finder = AddressFinder(cast("Any", services), SocketPool(), registry)
    looks: list[tuple[float, str]] = []

    async def look(due: list[_Program]) -> bool:
        looks.extend((asyncio.get_running_loop().time(), service.plan.name) for service in due)
        return False

    finder._look = look  # type: ignore[assignment, method-assign]  # it would read /proc
    began = asyncio.get_running_loop().time()

    def started(name: str) -> None:
        services[name].begin()
        registry.add(0, cast("Any", services[name].plan), "")

    started("old")
    for tick in range(40):
        if tick == 20:
            started("new")
        await finder.look_at_due()
        await asyncio.sleep(0.5)
    seen = [(at - began, name) for at, name in looks]
    assert [at for at, name in seen if name == "old"] == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]
    assert [at for at, name in seen if name == "new"] == [10.5, 11.0, 12.0, 14.0, 18.0]


class _Program:
    """A service whose command binds nothing of which the configuration tells."""

    def __init__(self, name: str) -> None:
        self.plan = SimpleNamespace(
            name=name, app=None, command=("x",), is_task=False, binds_itself=False
        )
        self.processes: list[SimpleNamespace] = []

    def begin(self) -> None:
        self._began = asyncio.get_running_loop().time()
        self.processes = [self]  # type: ignore[list-item]  # its only worker

    @property
    def lived(self) -> float:
        return asyncio.get_running_loop().time() - self._began


CHANCE = """
import socket, time
sock = socket.create_server(("127.0.0.1", 0))
time.sleep(1000)
"""
HELPER = """
import os, socket, time
try:
    helper = socket.create_server(("127.0.0.1", int(os.environ["AT"])))
except OSError:
    pass  # a sibling has it
time.sleep(1000)
"""


def replace_one(daemon: ServdProcess, name: str) -> None:
    """Kills a worker; returns once another is ready in its place."""
    pid = daemon.pids(name)[-1]
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: pid not in daemon.pids(name), "it has gone")
    wait_until(lambda: daemon.service(name)["state"] == "ready", "it is replaced")


def test_what_workers_share_or_do_without_is_in_nobodys_way(servd: Servd) -> None:
    config = f"""
        [services.shared]
        command = ["python3", "shared.py"]
        env = {{ AT = "{free_port()}" }}
        [services.chance]
        command = ["python3", "chance.py"]
        workers = 2
        [services.helper]
        command = ["python3", "helper.py"]
        workers = 2
        env = {{ AT = "{free_port()}" }}
        [services.dies]
        command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "{free_port()}"]
        workers = 2
        restart = {{ policy = "never" }}
    """
    daemon = servd(config, shared_py=SHARED, chance_py=CHANCE, helper_py=HELPER).ready()
    said = daemon.wait_for("undeclared listener", service="dies")
    assert "a second worker cannot" in said["error"]
    wait_until(lambda: len(found(daemon, "chance")) == 2, "what it binds is shown")
    for name, workers in (("shared", 2), ("chance", 3), ("helper", 3)):
        assert daemon.act(name, "scale", workers=workers)["outcome"] == "applied"
        answer = daemon.act(name, "restart")
        assert answer["outcome"] == "applied"
        assert [change["kind"] for change in answer["changes"]] == ["roll"]
        replace_one(daemon, name)
    assert found(daemon, "shared") == found(daemon, "helper") == []


def test_a_program_that_binds_less_than_before_is_ready_all_the_same(servd: Servd) -> None:
    two = """
    import os, socket, time
    socks = [socket.create_server(("127.0.0.1", int(p))) for p in os.environ["AT"].split()]
    time.sleep(1000)
    """
    one, other = free_port(), free_port()
    config = """
        [services.web]
        command = ["python3", "two.py"]
        env = { AT = "PORTS" }
    """
    daemon = servd(config.replace("PORTS", f"{one} {other}"), two_py=two).ready()
    wait_until(lambda: len(found(daemon, "web")) == 2, "both are found")
    answer = daemon.reload(config.replace("PORTS", str(one)))
    assert answer["outcome"] == "applied"
    assert [change["kind"] for change in answer["changes"]] == ["interrupt"]
    wait_until(lambda: found(daemon, "web") == [f"127.0.0.1:{one}"], "the other is forgotten")
    assert daemon.stop() == 0


def test_a_program_on_a_socket_of_servd_is_recreated_where_it_binds_more(
    servd: Servd, tmp_path: Path
) -> None:
    port = free_port()
    program = """
    import http.server, os, socket, sys, threading
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
    extra = http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    main = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    main.socket = socket.socket(fileno=3)
    main.serve_forever()
    """
    daemon = servd(
        f"""
        [services.web]
        command = ["python3", "program.py", "{port}"]
        listen = "127.0.0.1:0"
        """,
        program_py=program,
    ).ready()
    wait_until(lambda: found(daemon, "web") == [f"127.0.0.1:{port}"], "it is found")
    with daemon.asking("web") as answers:
        assert daemon.cli("restart", "web").returncode == 0
    assert [answer.result().status_code for answer in answers] == [200]
    assert daemon.get("web").status_code == 200
    assert daemon.find("reload planned")[0]["changes"] == ["~ web roll"]
    assert daemon.stop() == 0
