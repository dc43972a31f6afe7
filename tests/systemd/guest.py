"""Runs in the sandbox, beside a real systemd: installs servd, puts it through its life, and writes
what it saw to /run/sandbox/facts.json. What should have been seen is in test_unit.py."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import pwd
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

HERE = Path("/run/sandbox")
CODE = Path("/run/code")
CONFIG = Path("/etc/servd/servd.toml")
URL = "http://127.0.0.1:80/"
DEADLINE = 30.0

facts: dict[str, Any] = {}


def run(*command: str) -> subprocess.CompletedProcess[str]:
    print("+", *command, flush=True)
    done = subprocess.run(command, capture_output=True, text=True)
    print(done.stdout, done.stderr, sep="", flush=True)
    return done


def show(name: str) -> str:
    """A property of the unit."""
    return run("systemctl", "show", "--value", f"--property={name}", "servd").stdout.strip()


def ask() -> dict[str, Any]:
    """What the app says of itself."""
    with urllib.request.urlopen(URL, timeout=10) as answer:
        said: dict[str, Any] = json.load(answer)
    return said


def other_than(pid: int) -> dict[str, Any]:
    """What the worker says that took the place of `pid`."""

    def another() -> dict[str, Any] | None:
        said = ask()
        return said if said["pid"] != pid else None

    found: dict[str, Any] = wait_for(another)
    return found


def wait_for(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + DEADLINE
    while True:
        try:
            if value := condition():
                return value
        except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError):
            pass  # whoever is being killed may not answer, or not to the end
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(0.05)


def install() -> None:
    """What systemd/README.md says, with the modules at hand instead of pip."""
    run(f"/usr/bin/python3.{sys.version_info.minor}", "-m", "venv", "--without-pip", "/opt/servd")
    (packages,) = Path("/opt/servd/lib").glob("python3*/site-packages")
    (packages / "servd.pth").write_text(f"{CODE}/packages\n{CODE}/servd\n")
    program = Path("/opt/servd/bin/servd")
    program.write_text("#!/opt/servd/bin/python\nfrom servd.__main__ import main\nmain()\n")
    program.chmod(0o755)
    shipped = CODE / "servd" / "systemd"
    run("systemd-sysusers", str(shipped / "servd.sysusers"))
    run("install", "-d", "-g", "servd", "-m", "0750", "/etc/servd")
    for name in ("servd.toml", "main.py"):
        run("install", "-g", "servd", "-m", "0640", str(HERE / name), "/etc/servd")
    run("install", "-m", "0644", str(shipped / "servd.service"), "/etc/systemd/system")
    run("install", "-d", "-m", "0777", "/opt/everybody")
    run("systemctl", "start", "systemd-journald.socket", "systemd-journald.service")
    run("systemctl", "daemon-reload")


def live() -> None:
    facts["start"] = run("systemctl", "start", "servd").returncode
    facts["first"] = first = ask()
    facts["status"] = run("systemctl", "status", "--no-pager", "servd").stdout
    facts["active"] = run("systemctl", "is-active", "servd").stdout.strip()
    facts["process_status"] = Path(f"/proc/{first['pid']}/status").read_text()
    facts["limits"] = Path(f"/proc/{first['pid']}/limits").read_text()
    facts["runtime_folder"] = sorted(os.listdir("/run/servd"))

    daemon = int(show("MainPID"))
    os.kill(first["pid"], signal.SIGKILL)
    facts["after_the_worker"] = second = other_than(first["pid"])
    facts["same_daemon"] = int(show("MainPID")) == daemon

    os.kill(daemon, signal.SIGKILL)
    facts["after_the_daemon"] = other_than(second["pid"])
    facts["restarts"] = int(show("NRestarts"))


def reload() -> None:
    """A good edit, then one that cannot start."""
    before = ask()["pid"]
    valid = CONFIG.read_text()
    CONFIG.write_text(valid + "threads = 7\n")
    facts["reload"] = run("systemctl", "reload", "servd").returncode
    facts["after_the_reload"] = [ask()["pid"] != before, show("ActiveState")]
    before = ask()["pid"]
    CONFIG.write_text(valid.replace("main:app", "nosuch:app"))
    facts["bad_reload"] = run("systemctl", "reload", "servd").returncode
    facts["after_the_bad_reload"] = [ask()["pid"] == before, show("ActiveState")]
    status = ["status", "--config", str(CONFIG)]
    facts["status_by_hand"] = run("/opt/servd/bin/servd", *status).stdout
    CONFIG.write_text(valid)


def hang() -> None:
    """A daemon that gives no sign of life, under a shorter watchdog."""
    wait_for(lambda: show("ActiveState") == "active")
    folder = Path("/etc/systemd/system/servd.service.d")
    folder.mkdir(exist_ok=True)
    (folder / "watchdog.conf").write_text("[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
    run("systemctl", "daemon-reload")
    run("systemctl", "restart", "servd")
    daemon = int(show("MainPID"))
    time.sleep(3)
    facts["outlives_the_watchdog"] = int(show("MainPID")) == daemon
    os.kill(daemon, signal.SIGSTOP)
    wait_for(lambda: int(show("MainPID")) not in (0, daemon))
    wait_for(lambda: show("ActiveState") == "active")
    facts["after_the_hang"] = ask()
    (folder / "watchdog.conf").unlink()
    run("systemctl", "daemon-reload")
    facts["journal_of_systemd"] = journal("-u", "init.scope", "UNIT=servd.service")


def journal(*matches: str) -> list[dict[str, Any]]:
    """Entries of the journal."""
    done = run("journalctl", "--no-pager", "-o", "json", *matches)
    return [json.loads(line) for line in done.stdout.splitlines()]


def read_journal() -> None:
    """What the journal has of servd and its services, by their fields."""
    facts["journal_of_web"] = journal("SERVD_SERVICE=web")
    facts["journal_of_errors"] = journal("-u", "servd", "-p", "err")
    facts["journal_for_people"] = run(
        "journalctl", "--no-pager", "-u", "servd", "-o", "cat", "-n", "400"
    ).stdout


def stop() -> None:
    wait_for(lambda: show("ActiveState") == "active")
    before = time.monotonic()
    facts["stop"] = run("systemctl", "stop", "servd").returncode
    facts["stop_seconds"] = time.monotonic() - before
    facts["stopped"] = [show("ActiveState"), show("Result"), show("ExecMainStatus")]
    uid = pwd.getpwnam("servd").pw_uid
    facts["left_running"] = [
        str(process) for process in Path("/proc").glob("[0-9]*") if process.stat().st_uid == uid
    ]
    facts["runtime_folder_left"] = os.path.exists("/run/servd")


def misconfigure() -> None:
    valid = CONFIG.read_text()
    CONFIG.write_text(valid + 'workers = "many"\n')
    facts["bad_start"] = run("systemctl", "start", "servd").returncode
    time.sleep(float(show("RestartUSec").removesuffix("s")) + 1)
    facts["bad"] = [show("ActiveState"), show("Result"), show("ExecMainStatus"), show("NRestarts")]
    CONFIG.write_text(valid)
    facts["mended_start"] = run("systemctl", "start", "servd").returncode


def run_as_others() -> None:
    """The drop-in for a daemon that stays root, and a service with a user of its own."""
    run("systemctl", "stop", "servd")
    valid = CONFIG.read_text()
    run("install", "-m", "0644", str(CONFIG.parent / "main.py"), "/opt/everybody")
    CONFIG.write_text(valid + 'user = "nobody"\ndirectory = "/opt/everybody"\n')
    drop_in = Path("/etc/systemd/system/servd.service.d/as-root.conf")
    drop_in.write_text((CODE / "servd" / "systemd" / "as-root.conf").read_text())
    run("systemctl", "daemon-reload")
    facts["start_as_root"] = run("systemctl", "start", "servd").returncode
    facts["as_another"] = ask()
    daemon = int(show("MainPID"))
    facts["daemon_as_root"] = Path(f"/proc/{daemon}/status").read_text()
    facts["restart_as_root"] = run("systemctl", "reload", "servd").returncode
    run("systemctl", "stop", "servd")
    drop_in.unlink()
    CONFIG.write_text(valid)
    run("systemctl", "daemon-reload")


@contextlib.contextmanager
def load(name: str) -> Iterator[None]:
    """Asks without a pause: the facts `name` are how many were answered, and what was lost."""
    answered, lost = [0], []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            try:
                ask()
                answered[0] += 1
            except Exception as error:
                lost.append(repr(error))

    asking = [threading.Thread(target=work) for _ in range(4)]
    for thread in asking:
        thread.start()
    yield
    over.set()
    for thread in asking:
        thread.join()
    facts[name] = [answered[0], lost]


def restart() -> None:
    """servd's own sockets, which systemd keeps meanwhile."""
    wait_for(lambda: show("ActiveState") == "active")
    facts["stored"] = int(show("NFileDescriptorStore"))
    with load("restart_load"):
        facts["own_restarts"] = [run("systemctl", "restart", "servd").returncode for _ in range(3)]
    valid = CONFIG.read_text()
    CONFIG.write_text(valid.replace("127.0.0.1:80", "127.0.0.1:81"))
    facts["moved"] = run("systemctl", "reload", "servd").returncode
    facts["stored_after_the_move"] = int(show("NFileDescriptorStore"))
    CONFIG.write_text(valid)
    facts["moved_by_a_restart"] = run("systemctl", "restart", "servd").returncode
    facts["stored_after_the_restart"] = int(show("NFileDescriptorStore"))


