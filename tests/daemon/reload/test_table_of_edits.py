"""Eighty edits and more: what `plan` says of each, what a reload does, which workers it keeps."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import tomli_w

from support.harness import Servd, ServdProcess, servd_for

APP = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})

other = app

def make():
    return app
"""
BASE: dict[str, Any] = {
    "services": {
        "web": {"app": "main:app", "listen": "127.0.0.1:0", "env": {"A": "1"}},
        "job": {"command": ["sleep", "1000"], "ready": "started"},
    }
}
DELETED = None


def web(**keys: Any) -> dict[str, Any]:
    return {"services": {"web": keys}}


def job(**keys: Any) -> dict[str, Any]:
    return {"services": {"job": keys}}


def edited(base: Mapping[str, Any], edit: Mapping[str, Any]) -> dict[str, Any]:
    """The tables of `base` with those of `edit` put in."""
    found: dict[str, Any] = copy.deepcopy(dict(base))
    for key, value in edit.items():
        if value is DELETED:
            del found[key]
        elif isinstance(value, Mapping) and isinstance(found.get(key), Mapping):
            found[key] = edited(found[key], value)
        else:
            found[key] = copy.deepcopy(value)
    return found


LIVE: list[tuple[dict[str, Any], str]] = [
    (web(backlog=99), "web live ~backlog"),
    (web(public_url="https://x.org"), "web live +public_url"),
    (web(watchdog="10s"), "web live ~watchdog"),
    (web(watchdog="none"), "web live ~watchdog"),
    (web(health={"path": "/up"}), "web live +health.path"),
    (web(health={"path": "/", "interval": "1s"}), "web live +health.path +health.interval"),
    (web(timeouts={"startup": "20s"}), "web live ~timeouts.startup"),
    (web(restart={"policy": "on-failure"}), "web live ~restart.policy"),
    (
        web(restart={"backoff": "1s", "give_up_after": 9}),
        "web live ~restart.backoff ~restart.give_up_after",
    ),
    (web(rollout={"strategy": "one-by-one"}), "web live ~rollout.strategy"),
    (web(rollout={"max_surge": 1}), "web live ~rollout.max_surge"),
    (web(log={"level": "debug"}), "web live ~log.level"),
    (web(log={"max_rate": 9}), "web live ~log.max_rate"),
    (web(log={"file": "web.log", "keep": 2}), "web live +log.file ~log.keep"),
    (web(socket={"mode": "0660"}), "web live ~socket.mode"),
    (job(restart="never"), "job live ~restart.policy"),
    (job(watchdog="9s"), "job live ~watchdog"),
    (job(timeouts={"startup": 5}), "job live ~timeouts.startup"),
]
ROLL = [
    (web(app="main:other"), "web roll ~app"),
    (web(app="main:make", factory=True), "web roll ~factory ~app"),
    (web(interface="asgi3"), "web roll ~interface"),
    (web(threads=7), "web roll ~threads"),
    (web(cpu_affinity=[0]), "web roll +cpu_affinity"),
    (web(env={"A": "2"}), "web roll ~env.A"),
    (web(env={"B": "2"}), "web roll +env.B"),
    (web(env={"A": DELETED, "C": "3"}), "web roll -env.A +env.C"),
    (web(env_file="a.env"), "web roll ~env_file"),
    (web(env_passthrough=["LANG_OF_TEST"]), "web roll ~env"),
    (web(depends_on=["job"]), "web roll +depends_on"),
    (web(timeouts={"drain": "5s"}), "web roll ~timeouts.drain"),
    (
        web(timeouts={"request": "9s", "keep_alive": "1s"}),
        "web roll ~timeouts.request ~timeouts.keep_alive",
    ),
    (web(timeouts={"headers": "9s", "body": "9s"}), "web roll ~timeouts.headers ~timeouts.body"),
    (web(limits={"body": "1MB"}), "web roll +limits.body"),
    (web(limits={"concurrency": 9, "head": "9KiB"}), "web roll +limits.concurrency +limits.head"),
    (web(umask="027"), "web roll +umask"),
    (web(rlimits={"nofile": 999}), "web roll +rlimits.nofile"),
    (web(log={"access": False}), "web roll ~log.access"),
    (web(log={"sample": 0.5, "skip_paths": ["/up"]}), "web roll +log.skip_paths ~log.sample"),
    (web(proxy={"headers": True}), "web roll ~proxy.headers"),
    (web(proxy={"trusted": ["10.0.0.0/8"]}), "web roll ~proxy.trusted"),
    (web(root_path="/api"), "web roll +root_path"),
    (web(uvicorn={"http": "h11"}), "web roll ~uvicorn.http"),
    (
        web(uvicorn={"ws_max_size": 9999, "lifespan": "off"}),
        "web roll ~uvicorn.lifespan ~uvicorn.ws_max_size",
    ),
    (web(stop_signal="SIGINT"), "web roll ~stop_signal"),
    (web(backlog=99, threads=7), "web roll ~backlog ~threads"),
    (web(workers=2, threads=7), "web roll ~workers ~threads"),
    (web(listen=["127.0.0.1:0", "unix:web.sock"]), "web rebind ~listen"),
    (web(listen="unix:other.sock"), "web rebind ~listen"),
    (web(listen=DELETED), "web rebind ~listen"),
    (job(command=["sleep", "2000"]), "job roll ~command"),
    (job(command=["sh", "-c", "sleep 3000"]), "job roll ~command"),
    (job(env={"X": "1"}), "job roll +env.X"),
    (job(stop_signal="SIGKILL"), "job roll ~stop_signal"),
    (job(stop_command=["true"]), "job roll +stop_command"),
    (job(directory="sub"), "job roll ~directory"),
    (job(rlimits={"core": 0}), "job roll +rlimits.core"),
    (
        job(depends_on=[{"service": "web", "condition": "started"}]),
        "job roll +depends_on, web roll ~sockets",
    ),
    ({"defaults": {"env": {"A": "9"}}}, "job roll +env.A"),
    ({"defaults": {"env": {"D": "9"}}}, "job roll +env.D, web roll +env.D"),
    (
        {"defaults": {"timeouts": {"drain": "9s"}}},
        "job roll ~timeouts.drain, web roll ~timeouts.drain",
    ),
]
SCALE = [
    (web(workers=2), "web scale ~workers"),
    (web(workers=0), "web scale ~workers"),
    (job(workers=2), "job scale ~workers"),
    (web(workers=2, backlog=99), "web scale ~backlog ~workers"),
]
OTHERS = [
    ({"services": {"new": {"command": ["sleep", "9"], "ready": "started"}}}, "new add"),
    ({"services": {"job": DELETED}}, "job remove"),
    (
        {"services": {"job": DELETED, "new": {"command": ["sleep", "9"], "ready": "started"}}},
        "job remove, new add",
    ),
]
NOTHING: list[dict[str, Any]] = [
    web(backlog=2048),
    web(workers=1),
    web(timeouts={"startup": 60}),
    web(timeouts={"startup": "1m", "drain": "0.5m"}),
    web(limits=False),
    web(tls=False),
    web(env={"A": 1}),
    web(env={"A": "${NOT_SET:-1}"}),
    web(env={"A": DELETED}, env_file="b.env"),
    web(listen=["127.0.0.1:0"]),
    web(restart="always"),
    web(restart={"backoff": 0.5}),
    web(log={"level": "INFO"}),
    job(command="sleep 1000"),
    job(env={}),
    {"x-shared": {"anything": 1}},
    {"version": 1},
    {"defaults": {"workers": 1}},
]
SETTINGS: list[tuple[dict[str, Any], str]] = [
    ({"daemon": {"log": {"level": "debug"}}}, "~daemon.log.level live"),
    ({"daemon": {"shutdown_timeout": "9s"}}, "~daemon.shutdown_timeout live"),
    ({"daemon": {"watch_debounce": "1s"}}, "~daemon.watch_debounce live"),
    ({"daemon": {"start_concurrency": 1}}, "~daemon.start_concurrency live"),
    ({"daemon": {"on_start_failure": "exit"}}, "~daemon.on_start_failure live"),
    ({"admin": {"metrics": "unix:metrics.sock"}}, "+admin.metrics live"),
    ({"hooks": [{"on": ["service_failed"], "command": ["true"]}]}, "+hooks live"),
    ({"daemon": {"shutdown_timeout": "9s"}, **web(backlog=99)},
     "~daemon.shutdown_timeout live, web live ~backlog"),
]  # fmt: skip
REFUSED: list[tuple[dict[str, Any], str, str]] = [
    (web(workers="many"), "invalid", "services.web.workers"),
    (web(worker=2), "invalid", "workers"),
    (web(listen="127.0.0.1:99999"), "invalid", "services.web.listen"),
    (web(depends_on=["nobody"]), "invalid", "nobody"),
    (web(env={"A": "${NOT_SET}"}), "invalid", "NOT_SET"),
    (web(tls={"certfile": "no.pem", "keyfile": "no.pem"}), "invalid", "no.pem"),
    (web(app="broken:app"), "rolled_back", "broken on purpose"),
    (web(app="main:nothing"), "rolled_back", "nothing"),
    (
        web(threads=7) | {"services": {"web": {"threads": 7}, "job": {"command": ["false"]}}},
        "rolled_back",
        "job",
    ),
]


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServdProcess]:
    """One daemon for all, which goes back to the same configuration before each edit."""
    folder = tmp_path_factory.mktemp("edits")
    with_servd = servd_for(folder)
    servd: Servd = next(with_servd)
    (folder / "sub").mkdir()
    (folder / "a.env").write_text("FROM_FILE=1\n")
    (folder / "b.env").write_text("A=1\n")
    servd.write(main_py=APP, broken_py='raise RuntimeError("broken on purpose")\n')
    environ = {"LANG_OF_TEST": "1"}
    yield servd(tomli_w.dumps(BASE), environ=environ).ready()
    next(with_servd, None)


