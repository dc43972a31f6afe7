"""Reads the pages of the documentation, and runs their commands as a reader does.

A block with a title is a file of that name. In a `console` block each line `$ ...` is a command,
and the lines after it are its output: `...` stands for the rest of a line, alone for any lines. A
command that stays in the foreground (a daemon, `logs -f`) keeps its terminal until `^C`, or until
the page ends. `<!-- not run: REASON -->` before a block leaves it out;
`<!-- needs: PROGRAM python:MODULE -->` in a page names what has to be installed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import re
import select
import shlex
import shutil
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from support.harness import DEADLINE

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"

_BLOCK = re.compile(
    r"(?:^[ ]*<!-- not run: (?P<why>.+?) -->\n+)?"
    r"^(?P<indent>[ ]*)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?[^\n]*\n"
    r"(?P<text>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
_STAYS = re.compile(
    r"(?:[A-Z_]+=\S+ )*"
    r"servd(?= *$| (?:--config|-c|run|dev|serve)\b)(?!.* --(?:help|print-config)\b)[^|&]*"
    r"|servd (?:logs|events)\b.* -f\b.*"
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    language: str
    title: str
    text: str
    not_run: str
    line: int


@dataclass(slots=True)
class Command:
    """A command of a page with the output that the page shows."""

    text: str
    line: int
    output: list[str] = field(default_factory=list)

    @property
    def stays(self) -> bool:
        """Whether it keeps its terminal."""
        return _STAYS.fullmatch(self.text) is not None


def pages() -> list[str]:
    """Every page of the documentation, below `docs/`."""
    return sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))


def blocks(text: str) -> list[Block]:
    """The fenced blocks of a page."""
    found: list[Block] = []
    for match in _BLOCK.finditer(text):
        indent = match["indent"]
        body = "".join(
            line.removeprefix(indent) for line in match["text"].splitlines(keepends=True)
        )
        line = text.count("\n", 0, match.start("language")) + 1
        found.append(Block(match["language"], match["title"] or "", body, match["why"] or "", line))
    return found


def commands(block: Block) -> list[Command]:
    """The commands of a console block, each with its output."""
    found: list[Command] = []
    for number, line in enumerate(block.text.splitlines(), block.line + 1):
        if line.startswith("$ "):
            found.append(Command(line[2:], number))
        elif line.startswith("> ") and found and found[-1].text.endswith("\\"):
            found[-1].text = f"{found[-1].text[:-1].rstrip()} {line[2:].lstrip()}"
        elif found:
            found[-1].output.append(line)
        else:
            raise AssertionError(f"line {number}: a console block begins with a command")
    return found


def path_for(text: str) -> str | None:
    """The PATH with an environment that has what a page needs; None if there is none here."""
    match = re.search(r"<!-- needs: (.+?) -->", text)
    needed = match[1].split() if match else []
    for environment in (Path(sys.executable).parent, ROOT / ".venv-bentoml" / "bin"):
        path = f"{environment}:{os.environ['PATH']}:/usr/sbin:/sbin"
        if all(_is_there(each, str(environment), path) for each in needed):
            return path
    return None


def _is_there(thing: str, environment: str, path: str) -> bool:
    if thing.startswith("python:"):
        command = [f"{environment}/python", "-c", f"import {thing.removeprefix('python:')}"]
        try:
            return subprocess.run(command, capture_output=True).returncode == 0
        except FileNotFoundError:
            return False
    return shutil.which(thing, path=path) is not None


HOME = "/home/me/shop"
"""What the folder of a page is called in its output."""

ANSI = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")
_VOLATILE = (
    (ANSI.pattern, ""),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:?\d\d)?", "<time>"),
    (r"\b\d\d:\d\d:\d\d(\.\d+)?", "<time>"),
    (r"\b(\w{3}, )?\d\d \w{3} \d{4} <time>( GMT)?", "<time>"),
    (r"\bpids?[ =]\d+( \d+)*", "pid <n>"),
    (r'"pid": ?\d+', '"pid": <n>'),
    (r"\b\d+(\.\d+)?( ?)(us|ms|s|m|h|min|MiB|KiB|M|K|G|%)(?![\w])", r"<n>\3"),
    (r"(?<![\w.:\-/])\d+\.\d+(?![\w.])", "<n>"),
    (r"\b[0-9a-f]{8,}\b", "<id>"),
    (r"(?<=\s)(\d+|-)(?=\s|$)", "<n>"),  # a figure of a table
    (r"\s+", " "),
)


def _plain(line: str) -> str:
    """A line without what is another at each run, and without the width of its columns."""
    for pattern, by in _VOLATILE:
        line = re.sub(pattern, by, line)
    return line.strip()


def matches(shown: list[str], printed: list[str]) -> bool:
    """Whether a command has printed what a page shows."""
    wanted = [_plain(line) for line in shown]
    got = [_plain(line) for line in printed]
    while wanted and not wanted[-1]:
        wanted.pop()
    return _matches(wanted, [line for line in got if line] if "" not in wanted else got)


def _matches(wanted: list[str], got: list[str]) -> bool:
    if not wanted:
        return not any(got)
    first, *rest = wanted
    if first == "...":
        return any(_matches(rest, got[skip:]) for skip in range(len(got) + 1))
    if not got:
        return False
    pattern = ".*".join(re.escape(part) for part in first.split("..."))
    return re.fullmatch(pattern, got[0]) is not None and _matches(rest, got[1:])


class Terminal:
    """A program in a terminal of 100 columns, whose output is kept."""

    def __init__(self, argv: list[str], folder: Path, environ: dict[str, str]) -> None:
        self._main, terminal = pty.openpty()
        termios.tcsetwinsize(terminal, (40, 100))
        modes = termios.tcgetattr(terminal)
        modes[3] &= ~(termios.ECHO | termios.ECHOCTL)
        termios.tcsetattr(terminal, termios.TCSANOW, modes)
        self.process = subprocess.Popen(
            ["setsid", "--ctty", *argv], cwd=folder, env=environ,
            stdin=terminal, stdout=terminal, stderr=terminal,
        )  # fmt: skip
        os.close(terminal)
        self.text = ""

    def write(self, text: str) -> None:
        """Types a text."""
        os.write(self._main, text.encode())

    def read(self, seconds: float = 0.1) -> bool:
        """Takes what is printed within so many seconds; false once nothing can come any more."""
        if not select.select([self._main], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self._main, 65536)
        except OSError as error:  # Linux: the other side is closed
            if error.errno != errno.EIO:
                raise
            data = b""
        self.text += data.decode(errors="replace").replace("\r\n", "\n")
        return bool(data)

    def end(self, number: signal.Signals) -> None:
        """Ends the program by a signal, and what its session still runs by force."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)
        end = time.monotonic() + DEADLINE
        while self.process.poll() is None and time.monotonic() < end:
            self.read()
        for pid in psutil.pids():
            with contextlib.suppress(ProcessLookupError):
                if os.getsid(pid) == self.process.pid:
                    os.kill(pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._main)


