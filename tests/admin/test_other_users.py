"""Another user of the machine: a real one, who tries what there is to try. As root only."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.apps import PLAIN
from support.dashboard import dashboard
from support.harness import DEADLINE, Servd, ServdProcess, servd_for_others, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
NOBODY = pwd.getpwnam("nobody")
CONFIG = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    depends_on = ["inner"]
    [services.inner]
    app = "main:app"
"""
TRIES = """
import json, os, socket, sys, urllib.request
found = {"sockets": [], "files": [], "ports": []}
for path in json.loads(sys.argv[1]):
    client = socket.socket(socket.AF_UNIX)
    try:
        client.connect(path)
        found["sockets"].append(path)
    except OSError:
        pass
for path in json.loads(sys.argv[2]):
    try:
        os.listdir(path) if os.path.isdir(path) else open(path).read()
        found["files"].append(path)
    except OSError:
        pass
for port in json.loads(sys.argv[3]):
    for route in ("/", "/v1/status", "/session"):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{route}", timeout=90).read()
            found["ports"].append([port, route])
        except OSError:
            pass
print(json.dumps(found))
"""
"""What the other user runs, with the interpreter that every user has."""


@pytest.fixture
def servd() -> Iterator[Servd]:
    """As the usual one, in a folder that other users can enter."""
    yield from servd_for_others("su")


def tried(daemon: ServdProcess, ports: list[int], user: int) -> dict[str, Any]:
    """What a user can reach: sockets, files and ports."""
    everything = [str(path) for path in [daemon.runtime, *daemon.runtime.rglob("*")]]
    sockets = [path for path in everything if Path(path).is_socket()]
    others = [path for path in everything if path not in sockets]
    of_all = [*sockets, *_abstract(daemon)]
    arguments = [json.dumps(of_all), json.dumps(others), json.dumps(ports)]
    done = subprocess.run(
        ["/usr/bin/python3", "-c", TRIES, *arguments],
        user=user,
        group=pwd.getpwuid(user).pw_gid,
        extra_groups=[],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def _abstract(daemon: ServdProcess) -> list[str]:
    """Abstract unix sockets of the daemon and its workers: they have no mode."""
    pids = [daemon.pid, *(process.pid for process in daemon.descendants())]
    names = [c.laddr for pid in pids for c in psutil.Process(pid).net_connections("unix")]
    return [str(name) for name in names if str(name).startswith(("@", "\0"))]


def test_another_user_reaches_neither_the_control_plane_nor_what_is_internal(
    servd: Servd,
) -> None:
    daemon = servd(CONFIG, main_py=PLAIN).ready()
    root = tried(daemon, [], 0)
    assert str(daemon.runtime / "admin.sock") in root["sockets"], "the test can tell"
    found = tried(daemon, [], NOBODY.pw_uid)
    assert found["sockets"] == []
    assert found["files"] == []


def test_nothing_of_the_daemon_listens_but_its_admin_socket(servd: Servd) -> None:
    """Circus, too: neither its endpoints nor its stream of events are there."""
    daemon = servd(CONFIG, main_py=PLAIN).ready()
    process = psutil.Process(daemon.pid)
    port = int(daemon.url("web").rpartition(":")[2])
    listening = [c.laddr.port for c in process.net_connections("inet") if c.status == "LISTEN"]
    assert listening == [port]
    bound = {str(c.laddr) for c in process.net_connections("unix") if c.laddr}
    runtime = str(daemon.runtime)
    assert bound, "the test can tell"
    folders = {str(Path(name).parent) for name in bound}
    # the API's (the kernel knows it by the name that it was bound by), services', notifications
    assert folders == {runtime, f"{runtime}/s", f"{runtime}/n"}
    here = {path.name for path in daemon.runtime.iterdir() if path.is_socket()}
    assert here == {"admin.sock"}


def test_a_group_is_let_in_and_others_are_not(servd: Servd) -> None:
    daemon = servd('[admin]\ngroup = "www-data"\n' + CONFIG, main_py=PLAIN).ready()
    path = str(daemon.runtime / "admin.sock")
    assert path in tried(daemon, [], pwd.getpwnam("www-data").pw_uid)["sockets"]
    assert path not in tried(daemon, [], NOBODY.pw_uid)["sockets"]


def test_the_dashboard_shows_another_user_its_empty_page_alone(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=PLAIN).ready()
    with dashboard(daemon) as url:
        port = int(url.partition("/#")[0].rpartition(":")[2])
        found = tried(daemon, [port], NOBODY.pw_uid)
    assert found["ports"] == [[port, "/"]]


def test_the_command_line_says_whom_the_socket_belongs_to(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=PLAIN).ready()
    wait_until((daemon.runtime / "admin.sock").exists, "it is there")
    path = daemon.runtime / "admin.sock"
    code = "from servd.control.client import AdminClient; import os; os.setgroups([]);"
    code += f"os.setgid({NOBODY.pw_gid}); os.setuid({NOBODY.pw_uid}); AdminClient({str(path)!r})"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}.get('/livez')"],
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert "it belongs to the user that runs servd" in done.stderr
