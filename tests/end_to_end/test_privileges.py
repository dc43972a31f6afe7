"""Users, groups and modes, for a daemon of root and of a user. As root only."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.harness import DEADLINE, Servd, python_for_others, servd_for_others, wait_until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
]
NOBODY, WWW = pwd.getpwnam("nobody"), pwd.getpwnam("www-data")


@pytest.fixture
def servd() -> Iterator[Servd]:
    """As the usual one, in a folder that other users can enter."""
    yield from servd_for_others("sp")


@pytest.fixture
def python() -> Iterator[str]:
    """An interpreter with servd that any user can run."""
    with python_for_others(sysconfig.get_path("purelib"), "servd.daemon.daemon") as found:
        yield found


REPORT = """
    import os, pwd, sys
    print("I am", pwd.getpwuid(os.getuid()).pw_name, os.getgid(), sorted(os.getgroups()),
          oct(os.umask(0)), os.environ["HOME"], os.environ["USER"])
    print(next(line for line in open("/proc/self/status") if line.startswith("NoNewPrivs")).split())
    try:
        os.setuid(0)
        print("root again")
    except PermissionError:
        print("no way back")
"""


def test_a_program_of_root_runs_as_its_user_and_cannot_go_back(servd: Servd, python: str) -> None:
    config = """
        [services.lowly]
        command = ["/usr/bin/python3", "report.py"]
        user = "www-data"
        group = "nogroup"
        umask = "077"
        rlimits = { nofile = 700 }
        restart = { policy = "never" }
    """
    servd.write(servd_toml=config, report_py=REPORT)
    daemon = servd.run("--config", "servd.toml", interpreter=python)
    group = WWW.pw_gid
    supplementary = sorted(os.getgrouplist("www-data", group))
    from grp import getgrnam

    nogroup = getgrnam("nogroup").gr_gid
    daemon.wait_for_line(
        f"I am www-data {nogroup} {supplementary} 0o77 {WWW.pw_dir} www-data", service="lowly"
    )
    daemon.wait_for_line("['NoNewPrivs:', '1']")
    daemon.wait_for_line("no way back")


def test_services_of_different_users_reach_each_other_and_strangers_do_not(
    servd: Servd, python: str
) -> None:
    """The internal socket belongs to the dependent's user; state is for root alone."""
    config = """
        [services.front]
        app = "front:app"
        listen = "127.0.0.1:0"
        user = "www-data"
        depends_on = ["back"]
        [services.back]
        app = "back:app"
        user = "nobody"
    """
    servd.write(
        servd_toml=config,
        front_py="""
            import servd
            back = servd.depends("back")

            async def app(scope, receive, send):
                assert scope["type"] == "http"
                answer = await back.get("/")
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": answer.content})
        """,
        back_py="""
            import os, pwd

            async def app(scope, receive, send):
                assert scope["type"] == "http"
                name = pwd.getpwuid(os.getuid()).pw_name
                status = open("/proc/self/status").read()
                gains_nothing = "NoNewPrivs: 1" in status.replace(chr(9), " ")
                body = f"{name} {gains_nothing}".encode()
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": body})
        """,
    )
    daemon = servd.run("--config", "servd.toml", interpreter=python).ready()
    assert daemon.get("front").text == "nobody True"
    internal = daemon.runtime / "s" / "back.sock"
    assert internal.stat().st_uid == WWW.pw_uid
    assert stat.S_IMODE(internal.stat().st_mode) == 0o600
    assert stat.S_IMODE(daemon.runtime.stat().st_mode) == 0o711
    assert stat.S_IMODE((daemon.runtime / "private").stat().st_mode) == 0o700
    for path in ("", "private", "s", "n"):
        listing = ["ls", str(daemon.runtime / path)]
        assert subprocess.run(listing, user=NOBODY.pw_uid, capture_output=True).returncode != 0
    code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(internal)!r})"
    stranger = subprocess.run(
        ["/usr/bin/python3", "-c", code], user=NOBODY.pw_uid, capture_output=True, text=True
    )
    assert "PermissionError" in stranger.stderr
    assert daemon.stop() == 0


