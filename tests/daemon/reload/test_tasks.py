"""Tasks run to their end before their dependents start, and again before these roll."""

from __future__ import annotations

from support.apps import PLAIN
from support.harness import Servd, command, wait_until

TASK = """
    [services.migrate]
    command = ["sh", "-c", "{code}"]
    kind = "task"
    run = "{run}"
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    env = {{ V = "{value}" }}
    depends_on = [{{ service = "migrate", condition = "completed" }}]
"""


def config(value: int = 1, code: str = "echo run >> runs", run: str = "always") -> str:
    return TASK.format(value=value, code=code, run=run)


def runs(servd: Servd) -> int:
    path = servd.folder / "runs"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_dependents_start_after_the_task_has_completed(servd: Servd) -> None:
    daemon = servd(config(code="sleep 0.5; echo run >> runs"), main_py=PLAIN).ready()
    completed = daemon.wait_for("task completed", service="migrate")
    ready = daemon.wait_for("worker ready", service="web")
    assert completed["timestamp"] < ready["timestamp"]
    migrate = daemon.service("migrate")
    assert (migrate["state"], migrate["processes"]) == ("completed", [])
    assert daemon.ask("GET", "/readyz").status_code == 200
    assert runs(servd) == 1
    assert daemon.stop() == 0


def test_a_task_runs_again_before_a_dependent_rolls(servd: Servd) -> None:
    daemon = servd(config(1), main_py=PLAIN).ready()
    answer = daemon.reload(config(2))
    assert [(c["service"], c["kind"]) for c in answer["changes"]] == [
        ("migrate", "roll"), ("web", "roll"),
    ]  # fmt: skip
    assert answer["outcome"] == "applied"
    assert runs(servd) == 2
    assert daemon.get("web").text == "2"
    assert daemon.service("migrate")["state"] == "completed"


def test_a_task_that_runs_once_does_not_run_again_before_a_roll(servd: Servd) -> None:
    daemon = servd(config(1, run="once"), main_py=PLAIN).ready()
    assert daemon.reload(config(2, run="once"))["outcome"] == "applied"
    assert runs(servd) == 1
    assert daemon.get("web").text == "2"


def test_a_changed_task_runs_at_once(servd: Servd) -> None:
    daemon = servd(config(1), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    answer = daemon.reload(config(1, code="echo other >> runs"))
    assert answer["outcome"] == "applied"
    assert runs(servd) == 2
    assert daemon.pids("web") == pids


def test_a_task_that_fails_undoes_the_reload(servd: Servd) -> None:
    daemon = servd(config(1), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    answer = daemon.reload(config(2, code="echo table is locked; exit 7"))
    assert (answer["outcome"], answer["service"]) == ("rolled_back", "migrate")
    assert "exited with status 7" in answer["detail"]
    assert answer["last_lines"] == ["table is locked"]
    assert daemon.pids("web") == pids
    assert daemon.service("migrate")["state"] == "completed"


def test_a_task_that_fails_at_first_start_keeps_its_dependents_waiting(servd: Servd) -> None:
    daemon = servd(config(code="exit 7"), main_py=PLAIN).ready()
    states = {s["name"]: s["state"] for s in daemon.status()["services"]}
    assert states == {"migrate": "failed", "web": "waiting"}
    assert len(daemon.find("worker exited", service="migrate")) == 1
    assert daemon.ask("GET", "/readyz").status_code == 503
    answer = daemon.reload(config())
    assert answer["outcome"] == "applied"
    wait_until(lambda: daemon.service("web")["state"] == "ready", "web runs after all")


def test_a_task_is_a_command_of_one_process(servd: Servd) -> None:
    servd.write(
        servd_toml='[services.web]\napp = "main:app"\nkind = "task"\nworkers = 2\n', main_py=PLAIN
    )
    done = command("check", folder=servd.folder)
    assert done.returncode == 78
    assert "servd.toml:3:8: services.web.kind:" in done.stderr
    assert "servd.toml:4:11: services.web.workers: a task runs in one process" in done.stderr
