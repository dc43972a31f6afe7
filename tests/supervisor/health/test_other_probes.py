"""Health of what is not HTTP: an address that accepts, a command that exits with 0."""

from __future__ import annotations

import pytest

from support.config_texts import loaded_text
from support.harness import Servd, free_port, wait_until

SERVER = """
    import os, socket, sys, threading, time

    while not os.path.exists("go"):
        time.sleep(0.01)
    with socket.create_server(("127.0.0.1", int(sys.argv[1]))) as server:
        open("well", "w").close()
        while not os.path.exists("sick"):
            time.sleep(0.01)
        os.unlink("sick")
        os.unlink("well")
    time.sleep(1000)
"""


@pytest.mark.parametrize("way", ["tcp", "command"])
def test_a_program_is_ready_and_replaced_by_what_its_probe_finds(servd: Servd, way: str) -> None:
    port = free_port()
    probe = f'tcp = "127.0.0.1:{port}"' if way == "tcp" else 'command = ["test", "-e", "well"]'
    config = f"""
        [services.server]
        command = ["python3", "server.py", "{port}"]
        health = {{ {probe}, interval = "100ms", failures = 2 }}
        [services.needs]
        command = ["touch", "started"]
        depends_on = ["server"]
        restart.policy = "never"
    """
    daemon = servd(config, server_py=SERVER)
    daemon.wait_for("worker started", service="server")
    assert not daemon.find("worker ready", service="server")
    assert not (servd.folder / "started").exists()
    (servd.folder / "go").touch()
    ready = daemon.wait_for("worker ready", service="server")
    wait_until((servd.folder / "started").exists, "what needs it starts")
    (servd.folder / "sick").touch()
    replaced = daemon.wait_for("worker recycle requested", service="server", reason="health")
    assert ("127.0.0.1" if way == "tcp" else "exited with status 1") in replaced["error"]
    wait_until(lambda: daemon.workers("server").get(0) not in (None, ready["pid"]), "another")
    assert daemon.stop() == 0


def test_a_command_that_does_not_end_is_a_failed_probe(servd: Servd) -> None:
    config = """
        [services.server]
        command = ["sleep", "1000"]
        health = { command = ["sleep", "1000"], timeout = "100ms", start_failures = 0 }
        restart.give_up_after = 1
    """
    daemon = servd(config)
    failed = daemon.wait_for("service failed", service="server")
    assert "sleep was still running after 0.1 s" in failed["error"]
    assert daemon.stop() == 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('command = ["sleep"]\nhealth = { path = "/" }', "without an address"),
        (
            'command = ["sleep"]\nhealth = { tcp = ":1", command = ["true"] }',
            "cannot be combined with command",
        ),
        ('app = "m:a"\nhealth = { tcp = ":1" }', "applies to commands only"),
        ('app = "m:a"\nhealth = { command = "true" }', "applies to commands only"),
    ],
)
def test_what_cannot_be_asked_is_a_mistake(text: str, message: str) -> None:
    (mistake,) = loaded_text(f"[services.a]\n{text}").errors
    assert message in mistake.message


def test_an_inherited_path_is_no_mistake_of_a_program_without_an_address() -> None:
    text = '[defaults]\nhealth = { path = "/" }\n[services.a]\ncommand = ["sleep"]'
    assert not loaded_text(text).errors
