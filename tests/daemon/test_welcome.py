"""At a terminal, a start ends with what to open and how to stop."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

from servd.core.address import Address
from servd.daemon.welcome import page_of

from support.apps import OK
from support.harness import DEADLINE, Servd, free_port

SERVICES = """
[services.web]
app = "main:app"
listen = "0.0.0.0:0"
[services.shop]
app = "main:app"
listen = ["unix:shop.sock", "127.0.0.1:0"]
public_url = "https://shop.example"
[services.inner]
app = "main:app"
[services.broken]
command = ["false"]
listen = "127.0.0.1:0"
restart = { policy = "never" }
"""
LAST = "Press Ctrl+C to stop."


class Terminal:
    """A daemon at a terminal."""

    def __init__(self, descriptor: int, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self._descriptor = descriptor
        self.output = ""

    def read_until(self, text: str) -> str:
        """What it has written, at least up to `text`."""
        while text not in self.output:
            try:
                chunk = os.read(self._descriptor, 65536)
            except OSError:
                chunk = b""
            assert chunk, f"it ended before {text!r}: {self.output}"
            self.output += chunk.decode(errors="replace").replace("\r\n", "\n")
        return self.output


@contextmanager
def terminal(
    servd: Servd, *arguments: str, environ: Mapping[str, str] | None = None
) -> Iterator[Terminal]:
    master, slave = os.openpty()
    runtime = servd._short / "t"
    process = subprocess.Popen(
        [sys.executable, "-m", "servd", *arguments],
        cwd=servd.folder,
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=slave,
        env={
            **os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(runtime), "TERM": "xterm",
            **(environ or {}),
        },
        start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    try:
        yield Terminal(master, process)
        process.send_signal(signal.SIGINT)
        while True:  # a full terminal would hold it up
            try:
                if not os.read(master, 65536):
                    break
            except OSError:
                break
        assert process.wait(DEADLINE) == 0
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)


def test_a_start_at_a_terminal_ends_with_the_urls_to_open(servd: Servd) -> None:
    servd.write(servd_toml=SERVICES, main_py=OK)
    with terminal(servd) as daemon:
        shown = daemon.read_until(LAST)
    text = shown.partition("servd ready")[2].partition("\n")[2]
    lines = [re.sub(r":\d+", ":PORT", line) for line in text.rstrip().splitlines()]
    assert lines == [
        "",
        "  broken      http://127.0.0.1:PORT  (failed)",
        "  shop        https://shop.example",
        "  web         http://localhost:PORT",
        "  servd page  run `servd dashboard`",
        "",
        LAST,
    ]


def test_it_names_the_page_where_the_admin_api_listens_on_tcp(servd: Servd) -> None:
    port = free_port()
    admin = f'[admin]\nlisten = "127.0.0.1:{port}"\ntoken = "secret"\n'
    admin += '[services.web]\napp = "main:app"\n'
    servd.write(servd_toml=admin, main_py=OK)
    with terminal(servd) as daemon:
        assert f"\n  servd page  http://127.0.0.1:{port}\n" in daemon.read_until(LAST)


def test_a_log_in_json_has_events_alone(servd: Servd) -> None:
    servd.write(servd_toml=SERVICES, main_py=OK)
    with terminal(servd, environ={"SERVD_DAEMON__LOG__FORMAT": "json"}) as daemon:
        daemon.read_until("servd ready")
        daemon.process.send_signal(signal.SIGHUP)
        lines = daemon.read_until("reload finished").splitlines()[:-1]
    assert all(isinstance(json.loads(line), dict) for line in lines)


def test_a_log_in_a_file_or_pipe_has_no_welcome(servd: Servd) -> None:
    daemon = servd('[daemon.log]\nformat = "console"\n' + SERVICES, main_py=OK)
    with daemon.admin():
        while "servd ready" not in daemon.output:
            assert not daemon.over, daemon.output
    daemon.stop()
    assert LAST not in daemon.output


@pytest.mark.parametrize(
    ("admin", "config", "said"),
    [
        (None, "servd.toml", "run `servd dashboard`"),
        (None, "conf/a.toml", "run `servd dashboard --config conf/a.toml`"),
        (None, "<servd serve>", "run `servd dashboard --admin unix:/r/admin.sock`"),
        (Address("tcp", "0.0.0.0", 90), "servd.toml", "http://localhost:90"),
        (Address("tcp", "", 90), "servd.toml", "http://localhost:90"),
        (Address("tcp", "::", 90), "servd.toml", "http://localhost:90"),
        (Address("unix", path="/x"), "servd.toml", "run `servd dashboard`"),
    ],
)
def test_the_page_is_an_address_or_a_command(admin: Address | None, config: str, said: str) -> None:
    assert page_of(admin, config, "unix:/r/admin.sock") == said