class Reader:
    """Follows a page in a folder: writes its files and runs its commands."""

    def __init__(self, folder: Path, path: str, write: bool) -> None:
        self.folder = folder
        self.printed: list[tuple[Command, list[str]]] = []
        self._write_what_is_printed = write
        self._environ = {
            "PATH": path,
            "HOME": str(folder),
            "LANG": "C.UTF-8",
            "TERM": "xterm",
            "NO_COLOR": "1",
            "PS1": "",
            "PS2": "",
            "PYTHONDONTWRITEBYTECODE": "1",
            **({"XDG_RUNTIME_DIR": str(folder / ".run")} if os.getuid() else {}),
        }
        (folder / ".run").mkdir(mode=0o700, exist_ok=True)
        self._shell: Terminal | None = None
        self._staying: list[Terminal] = []

    def follow(self, text: str) -> int:
        """Follows a page to its end; the number of commands that were run."""
        count = 0
        for block in blocks(text):
            if block.not_run:
                continue
            if block.title:
                path = self.folder / block.title
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(block.text)
            elif block.language == "console":
                listed = commands(block)
                for command, following in zip(listed, [*listed[1:], None], strict=True):
                    asks = following is not None and following.text == "echo $?"
                    self._run(command, may_fail=asks)
                    count += 1
        return count

    def _run(self, command: Command, may_fail: bool) -> None:
        if command.stays:
            self._stay(command)
            return
        shell = self._shell = self._shell or self._start(
            ["bash", "--norc", "--noprofile", "--noediting", "-i", "+m"]
        )
        shell.text = ""
        self._deadline = time.monotonic() + DEADLINE
        shell.write(f"{command.text}\nstatus=$?; echo '<'end $status'>'; (exit $status)\n")
        while not (done := re.search(r"<end (\d+)>\n", shell.text)):
            self._wait(shell, f"line {command.line}: $ {command.text}")
        printed = shell.text[: done.start()].splitlines()
        self._compare(command, printed)
        assert may_fail or done[1] == "0", f"line {command.line}: $ {command.text}: exit {done[1]}"

    def _stay(self, command: Command) -> None:
        argv = shlex.split(command.text)
        terminal = self._start(["env", *argv] if "=" in argv[0] else argv)
        self._staying.append(terminal)
        shown = command.output
        stopped = shown.index("^C") if "^C" in shown else None
        self._until(terminal, command, shown[:stopped])
        if stopped is not None:
            terminal.text = ""
            terminal.process.send_signal(signal.SIGINT)
            while terminal.process.poll() is None or terminal.read():
                self._wait(terminal, f"line {command.line}: ^C", ended=True)
            begins = command.line + stopped + 1
            self._compare(Command("^C", begins, shown[stopped + 1 :]), _lines(terminal))

    def _until(self, terminal: Terminal, command: Command, shown: list[str]) -> None:
        while not matches([*shown, "..."], _lines(terminal)):
            try:
                self._wait(terminal, f"line {command.line}: $ {command.text}")
            except AssertionError:
                self._compare(Command(command.text, command.line, shown), _lines(terminal))
                raise

    def _start(self, argv: list[str]) -> Terminal:
        program = shutil.which(argv[0], path=self._environ["PATH"])
        assert program is not None, argv[0]
        terminal = Terminal([program, *argv[1:]], self.folder, self._environ)
        self._deadline = time.monotonic() + DEADLINE
        return terminal

    def _wait(self, terminal: Terminal, what: str, ended: bool = False) -> None:
        more = terminal.read()
        late = time.monotonic() > self._deadline
        assert more or ended, f"{what}: it has ended\n{terminal.text}"
        assert not late, f"{what}: too late\n{terminal.text}"

    def _compare(self, command: Command, printed: list[str]) -> None:
        shown = "\n".join(command.output)
        printed = [line.replace(str(self.folder), HOME) for line in printed]
        got = "\n".join(printed)
        if matches(command.output, printed) or not any(command.output):
            return
        assert self._write_what_is_printed, (
            f"line {command.line}: $ {command.text}\nthe page shows:\n{shown}\nprinted was:\n{got}"
        )
        self.printed.append((command, [ANSI.sub("", line) for line in printed]))

    def close(self) -> None:
        """Ends what still runs, the last first."""
        for terminal in reversed(self._staying):
            terminal.end(signal.SIGTERM)
        if self._shell is not None:
            self._shell.end(signal.SIGHUP)  # it ignores SIGTERM


@contextlib.contextmanager
def reader(folder: Path, path: str, *, write: bool = False) -> Iterator[Reader]:
    """A reader whose programs end with the block."""
    one = Reader(folder, path, write)
    try:
        yield one
    finally:
        one.close()


def _lines(terminal: Terminal) -> list[str]:
    return terminal.text.splitlines()


def main() -> None:
    """Follows a page in a folder; `tests/test_pages.py` runs it in a network of its own. With
    `--write` the page gets what is printed where it shows something else.
    """
    page, folder, *options = sys.argv[1:]
    text = Path(page).read_text()
    path = path_for(text)
    assert path is not None, "something that the page needs is missing"
    with reader(Path(folder), path, write="--write" in options) as one:
        print(one.follow(text))
    lines = text.splitlines()
    for command, printed in reversed(one.printed):
        lines[command.line : command.line + len(command.output)] = printed
    if one.printed:
        Path(page).write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
