"""The shipped unit: what systemd-analyze says of it, and how it lives under a real systemd."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import free_port

ROOT = Path(__file__).parents[2]
UNIT = ROOT / "systemd" / "servd.service"
EXPOSURE = 25
"""The highest score of `systemd-analyze security` (0 to 100) that the unit may have."""

analyze = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd")


@analyze
def test_the_unit_is_clean(tmp_path: Path) -> None:
    unit = tmp_path / "servd.service"
    unit.write_text(UNIT.read_text().replace("/opt/servd/bin/servd", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@analyze
def test_the_unit_is_hardened(tmp_path: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", str(UNIT)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout


def test_the_unit_does_not_try_an_invalid_config_again() -> None:
    from servd.errors import Exit

    assert f"RestartPreventExitStatus={Exit.USAGE:d} {Exit.CONFIG:d}" in UNIT.read_text()


@pytest.fixture
def installed() -> Iterator[Path]:
    """A folder that the sandbox and another user can read, with servd for Debian's Python in it."""
    if os.geteuid() != 0 or not Path("/usr/lib/systemd/systemd").exists():
        pytest.skip("needs root and systemd")
    python = f"/usr/bin/python3.{sys.version_info.minor}"
    folder = Path(tempfile.mkdtemp(prefix="servd-unit-", dir="/var/lib"))
    try:
        folder.chmod(0o755)
        if not Path(python).exists():
            pytest.skip(f"needs {python}, with the modules of this environment")
        subprocess.run([python, "-m", "venv", "--without-pip", folder / "venv"], check=True)
        packages = folder / "venv" / "lib" / Path(python).name / "site-packages"
        (packages / "servd.pth").write_text(f"{sysconfig.get_path('purelib')}\n{ROOT}\n")
        seen = subprocess.run(
            [folder / "venv/bin/python", "-c", "import servd.daemon.daemon"], user=33, group=33
        )
        if seen.returncode != 0:
            pytest.skip("another user cannot read this environment")
        yield folder
    finally:
        shutil.rmtree(folder)


APP = """
import os, pwd

async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    body = f"{pwd.getpwuid(os.getuid()).pw_name} {os.getpid()}".encode()
    await send({"type": "http.response.body", "body": body})
"""
SCRIPT = """
set -u
fail() { echo "FAILED: $*"; systemctl status servd --no-pager; exit 1; }
ask() { curl --silent --show-error --max-time 5 http://127.0.0.1:PORT/; }

systemctl start servd || fail start
answer=$(ask) || fail "no answer at once after the start"
echo "answer: $answer"
[ "${answer% *}" = www-data ] || fail "the worker runs as ${answer% *}"
systemctl status servd --no-pager
systemctl status servd --no-pager | grep -q 'Status: "1 of 1 services ready"' || fail status

kill -9 "${answer#* }"
for _ in $(seq 100); do
    again=$(ask 2>/dev/null) && [ "$again" != "$answer" ] && break
    sleep 0.1
done
[ "$again" != "$answer" ] || fail "the killed worker was not replaced"
systemctl is-active servd || fail "the daemon went with its worker"

[ -e /run/servd/private/servd.lock ] || fail "the runtime folder is not the unit's"
main=$(systemctl show -P MainPID servd)
systemctl stop servd || fail stop
[ "$(systemctl show -P Result servd)" = success ] || fail "result of the stop"
[ "$(systemctl show -P ExecMainStatus servd)" = 0 ] || fail "exit status of the stop"
[ ! -e /run/servd ] || fail "the runtime folder was left"
[ ! -e "/proc/$main" ] || fail "the daemon was left"
pgrep -u www-data && fail "a worker was left"

echo 'workers = "many"' >>FOLDER/servd.toml
systemctl start servd && fail "an invalid config was started"
[ "$(systemctl show -P ExecMainStatus servd)" = 78 ] || fail "exit status of an invalid config"
[ "$(systemctl show -P NRestarts servd)" = 0 ] || fail "an invalid config was tried again"
echo ALL WELL
"""


@pytest.mark.slow
def test_start_status_stop_and_a_bad_config_under_systemd(installed: Path, tmp_path: Path) -> None:
    """start returns once it answers, status tells, a killed worker comes back, stop is clean."""
    port = free_port()
    (installed / "main.py").write_text(APP)
    (installed / "servd.toml").write_text(
        f'[services.web]\napp = "main:app"\nlisten = "127.0.0.1:{port}"\n'
    )
    units = tmp_path / "units"
    (units / "servd.service.d").mkdir(parents=True)
    shutil.copy(UNIT, units)
    (units / "servd.service.d" / "here.conf").write_text(
        "[Service]\nUser=www-data\nGroup=www-data\nStateDirectory=\nConfigurationDirectory=\n"
        f"ExecStart=\nExecStart={installed}/venv/bin/python -m servd"
        f" --config {installed}/servd.toml\n"
        f"StandardError=file:{installed}/servd.log\n"
    )
    script = installed / "script.sh"
    script.write_text(SCRIPT.replace("PORT", str(port)).replace("FOLDER", str(installed)))
    out = installed / "out"
    out.mkdir()
    sandbox = Path(__file__).with_name("sandbox.sh")
    done = subprocess.run(["bash", sandbox, units, script, out], capture_output=True, text=True)
    logs = [out / "script.log", installed / "servd.log", out / "systemd.log"]
    said = "\n".join(log.read_text(errors="replace") for log in logs if log.exists())
    assert done.returncode == 0, f"{done.stderr}\n{said}"
    print(said)
    assert "ALL WELL" in said
