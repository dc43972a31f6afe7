"""Hosts on this machine: each in a network namespace of its own, joined by a bridge."""

from __future__ import annotations

import os
import shutil
import subprocess

BRIDGE = "hosts"


def isolated(*argv: str) -> list[str]:
    """A command line that runs in a network of its own, without daemons of this machine."""
    script = 'mount -t tmpfs -o mode=0755 none /run && ip link set lo up && exec "$@"'
    return ["unshare", "-nm", "sh", "-c", script, "sh", *argv]


def why_not() -> str:
    """Why there can be no such hosts here; "" if there can."""
    if os.geteuid() != 0:
        return "needs root"
    if shutil.which("ip") is None or shutil.which("unshare") is None:
        return "needs ip and unshare"
    trial = (
        "ip link add br9 type bridge && ip netns add x && ip link add v type veth peer w netns x"
    )
    if subprocess.run(isolated("sh", "-c", trial), capture_output=True).returncode:
        return "no network namespaces here"
    return ""


def run(*command: str) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (command, done.stderr)
    return done.stdout


def add_bridge(address: str) -> None:
    """Makes the bridge, which is this side's network too."""
    run("ip", "link", "add", BRIDGE, "type", "bridge")
    run("ip", "addr", "add", f"{address}/24", "dev", BRIDGE)
    run("ip", "link", "set", BRIDGE, "up")


def add_host(name: str, address: str) -> None:
    """Makes the network of a host, on the bridge."""
    run("ip", "netns", "add", name)
    peer = ["type", "veth", "peer", "name", "eth0", "netns", name]
    run("ip", "link", "add", f"v-{name}", *peer)
    run("ip", "link", "set", f"v-{name}", "master", BRIDGE, "up")
    run("ip", "-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
    for device in ("eth0", "lo"):
        run("ip", "-n", name, "link", "set", device, "up")


def inside(name: str, *argv: str) -> list[str]:
    """A command line that runs on a host."""
    return ["ip", "netns", "exec", name, *argv]


def cut_off(name: str) -> None:
    """Loses a host: nothing it sent or would send arrives any more, and all that ran is gone."""
    run("ip", "link", "set", f"v-{name}", "down")
    for pid in run("ip", "netns", "pids", name).split():
        subprocess.run(["kill", "-9", pid], check=False)
