"""Log files: renamed when they are large, at the ends of lines, by nobody who may not."""

from __future__ import annotations

import os
import signal
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from servd.config.service import ServiceLog
from servd.daemon.log.file import LogFile
from servd.daemon.log.print_files import OpenPrintFiles
from servd.host.file_access import files_as, rights_for
from servd.host.identity import account

from support.harness import Servd, wait_until


def write(file: LogFile, content: bytes) -> None:
    view = memoryview(content)
    while view:
        view = view[file.write(view) :]


def test_old_files_are_numbered_and_the_oldest_goes(tmp_path: Path) -> None:
    with LogFile(str(tmp_path / "x.log"), max_size=10, keep=2) as file:
        for number in range(8):
            write(file, b"line %d\n" % number)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "x.log": "line 7\n",
        "x.log.1": "line 6\n",
        "x.log.2": "line 5\n",
    }


def test_none_is_kept_if_none_shall_be(tmp_path: Path) -> None:
    with LogFile(str(tmp_path / "x.log"), max_size=10, keep=0) as file:
        write(file, b"line 1\nline 2\nline 3\n")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["line 3\n"]


@given(
    st.lists(st.lists(st.binary(max_size=30).map(lambda b: b.replace(b"\n", b"")), max_size=9)),
    st.integers(1, 60),
)
def test_no_line_is_lost_torn_or_moved(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], size: int
) -> None:
    folder = tmp_path_factory.mktemp("log")
    with LogFile(str(folder / "x"), max_size=size, keep=1000) as file:
        for lines in batches:
            write(file, b"".join(line + b"\n" for line in lines))
    written = [line for lines in batches for line in lines]
    names = sorted((p.name for p in folder.iterdir()), key=lambda n: -int(n[2:] or 0))
    texts = [(folder / name).read_bytes() for name in names]
    assert b"".join(texts).split(b"\n")[:-1] == written
    for text in texts:
        assert text.count(b"\n") <= 1 or len(text) <= size


@pytest.mark.parametrize("stands_there", ["", None])
def test_one_that_another_program_has_moved_is_not_renamed(
    tmp_path: Path, stands_there: str | None
) -> None:
    path = tmp_path / "x.log"
    with LogFile(str(path), max_size=10) as file:
        write(file, b"line 1\n")
        path.rename(tmp_path / "moved")
        if stands_there is not None:
            path.write_text(stands_there)
        write(file, b"line 2\n")
    assert path.read_text() == "line 2\n"
    assert (tmp_path / "moved").read_text() == "line 1\n"
    assert not (tmp_path / "x.log.1").exists()


def test_where_it_cannot_be_renamed_it_grows_on(tmp_path: Path) -> None:
    path = tmp_path / "x.log"
    (tmp_path / "x.log.1").mkdir()
    (tmp_path / "x.log.1" / "full").touch()
    with LogFile(str(path), max_size=10, keep=1) as file:
        write(file, b"line 1\nline 2\n")
        write(file, b"line 3\n")
    assert path.read_text() == "line 1\nline 2\nline 3\n"


def test_a_pipe_that_nobody_reads_is_an_error_and_no_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="No such device"):
        LogFile(str(tmp_path / "pipe"))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root acts for others")
def test_the_user_of_a_service_turns_no_log_against_root(tmp_path: Path) -> None:
    nobody = account("nobody")
    assert nobody is not None
    secret = tmp_path / "secret"
    secret.write_text("secret\n")
    secret.chmod(0o600)
    for folder in [tmp_path, *tmp_path.parents][:-2]:
        folder.chmod(folder.stat().st_mode | 0o755)
    logs = tmp_path / "logs"
    logs.mkdir()
    os.chown(logs, nobody.uid, nobody.gid)
    (logs / "x.log").symlink_to(secret)
    assert rights_for(str(logs / "x.log"), nobody).account == nobody
    owner = rights_for(str(logs / "x.log"), None).account  # of a service of root's
    assert owner is not None
    assert owner.uid == nobody.uid
    assert rights_for("/etc/x.log", nobody) == (None, True)
    assert rights_for("/tmp/x.log", None) == (None, False)
    (tmp_path / "way").symlink_to(logs)
    assert rights_for(str(tmp_path / "way" / "x.log"), nobody).account == nobody
    with pytest.raises(PermissionError):
        LogFile(str(logs / "x.log"), account=nobody)
    with pytest.raises(PermissionError):
        LogFile(str(logs / "x.log"))
    with LogFile(str(logs / "y.log"), account=nobody, max_size=3) as file:
        write(file, b"1\n2\n3\n")
    assert {path.stat().st_uid for path in logs.glob("y.log*")} == {nobody.uid}
    assert secret.read_text() == "secret\n"
    with files_as(nobody), pytest.raises(PermissionError):
        secret.read_text()
    assert secret.read_text() == "secret\n"  # the thread has its own rights again


