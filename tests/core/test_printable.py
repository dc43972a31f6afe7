"""What services and clients write reaches a terminal as text."""

from __future__ import annotations

import json

from servd.core.printable import visible
from servd.daemon.log.console import console_renderer
from servd.daemon.log.event import LogEvent

from support.harness import Servd

EVIL = "\x1b]0;title\x07\x1b[2J\x9b31m\r\x7f"


def test_control_characters_are_shown() -> None:
    assert visible("a\tb\nc é 💡") == "a\tb\nc é 💡"
    assert visible(EVIL) == r"\x1b]0;title\x07\x1b[2J\x9b31m\r\x7f"
    assert visible({"a\x1b": ["\x1b", 1, None]}) == {r"a\x1b": [r"\x1b", 1, None]}
    assert visible("\u202e") == r"\u202e"


def test_the_console_form_sends_none_but_its_own() -> None:
    evil = dict.fromkeys(("event", "url.path", "exception", "service"), EVIL)
    fields = {"timestamp": "2026-01-01", "level": "info", "last_lines": [EVIL], **evil}
    for line in (LogEvent.by_worker("web", fields), LogEvent.by_worker("web", EVIL.encode())):
        shown = console_renderer(colours=False)(line).decode()
        assert not set(shown) & set("\x1b\x07\x9b\r\x7f")
        assert r"\x1b]0;title" in shown


def test_servd_logs_and_status_send_none(servd: Servd) -> None:
    daemon = servd(
        """
        [services.job]
        command = ["python3", "job.py"]
        restart = { policy = "never" }
        """,
        job_py=f"print({EVIL!r}, flush=True); raise SystemExit({EVIL!r})",
    ).ready()
    daemon.wait_for("worker exited", service="job")
    for arguments in (["logs"], ["status"], ["status", "job"], ["top", "--once"], ["events"]):
        shown = daemon.cli(*arguments).stdout
        assert not set(shown) & set("\x1b\x07\x9b\x7f"), arguments
    assert r"\x1b]0;title" in daemon.cli("logs").stdout
    assert json.loads(daemon.cli("logs", "--json", "-n", "1").stdout.splitlines()[0])