def test_a_key_that_only_root_can_read_serves_tls_for_a_worker_of_nobody(
    servd: Servd, python: str
) -> None:
    import ssl

    import httpx
    import trustme

    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    certificate.private_key_pem.write_to_path(str(servd.folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(servd.folder / "cert.pem"))
    (servd.folder / "key.pem").chmod(0o600)
    servd.write(
        servd_toml="""
            [services.web]
            app = "main:app"
            listen = "127.0.0.1:0"
            user = "nobody"
            tls = { certfile = "cert.pem", keyfile = "key.pem" }
        """,
        main_py="""
            import os

            async def app(scope, receive, send):
                assert scope["type"] == "http"
                await send({"type": "http.response.start", "status": 200, "headers": []})
                await send({"type": "http.response.body", "body": str(os.getuid()).encode()})
        """,
    )
    daemon = servd.run("--config", "servd.toml", interpreter=python).ready()
    context = ssl.create_default_context()
    authority.configure_trust(context)
    answer = httpx.get(daemon.url("web"), verify=context, timeout=DEADLINE)
    assert answer.text == str(NOBODY.pw_uid)
    assert daemon.stop() == 0


def test_a_daemon_of_a_user_keeps_everything_to_itself(servd: Servd, python: str) -> None:
    servd.folder.chmod(0o777)
    servd._short.chmod(0o777)
    servd.write(
        servd_toml="""
            [services.web]
            command = ["sleep", "1000"]
            [services.app]
            app = "main:app"
        """,
        main_py="async def app(scope, receive, send):\n    assert False\n",
    )
    daemon = servd.run("--config", "servd.toml", interpreter=python, user=NOBODY.pw_uid).ready()
    runtime = daemon.runtime
    assert runtime.stat().st_uid == NOBODY.pw_uid
    assert stat.S_IMODE(runtime.stat().st_mode) == 0o700
    assert stat.S_IMODE((runtime / "s" / "app.sock").stat().st_mode) == 0o600
    pid = daemon.workers("web")[0]
    wait_until(lambda: Path(f"/proc/{pid}/comm").read_text() == "sleep\n", "the program")
    assert Path(f"/proc/{pid}").stat().st_uid == NOBODY.pw_uid
    assert daemon.stop() == 0


def test_a_user_cannot_run_services_as_somebody_else(servd: Servd, python: str) -> None:
    servd.folder.chmod(0o777)
    servd.write(servd_toml='[services.web]\ncommand = ["sleep", "9"]\nuser = "www-data"\n')
    daemon = servd.run("check", interpreter=python, user=NOBODY.pw_uid)
    assert daemon.wait() == 78
    assert 'only root can run a service as user "www-data"' in daemon.output


PRELOADED = """
    import json, os
    IMPORTED_AS = os.getuid()

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        body = json.dumps([IMPORTED_AS, os.getuid(), os.getgroups(), os.getppid()]).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
"""


@pytest.mark.parametrize("preload", ["true", "false"])
def test_a_forked_worker_is_its_user_from_the_first_import(
    servd: Servd, python: str, preload: str
) -> None:
    config = f"""
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        workers = 2
        user = "www-data"
        preload = {preload}
    """
    servd.write(servd_toml=config, main_py=PRELOADED)
    daemon = servd.run("--config", "servd.toml", interpreter=python).ready()
    imported_as, uid, groups, parent = daemon.get("web").json()
    assert (imported_as, uid, parent) == (WWW.pw_uid, WWW.pw_uid, daemon.pid)
    assert groups == os.getgrouplist("www-data", WWW.pw_gid)
    for pid in daemon.pids("web"):  # its user can debug it, and it can look at itself
        assert Path(f"/proc/{pid}").stat().st_uid == WWW.pw_uid
