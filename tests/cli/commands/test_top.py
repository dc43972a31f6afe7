"""`servd top` and `servd status --watch` in a terminal."""

from __future__ import annotations

import os
import re
import signal

from support.apps import PLAIN, SLEEP, web
from support.harness import Servd
from support.terminal import terminal

MANY = "".join(f"[services.job-{number}]\n{SLEEP}\n" for number in range(1, 16))
ALTERNATE, NORMAL = "\x1b[?1049h", "\x1b[?1049l"


def test_a_person_scrolls_filters_folds_and_resizes(servd: Servd) -> None:
    daemon = servd(web(1) + MANY, main_py=PLAIN).ready()
    with terminal(daemon, "top", "--interval", "0.2") as top:
        top.waits_for("+ job-1 ")
        assert ALTERNATE in top.screen
        top.waits_for("16 services")
        top.press("\x1b[F")
        top.waits_for("+ web ")
        top.press("\r")
        top.waits_for("WORKER")
        assert top.shows("- web ")
        top.press(" ")
        top.waits_for("+ web ")
        top.press("/JOB-12\r")
        top.waits_for("filter: JOB-12 (1 of 16)")
        top.press("\x1b")
        top.waits_for("/ filter")
        top.press("?")
        top.waits_for("any key: back")
        top.press("q")
        top.waits_for("? help")
        top.press("")
        top.resize(30, 10)
        top.waits_for("? help  q quit  / filter")
        top.press("q")
        assert top.status() == 0
        assert NORMAL in top.screen


def test_top_outlives_a_restart_of_the_daemon(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with terminal(daemon, "top", "--interval", "0.2") as top:
        top.waits_for("running")
        daemon.stop()
        top.waits_for("status of ")
        top.press("\x03")
        assert top.status() == 0
    assert "Traceback" not in top.screen


def test_the_terminal_is_given_back_when_top_is_terminated(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    with terminal(daemon, "top", NO_COLOR="1") as top:
        top.waits_for("running")
        assert not re.search(r"\x1b\[(\d+;)*3\dm", top.screen)
        assert "\x1b[7m" in top.screen  # the selection is not a colour
        os.kill(top.pid, signal.SIGTERM)
        assert top.status() == 128 + signal.SIGTERM
        assert NORMAL in top.screen


def test_a_watched_status_that_is_too_long_says_so_and_stays_on_the_terminal(servd: Servd) -> None:
    daemon = servd(web(1) + MANY, main_py=PLAIN).ready()
    with terminal(daemon, "status", "--watch") as status:
        status.resize(80, 12)
        status.waits_for("more lines; servd top scrolls")
        status.press("")
        status.resize(80, 40)
        status.waits_for("web ")
        status.press("q")
        assert status.status() == 0
        shown = status.screen.split(NORMAL)[1]
        assert "job-15" in shown


def test_a_terminal_that_cannot_move_gets_plain_lines(servd: Servd) -> None:
    daemon = servd(web(1) + MANY, main_py=PLAIN).ready()
    for arguments in (["top"], ["status"]):
        with terminal(daemon, *arguments, TERM="dumb") as dumb:
            assert dumb.status() == 0
            assert "job-15" in dumb.screen
            assert "\x1b" not in dumb.screen