NOISE = """
import os, sys, time
print("to stdout"); print(); print("to stderr", file=sys.stderr, flush=True)
sys.stdout.buffer.write(b"\\xff\\x1e{}\\n"); sys.stdout.flush()
time.sleep(1000)
"""
APP = """
import logging, os
from fastapi import FastAPI
app = FastAPI()

@app.get("/")
def root():
    print("asked", os.getpid(), flush=True)
    logging.getLogger("x").warning("careful")
    return os.getpid()
"""
CONFIG = """
[services.noise]
command = ["python3", "noise.py"]
log = {{ file = "noise.log", max_rate = {rate} }}
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
log = {{ file = "{file}", max_size = "{size}", keep = 3 }}
"""


def test_what_workers_print_goes_to_a_file_too(servd: Servd) -> None:
    daemon = servd(
        CONFIG.format(rate=100, file="web.log", size="none"), main_py=APP, noise_py=NOISE
    ).ready()
    noise = servd.folder / "noise.log"
    wait_until(lambda: noise.exists() and noise.read_bytes().count(b"\n") == 4, "all is printed")
    assert sorted(noise.read_bytes().splitlines()) == [
        b"", b"to stderr", b"to stdout", b"\xff\x1e{}",
    ]  # fmt: skip
    assert stat.S_IMODE(noise.stat().st_mode) & 0o027 == 0

    (web,) = daemon.pids("web")
    log = servd.folder / "web.log"
    daemon.get("web")
    wait_until(lambda: '"request"' in log.read_text(), "the request is logged")
    text = log.read_text()
    assert f"asked {web}\n" in text
    assert '"event": "careful"' in text
    wait_until(lambda: f"asked {web}" in daemon.output, "it is passed on, too")

    log.rename(servd.folder / "moved")
    daemon.send(signal.SIGUSR1)
    daemon.wait_for("log reopened")
    daemon.get("web")
    wait_until(lambda: log.exists() and f"asked {web}\n" in log.read_text(), "a new file")

    answer = daemon.reload(CONFIG.format(rate=100, file="other.log", size="300B"))
    assert [change["kind"] for change in answer["changes"]] == ["live"]
    assert daemon.pids("web") == [web]
    other = servd.folder / "other.log"
    for _ in range(3):
        daemon.get("web")
    wait_until((servd.folder / "other.log.2").exists, "it is renamed")
    assert "asked" not in log.read_text().replace(f"asked {web}", "", 1)
    assert daemon.stop() == 0
    assert other.exists()
    assert not (servd.folder / "other.log.4").exists()


def test_a_folder_that_is_missing_is_a_mistake_of_the_file(servd: Servd) -> None:
    daemon = servd(
        CONFIG.format(rate=0, file="no/web.log", size="none"), main_py=APP, noise_py=NOISE
    )
    assert daemon.wait() == 78
    assert f"services.web.log.file: folder not found: {servd.folder}/no" in daemon.output


def test_a_log_is_opened_again_while_it_is_written_to(tmp_path: Path) -> None:
    """Each line goes to its own file, and none is lost, however often."""
    files = OpenPrintFiles()
    names = ("a", "b")
    opened = [
        files.acquire(ServiceLog(file=str(tmp_path / name), max_size=2000, keep=1000), None)
        for name in names
    ]
    for number in range(3000):
        for name, file in zip(names, opened, strict=True):
            assert file is not None
            file.put(f"{name} {number}".encode())
        if number % 10 == 0:
            assert files.reopen() == []
    files.close()
    for name in names:
        lines = [line for p in tmp_path.glob(f"{name}*") for line in p.read_text().splitlines()]
        assert sorted(lines) == sorted(f"{name} {number}" for number in range(3000))


def test_a_file_that_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    files = OpenPrintFiles()
    (tmp_path / "x").mkdir()
    file = files.acquire(ServiceLog(file=str(tmp_path / "x")), None)
    assert file is not None
    file.put(b"lost")
    assert len(files.reopen()) == 1
    (tmp_path / "x").rmdir()
    assert files.reopen() == []
    file.put(b"written")
    files.close()
    assert (tmp_path / "x").read_text() == "written\n"


def test_the_target_of_a_link_is_renamed_and_not_the_link(tmp_path: Path) -> None:
    (tmp_path / "volume").mkdir()
    (tmp_path / "x.log").symlink_to(tmp_path / "volume" / "x.log")
    with LogFile(str(tmp_path / "x.log"), max_size=10, keep=2) as file:
        write(file, b"line 1\nline 2\n")
    assert (tmp_path / "x.log").is_symlink()
    assert {path.name for path in (tmp_path / "volume").iterdir()} == {"x.log", "x.log.1"}
