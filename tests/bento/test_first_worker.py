"""The process that describes the code of a BentoML service becomes its first worker."""

from __future__ import annotations

import os
import signal
import tempfile
import textwrap
from pathlib import Path

import httpx
import psutil
import pytest

from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until
from support.with_bentoml import GATEWAY, PYTHON, copied, environ

CODE = """
    import os, signal, sys, threading
    with open("importers", "a") as file:
        file.write(f"{os.getpid()}\\n")
    locked = threading.Lock()
    beats = threading.Event()
    threading.Thread(target=beats.wait, daemon=True).start()  # a fork would lose it
    import bentoml

    @bentoml.service
    class One:
        @bentoml.api
        def about(self) -> dict:
            return {
                "pid": os.getpid(), "threads": threading.active_count() > 1,
                "argv": sys.argv[1:], "main": os.environ.get("SERVD_SERVICE", ""),
                "area": os.environ.get("SERVD_AREA", ""), "stdin": os.read(0, 1).decode(),
                "folder": os.getcwd(), "metrics": os.environ["PROMETHEUS_MULTIPROC_DIR"],
            }

        @bentoml.api
        def say(self) -> str:
            print("said by the code")
            return "said"
"""
CONFIG = f"""
    [services.one]
    bento = "service:One"
    listen = "127.0.0.1:0"
    python = "{PYTHON}"
"""


def started(servd: Servd, config: str = CONFIG, code: str = CODE) -> ServdProcess:
    (servd.folder / "service.py").write_text(textwrap.dedent(code))
    return servd(config, environ=environ(servd.folder)).ready()


def importers(folder: Path) -> list[int]:
    return [int(pid) for pid in (folder / "importers").read_text().split()]


def about(url: str) -> dict[str, object]:
    answer = httpx.post(f"{url}/about", json={}, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    found: dict[str, object] = answer.json()
    return found


def test_code_is_imported_once_on_the_way_to_the_first_answer(servd: Servd) -> None:
    daemon = started(servd)
    (pid,) = daemon.pids("one")
    assert importers(servd.folder) == [pid]
    metrics = about(daemon.url("one")).pop("metrics")
    assert about(daemon.url("one")) == {
        "pid": pid, "threads": True, "argv": [], "main": "one", "area": "", "stdin": "",
        "folder": str(servd.folder), "metrics": metrics,
    }  # fmt: skip
    assert httpx.post(f"{daemon.url('one')}/say", json={}, timeout=DEADLINE).text == "said"
    wait_until(lambda: "said by the code" in daemon.output, "what it prints is logged")
    title = Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")
    assert title == "servd: worker 0 of one"
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_it_is_supervised_like_any_other(servd: Servd) -> None:
    daemon = started(servd)
    (first,) = daemon.pids("one")
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: daemon.pids("one") not in ([], [first]), "another worker")
    (second,) = daemon.pids("one")
    wait_until(lambda: importers(servd.folder) == [first, second], "that imports the code itself")
    assert daemon.reload(CONFIG + 'env = { SHADE = "red" }\n')["outcome"] == "applied"
    (third,) = daemon.pids("one")
    assert about(daemon.url("one"))["pid"] == third
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_serve_imports_it_once(servd: Servd) -> None:
    (servd.folder / "service.py").write_text(textwrap.dedent(CODE))
    port = str(free_port())
    daemon = servd.run(
        "serve", "service:One", "--port", port, "--workers", "2",
        interpreter=PYTHON, environ=environ(servd.folder),
    ).ready()  # fmt: skip
    workers = daemon.pids("one")
    assert len(workers) == 2
    assert sorted(importers(servd.folder)) == sorted(workers)


COUNTED = """
    import prometheus_client
    prometheus_client.Counter("made_at_import", "Imports.").inc()
"""


def counted(daemon: ServdProcess) -> bool:
    shown = httpx.get(f"{daemon.url('one')}/metrics", timeout=DEADLINE).text
    return "made_at_import_total 1.0" in shown


