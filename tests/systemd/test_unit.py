"""The shipped unit: what systemd-analyze says of it, and how it lives under a real systemd."""

from __future__ import annotations

import json
import os
import pwd
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from servd.core.errors import Exit

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
UNIT = ROOT / "systemd" / "servd.service"
EXPOSURE = 25
"""The highest score of `systemd-analyze security` (0 to 100) that the unit may have."""

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")


@analyze
@pytest.mark.parametrize(
    "names", [["servd.service"], ["servd@.service"], ["servd.service", "servd.socket"]]
)
def test_the_units_are_clean(tmp_path: Path, names: list[str]) -> None:
    for name in names:
        text = (UNIT.parent / name).read_text().replace("/opt/servd/bin/servd", "/bin/true")
        (tmp_path / name).write_text(text)
    named = [f"./{name.replace('@', '@shop')}" for name in names]
    if named != [f"./{name}" for name in names]:
        (tmp_path / "servd@shop.service").symlink_to("servd@.service")
    done = subprocess.run(
        ["systemd-analyze", "verify", *named], cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@analyze
def test_the_unit_of_a_user_is_clean(tmp_path: Path) -> None:
    text = (UNIT.parent / "user" / "servd.service").read_text()
    (tmp_path / "servd.service").write_text(text.replace("%h/.local/bin/servd", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "--user", "verify", "./servd.service"],
        cwd=tmp_path,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_an_instance_differs_in_its_configuration_alone() -> None:
    def settings(name: str) -> set[str]:
        lines = (UNIT.parent / name).read_text().splitlines()
        return {line for line in lines if line and not line.startswith("#")}

    one, each = settings("servd.service"), settings("servd@.service")
    assert {line.replace("%i", "servd") for line in each - one} == {
        "Description=servd serving daemon, servd.toml",
        "ExecStart=/opt/servd/bin/servd --config /etc/servd/servd.toml",
        "ExecReload=/opt/servd/bin/servd reload --config /etc/servd/servd.toml",
        "RuntimeDirectory=servd-servd",
        "StateDirectory=servd/servd",
    }


@analyze
def test_a_daemon_that_stays_root_is_hardened_too(tmp_path: Path) -> None:
    drop_in = (UNIT.parent / "as-root.conf").read_text()
    (tmp_path / "servd.service").write_text(UNIT.read_text() + drop_in)
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=35", "./servd.service"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


@analyze
def test_the_unit_is_hardened() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", UNIT],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_does_not_try_again_what_cannot_succeed() -> None:
    assert f"RestartPreventExitStatus={Exit.USAGE:d} {Exit.CONFIG:d}\n" in UNIT.read_text()


APP = """
import json, os, pwd

def writable(path):
    try:
        with open(path, "w"):
            pass
        os.unlink(path)
        return True
    except OSError:
        return False

async def app(scope, receive, send):
    assert scope["type"] == "http"
    said = {
        "pid": os.getpid(),
        "user": pwd.getpwuid(os.getuid()).pw_name,
        "cpus": sorted(os.sched_getaffinity(0)),
        "writable": [p for p in ("/opt/everybody", "/etc/servd", "/var/lib/servd", "/tmp")
                     if writable(p + "/probe")],
    }
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": json.dumps(said).encode()})
"""
CONFIG = """
[daemon]
watch = false
[services.web]
app = "main:app"
listen = "127.0.0.1:80"
cpu_affinity = [{cpu}]
rlimits = {{ nofile = 5000 }}
"""


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What guest.py saw of one life of the unit, from its installation on."""
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    for needed in ("/usr/lib/systemd/systemd", python, shutil.which("ip") or "ip"):
        if not os.path.exists(needed):
            pytest.skip(f"needs {needed}")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    namespaces = ["unshare", "--mount", "--pid", "--fork", "--cgroup", "--uts", "--ipc", "--net"]
    tried = subprocess.run([*namespaces, "mount", "-t", "tmpfs", "none", "/mnt"], text=True)
    if tried.returncode != 0:
        pytest.skip("needs namespaces")
    folder = tmp_path_factory.mktemp("sandbox")
    (folder / "main.py").write_text(APP)
    (folder / "servd.toml").write_text(CONFIG.format(cpu=max(os.sched_getaffinity(0))))
    shutil.copy(HERE / "guest.py", folder)
    code = {sysconfig.get_path("purelib"): "/run/code/packages", str(ROOT): "/run/code/servd"}
    bind = " ".join(f"{here}={inside}" for here, inside in code.items())
    done = subprocess.run(
        ["bash", HERE / "sandbox.sh", folder, python, "/run/sandbox/guest.py"],
        env={**os.environ, "SANDBOX_BIND": bind},
        capture_output=True,
        text=True,
    )
    logs = "".join(
        f"\n--- {log.name}\n{log.read_text(errors='replace')}" for log in folder.glob("*.log")
    )
    print(logs)
    assert done.returncode == 0, f"{done.stderr}{logs}"
    found: dict[str, Any] = json.loads((folder / "facts.json").read_text())
    return found


@pytest.mark.slow
def test_start_returns_once_the_app_answers(facts: dict[str, Any]) -> None:
    assert facts["start"] == 0
    assert facts["first"]["pid"] > 1
    assert facts["active"] == "active"


@pytest.mark.slow
def test_status_says_what_is_ready(facts: dict[str, Any]) -> None:
    assert 'Status: "1 of 1 services ready"' in facts["status"]


@pytest.mark.slow
def test_workers_are_the_units_user_and_write_only_where_they_may(facts: dict[str, Any]) -> None:
    """The port is 80: the one right of root that they keep."""
    assert facts["first"]["user"] == "servd"
    assert facts["first"]["writable"] == ["/var/lib/servd", "/tmp"]
    assert "private" in facts["runtime_folder"]


@pytest.mark.slow
def test_workers_live_behind_the_call_filter(facts: dict[str, Any]) -> None:
    assert re.search(r"^Seccomp:\s+2$", facts["process_status"], re.MULTILINE)
    assert re.search(r"^NoNewPrivs:\s+1$", facts["process_status"], re.MULTILINE)
    assert re.search(r"^CapEff:\s+0*400$", facts["process_status"], re.MULTILINE)


@pytest.mark.slow
def test_affinity_and_limits_pass_the_call_filter(facts: dict[str, Any]) -> None:
    assert facts["first"]["cpus"] == [max(os.sched_getaffinity(0))]
    assert re.search(r"^Max open files\s+5000\s+5000\s", facts["limits"], re.MULTILINE)


@pytest.mark.slow
def test_a_killed_worker_is_replaced_by_the_daemon(facts: dict[str, Any]) -> None:
    assert facts["after_the_worker"]["user"] == "servd"
    assert facts["same_daemon"]


@pytest.mark.slow
def test_a_killed_daemon_is_replaced_by_systemd(facts: dict[str, Any]) -> None:
    assert facts["after_the_daemon"]["user"] == "servd"
    assert facts["restarts"] == 1


@pytest.mark.slow
def test_a_reload_returns_when_it_is_done_and_fails_when_it_was_undone(
    facts: dict[str, Any],
) -> None:
    assert facts["reload"] == 0
    assert facts["after_the_reload"] == [True, "active"]
    assert facts["bad_reload"] != 0
    assert facts["after_the_bad_reload"] == [True, "active"]
    assert "last reload: rolled back" in facts["status_by_hand"]


@pytest.mark.slow
def test_restarts_lose_nothing_where_systemd_keeps_the_sockets(facts: dict[str, Any]) -> None:
    assert facts["stored"] == 1
    assert facts["own_restarts"] == [0, 0, 0]
    answered, lost = facts["restart_load"]
    assert lost == []
    assert answered > 10


@pytest.mark.slow
def test_a_socket_is_kept_no_longer_than_it_is_wanted(facts: dict[str, Any]) -> None:
    assert (facts["moved"], facts["stored_after_the_move"]) == (0, 1)
    assert (facts["moved_by_a_restart"], facts["stored_after_the_restart"]) == (0, 1)


@pytest.mark.slow
def test_the_daemon_is_replaced_under_the_unit_and_nothing_is_lost(facts: dict[str, Any]) -> None:
    daemons = facts["daemons"]
    assert len(set(daemons)) == 4
    assert facts["upgrade"][0] == 0
    assert facts["upgrade"][1].endswith(f"pid {daemons[-1]}\n")
    assert "the new servd exited with status 1 before it was ready" in facts["broken_upgrade"]
    answered, lost = facts["upgrade_load"]
    assert lost == []
    assert answered > 10
    assert facts["after_the_upgrades"] == [daemons[-1], "active", "0"]
    assert facts["reload_after_the_upgrades"] == 0


@pytest.mark.slow
def test_a_daemon_that_hangs_is_ended_and_started_again(facts: dict[str, Any]) -> None:
    assert facts["outlives_the_watchdog"]
    assert facts["after_the_hang"]["user"] == "servd"


@pytest.mark.slow
def test_the_journal_knows_the_fields_of_events(facts: dict[str, Any]) -> None:
    entries = facts["journal_of_web"]
    by_event = {entry["SERVD_EVENT"]: entry for entry in entries}
    ready = by_event["service ready"]
    assert ready["MESSAGE"].startswith("web: service ready")
    assert (ready["PRIORITY"], ready["SYSLOG_IDENTIFIER"]) == ("6", "servd")
    assert ready["_SYSTEMD_UNIT"] == "servd.service"
    request = by_event["request"]
    assert request["SERVD_HTTP_RESPONSE_STATUS_CODE"] == "200"
    assert request["SERVD_WORKER"] == "0"
    assert {entry["SERVD_SERVICE"] for entry in entries} == {"web"}
    failed = [e for e in facts["journal_of_errors"] if e.get("SERVD_EVENT") == "reload failed"]
    assert "nosuch" in failed[0]["MESSAGE"]
    assert failed[0]["PRIORITY"] == "3"
    assert "web: worker ready" in facts["journal_for_people"]
    assert '{"timestamp"' not in facts["journal_for_people"]


@pytest.mark.slow
def test_stop_is_clean_and_leaves_nothing(facts: dict[str, Any]) -> None:
    assert facts["stop"] == 0
    assert facts["stop_seconds"] < 20
    assert facts["stopped"] == ["inactive", "success", "0"]
    assert facts["left_running"] == []
    assert not facts["runtime_folder_left"]


@pytest.mark.slow
def test_an_invalid_config_fails_the_start_and_is_not_tried_again(facts: dict[str, Any]) -> None:
    assert facts["bad_start"] != 0
    assert facts["bad"] == ["failed", "exit-code", f"{Exit.CONFIG:d}", "0"]
    assert facts["mended_start"] == 0


@pytest.mark.slow
def test_a_daemon_that_stays_root_runs_services_as_others(facts: dict[str, Any]) -> None:
    assert facts["start_as_root"] == 0
    assert facts["as_another"]["user"] == "nobody"
    assert re.search(r"^Uid:\s+0\s", facts["daemon_as_root"], re.MULTILINE)
    assert facts["restart_as_root"] == 0


@pytest.mark.slow
def test_restarts_of_a_daemon_whose_address_systemd_holds_lose_nothing(
    facts: dict[str, Any],
) -> None:
    assert facts["start_socket"] == 0
    assert facts["activated"]["user"] == "servd"
    assert facts["restarts_of_activated"] == [0, 0, 0]
    answered, lost = facts["activated_load"]
    assert lost == []
    assert answered > 10


@pytest.mark.slow
def test_the_sandbox_leaves_the_machine_alone(facts: dict[str, Any]) -> None:
    with pytest.raises(KeyError):
        pwd.getpwnam("servd")
    assert not os.path.exists("/var/lib/servd")
