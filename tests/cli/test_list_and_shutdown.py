"""`servd list` and `servd shutdown`."""

from __future__ import annotations

import json
import os
import signal

from servd.core.errors import Exit

from support.harness import Servd, command

SERVICE = '[services.job]\ncommand = ["sleep", "1000"]\nready = "started"\n'
SLOW = SERVICE + (
    '[services.slow]\ncommand = ["sh", "-c", "trap : TERM; while :; do sleep 1; done"]\n'
    'ready = "started"\ntimeouts.drain = "3s"\n'
)


def test_all_daemons_are_listed_and_one_is_shut_down(servd: Servd) -> None:
    servd.write(one_toml=SERVICE, two_toml=SERVICE)
    first, second = (servd.run("--config", f"{name}.toml").ready() for name in ("one", "two"))
    rows = {row["pid"]: row for row in json.loads(first.cli("list", "--json").stdout)}
    for daemon, name in ((first, "one"), (second, "two")):
        row = rows[daemon.pid]
        assert row["config"] == str(servd.folder / f"{name}.toml")
        assert row["admin"] == f"unix:{daemon.runtime}/admin.sock"
        assert row["runtime_dir"] == str(daemon.runtime)
        assert row["services"] == "1 of 1 ready"
    assert f"unix:{second.runtime}/admin.sock" in first.cli("list").stdout
    done = first.cli("shutdown", "--config", "one.toml")
    assert (done.returncode, done.stdout) == (0, f"stopped (pid {first.pid})\n")
    assert first.wait() == 0
    left = [row["pid"] for row in json.loads(second.cli("list", "--json").stdout)]
    assert second.pid in left
    assert first.pid not in left
    gone = first.cli("shutdown", "--config", "one.toml")
    assert gone.returncode == Exit.NO_DAEMON


def test_a_daemon_that_hangs_hides_no_other(servd: Servd) -> None:
    servd.write(one_toml=SERVICE, two_toml=SERVICE)
    first, second = (servd.run("--config", f"{name}.toml").ready() for name in ("one", "two"))
    os.kill(first.pid, signal.SIGSTOP)
    try:
        listed = json.loads(second.cli("list", "--json").stdout)
    finally:
        os.kill(first.pid, signal.SIGCONT)
    rows = {row["pid"]: row["services"] for row in listed}
    assert (rows[first.pid], rows[second.pid]) == ("no answer", "1 of 1 ready")


def test_a_shutdown_that_takes_longer_goes_on(servd: Servd) -> None:
    daemon = servd(SLOW).ready()
    done = daemon.cli("shutdown", "--timeout", "500ms")
    assert done.returncode == 1
    assert "still stopping after 0.5 s; the shutdown continues" in done.stderr
    assert daemon.wait() == 0


def test_what_is_elsewhere_is_not_shut_down(servd: Servd) -> None:
    done = command("shutdown", "--admin", "http://10.0.0.1:9000", folder=servd.folder)
    assert done.returncode == 2
    assert "cannot shut down a daemon on another machine" in done.stderr