def test_metrics_of_the_import_are_those_of_the_worker(servd: Servd) -> None:
    daemon = started(servd, CONFIG, COUNTED + CODE)
    (pid,) = daemon.pids("one")
    assert importers(servd.folder) == [pid]
    assert counted(daemon)
    folder = about(daemon.url("one"))["metrics"]
    assert Path(f"{folder}/counter_{pid}.db").exists()
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_metrics_that_cannot_be_moved_are_made_again(servd: Servd, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs another file system")
    with tempfile.TemporaryDirectory(dir=elsewhere) as folder:
        config = f'{CONFIG}\nenv = {{ PROMETHEUS_MULTIPROC_DIR = "{folder}" }}\n'
        daemon = started(servd, config, COUNTED + CODE)
        (pid,) = daemon.pids("one")
        first, second = importers(servd.folder)
        assert second == pid != first
        assert Path(f"{folder}/counter_{pid}.db").exists()
        assert daemon.stop() == 0


def test_code_with_variables_of_its_own_is_imported_with_them(servd: Servd) -> None:
    code = CODE.replace(
        "@bentoml.service\n", '@bentoml.service(envs=[{"name": "OWN", "value": "x"}])\n'
    )
    daemon = started(servd, CONFIG, code)
    (pid,) = daemon.pids("one")
    first, second = importers(servd.folder)
    assert second == pid != first
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


LOUD = """
    import logging
    import sys
    from multiprocessing import shared_memory

    held = shared_memory.SharedMemory(create=True, size=16)  # its tracker keeps stderr open
    print("printed at import")
    logging.getLogger("mine").error("logged at import")
    logging.getLogger("mine").info("details of the import")
    notes = logging.FileHandler("notes.log")
    logging.getLogger().addHandler(notes)
    main = sys.modules["__main__"]
    if hasattr(main, "answer"):
        main.answer = lambda reply, error=None: os.write(reply, b'{"pid": 1}')

    import os
"""


def test_what_the_import_says_and_sets_stays(servd: Servd) -> None:
    """And what it starts holds nothing up; what it says of its pid is not believed."""
    code = LOUD + CODE.replace('print("said by the code")', 'logging.error("said by the code")')
    daemon = started(servd, CONFIG + 'log = { level = "warning" }\n', code)
    (pid,) = daemon.pids("one")
    assert importers(servd.folder) == [pid]
    daemon.wait_for_line("printed at import")
    assert not daemon.lines("details of the import")
    assert [line["pid"] for line in daemon.lines("logged at import")] == [pid]
    assert httpx.post(f"{daemon.url('one')}/say", json={}, timeout=DEADLINE).text == "said"
    assert "said by the code" in (servd.folder / "notes.log").read_text()
    daemon.wait_for_line("said by the code", pid=pid)
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


@pytest.mark.parametrize("key", ["cpu_affinity = [0]", "rlimits = { nofile = 512 }"])
def test_a_worker_with_fewer_rights_imports_the_code_itself(servd: Servd, key: str) -> None:
    daemon = started(servd, CONFIG + key + "\n")
    (pid,) = daemon.pids("one")
    first, second = importers(servd.folder)
    assert second == pid != first
    wait_until(lambda: not psutil.pid_exists(first), "the other process has ended")
    assert daemon.stop() == 0


def test_of_a_graph_one_worker_has_the_first_import(servd: Servd) -> None:
    copied("graph", servd.folder)
    code = (servd.folder / "service.py").read_text()
    noting = "import os\nwith open('importers', 'a') as f:\n    f.write(f'{os.getpid()}\\n')\n"
    (servd.folder / "service.py").write_text(code.replace("import os\n", noting, 1))
    daemon = servd(GATEWAY, environ=environ(servd.folder)).ready()
    workers = [p for name in ("gw", "gw.tokenizer", "gw.scorer") for p in daemon.pids(name)]
    assert sorted(importers(servd.folder)) == sorted(workers)