@pytest.fixture
def at_base(daemon: ServdProcess) -> ServdProcess:
    """The daemon, with the configuration that every edit starts from."""
    answer = daemon.reload(tomli_w.dumps(BASE))
    assert answer["outcome"] in ("applied", "unchanged"), answer
    return daemon


def brief(answer: Mapping[str, Any]) -> str:
    """`web roll ~env.A, ~daemon.log.level live`: what an answer says that changes."""
    settings = [f"{row['sign']}{row['key']} {row['kind']}" for row in answer["settings"]]
    changes = [
        " ".join([row["service"], row["kind"], *(f"{k['sign']}{k['key']}" for k in row["keys"])])
        for row in answer["changes"]
    ]
    return ", ".join([*settings, *sorted(changes)])


def pids(daemon: ServdProcess) -> dict[str, set[int]]:
    """The workers of each service."""
    return {
        each["name"]: {process["pid"] for process in each["processes"]}
        for each in daemon.status()["services"]
    }


def planned_and_reloaded(daemon: ServdProcess, edit: Mapping[str, Any]) -> str:
    """What both say of an edit, in the same words."""
    daemon.edit(tomli_w.dumps(edited(BASE, edit)))
    plan = brief(daemon.ask("GET", "/v1/plan").json())
    answer = daemon.reload(wait_drained=True)
    assert answer["outcome"] == ("applied" if plan else "unchanged"), answer
    assert brief(answer) == plan
    return plan


