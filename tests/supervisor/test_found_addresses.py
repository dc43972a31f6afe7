"""Programs that bind an address of their own without saying so."""

from __future__ import annotations

import os
import socket
import tempfile
from pathlib import Path

import httpx

from servd.host.listening import chosen_ports, listening

from support.harness import Servd, ServdProcess, free_port, wait_until

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
        assert f"{address} (by itself)" in daemon.cli("status").stdout

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
    assert "nothing" in plan.stdout.lower() or "0 to change" in plan.stdout

    # what it had bound before is not chance
    for name in ("named", "late"):
        refused = daemon.cli("scale", f"{name}=2")
        assert refused.returncode == 1
        assert f"{name} has one worker: the program binds 127.0.0.1:" in refused.stderr
    answer = daemon.reload(config.replace("[services.late]", "workers = 2\n[services.late]"))
    assert "services.named.workers: the program binds" in str(answer)
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


def test_what_workers_share_is_in_nobodys_way(servd: Servd) -> None:
    port = free_port()
    config = f"""
        [services.shared]
        command = ["python3", "shared.py"]
        workers = 2
        env = {{ AT = "{port}" }}
        [services.dies]
        command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "{free_port()}"]
        workers = 2
        restart = {{ policy = "never" }}
    """
    daemon = servd(config, shared_py=SHARED).ready()
    said = daemon.wait_for("service binds by itself", service="dies")
    assert "a second worker could not" in said["error"]
    daemon.cli("plan")  # looks at all
    assert found(daemon, "shared") == []
    answer = daemon.act("shared", "scale", workers=3)
    assert answer["outcome"] == "applied"
    answer = daemon.act("shared", "restart")
    assert [change["kind"] for change in answer["changes"]] == ["roll"]


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
