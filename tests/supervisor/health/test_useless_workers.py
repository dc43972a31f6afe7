"""Workers that answer nothing well leave at once, whatever else waits to be replaced."""

from __future__ import annotations

from pathlib import Path

from support.harness import Servd, ServdProcess, wait_until

APP = """
    import asyncio, os, servd
    from pathlib import Path

    PID = os.getpid()

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            await receive()
            while not Path("go").exists():
                await asyncio.sleep(0.01)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        if scope["path"] == "/oom":
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB.")
        if Path(f"unwell-{PID}").exists():
            servd.unwell("the device is lost")
        sick = scope["path"] == "/health" and Path(f"sick-{PID}").exists()
        await send({"type": "http.response.start", "status": 500 if sick else 200, "headers": []})
        await send({"type": "http.response.body", "body": str(PID).encode()})
"""


def start(servd: Servd, workers: int) -> ServdProcess:
    """From then on, workers that start wait for a file."""
    (servd.folder / "go").touch()
    daemon = servd(
        f"""
        daemon.gpus = 4
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        workers = {workers}
        gpus = 1
        health = {{ path = "/health", interval = "100ms", failures = 3 }}
        """,
        main_py=APP,
    ).ready()
    (daemon.folder / "go").unlink()
    return daemon


def make_sick(daemon: ServdProcess, pid: int) -> Path:
    """Returns once the worker waits for its successor."""
    sick = daemon.folder / f"sick-{pid}"
    sick.touch()
    daemon.wait_for("worker recycle requested", reason="health", pid=pid)
    return sick


def test_a_useless_worker_waits_for_no_other_one(servd: Servd) -> None:
    daemon = start(servd, 2)
    first, second = daemon.pids("web")
    make_sick(daemon, first)
    (daemon.folder / f"unwell-{second}").touch()
    daemon.wait_for("worker recycled", reason="unwell", pid=second)
    assert not daemon.find("worker recycled", pid=first)
    (daemon.folder / "go").touch()
    daemon.wait_for("worker recycled", reason="health", pid=first)
    wait_until(lambda: daemon.service("web")["state"] == "ready", "others")
    assert not {first, second} & set(daemon.pids("web"))


def test_a_worker_that_becomes_useless_does_not_wait_for_its_successor(servd: Servd) -> None:
    daemon = start(servd, 1)
    (pid,) = daemon.pids("web")
    make_sick(daemon, pid)
    (daemon.folder / f"unwell-{pid}").touch()
    daemon.wait_for("worker recycled", reason="unwell", pid=pid)
    (daemon.folder / "go").touch()
    wait_until(lambda: daemon.service("web")["state"] == "ready", "another worker")
    wait_until(lambda: len(daemon.pids("web")) == 1, "a single one")
    assert len(daemon.find("worker recycled")) == 1


def test_a_lack_of_memory_is_not_forgotten_when_probes_succeed_again(servd: Servd) -> None:
    daemon = start(servd, 1)
    (pid,) = daemon.pids("web")
    sick = make_sick(daemon, pid)
    for _ in range(3):
        assert daemon.get("web", "/oom").status_code == 500
    daemon.wait_for("worker recycle requested", reason="gpu_oom", pid=pid)
    sick.unlink()
    daemon.wait_for("worker healthy again", pid=pid)
    (daemon.folder / "go").touch()
    daemon.wait_for("worker recycled", reason="gpu_oom", pid=pid)


def test_a_worker_that_lacks_memory_ends_first_if_two_have_no_room(servd: Servd) -> None:
    app = (
        APP
        + """
    held = Path("held")
    if held.exists() and Path("/proc", held.read_text()).exists():
        raise SystemExit("CUDA out of memory")
    held.write_text(str(PID))
    """
    )
    (servd.folder / "go").touch()
    daemon = servd(
        """
        daemon.gpus = 1
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        gpus = 1
        """,
        main_py=app,
    ).ready()
    (before,) = daemon.pids("web")
    for _ in range(3):
        assert daemon.get("web", "/oom").status_code == 500
    daemon.wait_for("worker recycled", reason="gpu_oom", pid=before)
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
    wait_until(lambda: daemon.service("web")["state"] == "ready", "it is ready")