def ids(rows: list[Any]) -> list[str]:
    return [repr(row[0] if isinstance(row, tuple) else row)[:70] for row in rows]


@pytest.mark.parametrize(("edit", "says"), LIVE + SETTINGS, ids=ids(LIVE + SETTINGS))
def test_what_is_live_keeps_every_worker(
    at_base: ServdProcess, edit: dict[str, Any], says: str
) -> None:
    before = pids(at_base)
    assert planned_and_reloaded(at_base, edit) == says
    assert pids(at_base) == before


@pytest.mark.parametrize(("edit", "says"), ROLL, ids=ids(ROLL))
def test_what_rolls_replaces_the_workers_of_the_service_alone(
    at_base: ServdProcess, edit: dict[str, Any], says: str
) -> None:
    before = pids(at_base)
    assert planned_and_reloaded(at_base, edit) == says
    named = {change.split()[0] for change in says.split(", ")}
    after = pids(at_base)
    for name in before:
        assert bool(before[name] & after[name]) == (name not in named), name
        assert after[name]


@pytest.mark.parametrize(("edit", "says"), SCALE, ids=ids(SCALE))
def test_a_scale_keeps_the_workers_that_stay(
    at_base: ServdProcess, edit: dict[str, Any], says: str
) -> None:
    before = pids(at_base)
    assert planned_and_reloaded(at_base, edit) == says
    after = pids(at_base)
    for name, table in edit["services"].items():
        assert len(after[name]) == table["workers"]
        assert after[name] >= before[name] or not after[name]
    for name in before.keys() - edit["services"].keys():
        assert after[name] == before[name]


@pytest.mark.parametrize(("edit", "says"), OTHERS, ids=ids(OTHERS))
def test_services_come_and_go_alone(at_base: ServdProcess, edit: dict[str, Any], says: str) -> None:
    before = pids(at_base)
    assert planned_and_reloaded(at_base, edit) == says
    after = pids(at_base)
    assert after.keys() == edited(BASE, edit)["services"].keys()
    assert all(before[name] == after[name] for name in before.keys() & after.keys())
    assert all(after.values())


@pytest.mark.parametrize("edit", NOTHING, ids=ids(NOTHING))
def test_what_means_the_same_changes_nothing(at_base: ServdProcess, edit: dict[str, Any]) -> None:
    before = pids(at_base)
    assert planned_and_reloaded(at_base, edit) == ""
    assert pids(at_base) == before


def test_what_needs_a_restart_is_planned_and_left(at_base: ServdProcess) -> None:
    """The variable of the harness says where the runtime folder is: it wins over the file."""
    before = pids(at_base)
    assert planned_and_reloaded(at_base, {"daemon": {"runtime_dir": "/tmp/else"}}) == ""
    assert pids(at_base) == before


@pytest.mark.parametrize(("edit", "outcome", "named"), REFUSED, ids=ids(REFUSED))
def test_what_is_refused_keeps_every_worker(
    at_base: ServdProcess, edit: dict[str, Any], outcome: str, named: str
) -> None:
    before = pids(at_base)
    at_base.edit(tomli_w.dumps(edited(BASE, edit)))
    answer = at_base.ask("POST", "/v1/reload", json={}).json()
    assert answer["outcome"] == outcome
    assert named in str(answer)
    assert pids(at_base) == before