def upgrade() -> None:
    """The daemon is replaced, by a signal and by the command; then a new version is broken."""
    facts["daemons"] = daemons = [int(show("MainPID"))]
    with load("upgrade_load"):
        for _ in range(2):
            os.kill(daemons[-1], signal.SIGUSR2)
            wait_for(lambda: int(show("MainPID")) != daemons[-1])
            daemons.append(int(show("MainPID")))
            wait_for(lambda: show("StatusText") == "1 of 1 services ready")
        done = run("/opt/servd/bin/servd", "upgrade", "--wait-drained", "--config", str(CONFIG))
        facts["upgrade"] = [done.returncode, done.stdout]
        daemons.append(int(show("MainPID")))
        program = Path("/opt/servd/bin/servd")
        valid = program.read_text()
        program.write_text("#!/opt/servd/bin/python\nraise ImportError('a broken version')\n")
        run("systemctl", "kill", "-s", "USR2", "--kill-who=main", "servd")
        facts["broken_upgrade"] = wait_for(
            lambda: journal("-u", "servd", "SERVD_EVENT=upgrade failed")
        )[0]["MESSAGE"]
        program.write_text(valid)
    facts["after_the_upgrades"] = [int(show("MainPID")), show("ActiveState"), show("NRestarts")]
    facts["reload_after_the_upgrades"] = run("systemctl", "reload", "servd").returncode


def activate() -> None:
    """systemd holds the address: restarts under load refuse nobody."""
    run("systemctl", "stop", "servd")
    shipped = CODE / "servd" / "systemd" / "servd.socket"
    run("install", "-m", "0644", str(shipped), "/etc/systemd/system")
    CONFIG.write_text(CONFIG.read_text().replace('"127.0.0.1:80"', '"fd:web"'))
    run("systemctl", "daemon-reload")
    facts["start_socket"] = run("systemctl", "start", "servd.socket").returncode
    facts["activated"] = ask()  # which starts it
    wait_for(lambda: show("ActiveState") == "active")
    with load("activated_load"):
        facts["restarts_of_activated"] = [
            run("systemctl", "restart", "servd").returncode for _ in range(3)
        ]
    run("systemctl", "stop", "servd.socket", "servd.service")


try:
    install()
    live()
    wait_for(lambda: show("ActiveState") == "active")
    reload()
    restart()
    upgrade()
    hang()
    read_journal()
    stop()
    misconfigure()
    run_as_others()
    activate()
finally:
    said = run("journalctl", "--no-pager", "-u", "servd", "-o", "short-precise").stdout
    (HERE / "servd.log").write_text(said)
    (HERE / "facts.json").write_text(json.dumps(facts))
