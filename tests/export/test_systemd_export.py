"""systemd units for a configuration: systemd itself accepts them."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from servd.config.load import load
from servd.export.systemd import HARDENING, Installation, units
from servd.host.facts import inspect_host
from servd.plan.build import build_loaded

from support.harness import command

ROOT = Path(__file__).parents[2]
SHIPPED = (ROOT / "systemd" / "servd.service").read_text()
PLAIN = '[services.web]\ncommand = ["true"]\n'

analyze = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="needs systemd-analyze"
)


def exported(folder: Path, text: str, program: str = "/opt/servd/bin/servd") -> dict[str, str]:
    config = folder / "servd.toml"
    config.write_text(text)
    loaded = load(str(config), {}).require()
    plan = build_loaded(loaded, inspect_host(loaded.config, {}), "/run/servd")
    return units(loaded.config, plan, Installation((program,), "/etc/servd/servd.toml"))


def value(unit: str, key: str) -> str:
    (found,) = re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
    return str(found)


def test_it_is_no_less_hardened_than_the_shipped_unit() -> None:
    lines = HARDENING.format(protect_home="yes").splitlines()
    assert [line for line in lines if line not in SHIPPED.splitlines()] == []


def test_rights_are_those_that_the_addresses_and_users_need(tmp_path: Path) -> None:
    free = exported(tmp_path, PLAIN)["servd.service"]
    assert (value(free, "CapabilityBoundingSet"), value(free, "User")) == ("", "servd")
    low = exported(tmp_path, PLAIN + 'listen = ":443"\n')["servd.service"]
    assert value(low, "AmbientCapabilities") == "CAP_NET_BIND_SERVICE"
    users = exported(tmp_path, PLAIN + 'listen = ":443"\nuser = "nobody"\n')["servd.service"]
    assert (value(users, "User"), value(users, "AmbientCapabilities")) == ("root", "")
    assert value(users, "CapabilityBoundingSet").split()[:2] == [
        "CAP_NET_BIND_SERVICE",
        "CAP_SETUID",
    ]


def test_places_to_write_to_are_those_of_the_configuration(tmp_path: Path) -> None:
    text = (
        '[daemon]\nlog.file = "/var/log/shop/servd.log"\n'
        + PLAIN
        + 'listen = ["unix:/run/servd/in.sock", "unix:/run/shop/out.sock"]\n'
    )
    unit = exported(tmp_path, text)["servd.service"]
    assert value(unit, "ReadWritePaths") == "/run/shop /var/log/shop"
    assert "ReadWritePaths" not in exported(tmp_path, PLAIN)["servd.service"]


def test_odd_names_are_written_as_systemd_reads_them(tmp_path: Path) -> None:
    text = PLAIN + """listen = "unix:/run/we ird/%i $HOME 'q'/x.sock"\n"""
    unit = exported(tmp_path, text.replace("$", "$$"))["servd.service"]
    assert value(unit, "ReadWritePaths") == """'/run/we ird/%%i $HOME '"'"'q'"'"''"""
    for arguments in (("--name", "../x"), ("--name", "my unit"), ("--user", "a b")):
        (tmp_path / "servd.toml").write_text(PLAIN)
        done = command("export", "systemd", *arguments, folder=tmp_path)
        assert done.returncode == 2
        assert "expected letters, digits" in done.stderr


def test_memory_is_bounded_where_each_service_is(tmp_path: Path) -> None:
    limited = PLAIN + 'workers = 2\nlimits = { memory = "1GiB" }\n'
    unit = exported(tmp_path, limited)["servd.service"]
    assert int(value(unit, "MemoryMax")) == 4 * 2**30 + 256 * 2**20
    other = limited + '[services.other]\ncommand = ["true"]\n'
    assert "MemoryMax" not in exported(tmp_path, other)["servd.service"]


def test_gpus_and_homes_stay_visible_where_they_are_used(tmp_path: Path) -> None:
    assert "PrivateDevices=yes" in exported(tmp_path, PLAIN)["servd.service"]
    gpu = exported(tmp_path, PLAIN + "gpus = 1\n")["servd.service"]
    assert "PrivateDevices" not in gpu
    assert value(gpu, "ProtectHome") == "yes"
    home = exported(tmp_path, PLAIN, "/home/me/venv/bin/servd")["servd.service"]
    assert value(home, "ProtectHome") == "read-only"


def test_what_is_handed_over_has_a_socket_unit(tmp_path: Path) -> None:
    files = exported(tmp_path, PLAIN + 'listen = "fd:web"\n')
    assert set(files) == {"servd.service", "servd-web.socket"}
    assert value(files["servd.service"], "Sockets") == "servd-web.socket"
    assert value(files["servd-web.socket"], "FileDescriptorName") == "web"


CONFIGS = {
    "plain": PLAIN,
    "low port": PLAIN + 'listen = ":443"\n',
    "handed over": PLAIN + 'listen = "fd:web"\n',
    "users": PLAIN + 'user = "nobody"\n',
}


@analyze
@pytest.mark.parametrize("name", CONFIGS)
def test_systemd_finds_nothing_wrong(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "units"
    folder.mkdir()
    files = exported(tmp_path, CONFIGS[name], "/bin/true")
    for file, text in files.items():
        (folder / file).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *(f"./{file}" for file in files)],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    most = 3.6 if name == "users" else 2.5
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", f"--threshold={int(most * 10)}",
         "./servd.service"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_the_command_writes_them(tmp_path: Path) -> None:
    (tmp_path / "servd.toml").write_text(PLAIN + 'listen = "fd:web"\n')
    done = command(
        "export", "systemd", "--name", "shop", "--user", "me", "--output", "out", folder=tmp_path
    )
    assert done.stdout.split() == ["out/shop.service", "out/shop-web.socket"]
    unit = (tmp_path / "out" / "shop.service").read_text()
    assert f"--config {tmp_path}/servd.toml" in value(unit, "ExecStart")
    assert value(unit, "User") == "me"
    shown = command("export", "systemd", folder=tmp_path).stdout
    assert "# servd.service\n[Unit]" in shown
    assert "# servd-web.socket\n[Unit]" in shown
