"""What a BentoML service depends on in its code becomes services like any other."""

from __future__ import annotations

import concurrent.futures
import os
import signal
import sys
import textwrap
import threading
from typing import Any

import httpx
import psutil

from support.apps import PID_IN_A_CHUNK
from support.harness import DEADLINE, Servd, ServdProcess, alive, command, free_port, wait_until
from support.with_bentoml import GATEWAY, PYTHON, copied, environ


def graph(servd: Servd, config: str = GATEWAY, **files: str) -> ServdProcess:
    if not (servd.folder / "service.py").exists():
        copied("graph", servd.folder)
    return servd(config, environ=environ(servd.folder), **files)


def rate(daemon: ServdProcess, text: str = "why does bread rise") -> Any:
    answer = httpx_post(daemon, "/rate", {"text": text})
    assert answer.status_code == 200, answer.text
    return answer.json()


def httpx_post(daemon: ServdProcess, path: str, body: dict[str, Any]) -> Any:
    return httpx.post(daemon.url("gw") + path, json=body, timeout=DEADLINE)


def test_components_are_discovered_started_and_called(servd: Servd) -> None:
    daemon = graph(servd).ready()
    services = {s["name"]: s for s in daemon.status()["services"]}
    assert services.keys() == {"gw", "gw.tokenizer", "gw.scorer"}
    assert services["gw.tokenizer"]["workers"] == {"desired": 2, "ready": 2}
    assert services["gw"]["depends_on"] == ["gw.scorer", "gw.tokenizer"]
    assert services["gw.scorer"]["depends_on"] == ["gw.tokenizer"]
    assert services["gw.tokenizer"]["listen"] == []
    assert rate(daemon) == {"words": 4.0, "score": 4.0}
    about = httpx_post(daemon, "/about", {}).json()
    assert about["service"] == "gw.tokenizer"
    assert about["shade"] == "blue"
    assert about["worker"] in ("1", "2")
    counted = daemon.metric(
        "servd_requests_total", service="gw.tokenizer", method="POST", code="200"
    )
    assert counted
    assert counted >= 3
    assert daemon.stop() == 0
    assert daemon.leftovers() == []


def test_the_daemon_itself_never_imports_the_code(servd: Servd) -> None:
    copied("graph", servd.folder)
    code = (servd.folder / "service.py").read_text()
    noting = "import os\nwith open('importers', 'a') as f:\n    f.write(f'{os.getpid()}\\n')\n"
    code = code.replace("import os\n", noting, 1)
    (servd.folder / "service.py").write_text(code)
    daemon = graph(servd).ready()
    importers = (servd.folder / "importers").read_text().split()
    assert len(importers) == 4  # the first one became a worker
    assert str(daemon.pid) not in importers


def test_commands_show_them_without_a_daemon(servd: Servd) -> None:
    copied("graph", servd.folder)
    servd.write(servd_toml=GATEWAY.replace("127.0.0.1:0", "127.0.0.1:3000"))
    shown = command("graph", folder=servd.folder, environ=environ(servd.folder))
    assert shown.stdout == (
        "gw  (http://127.0.0.1:3000, 1 worker)\n"
        "├── gw.scorer  (internal, 1 worker)\n"
        "│   └── gw.tokenizer  (internal, 2 workers)\n"
        "└── gw.tokenizer  (internal, 2 workers)\n"
    )
    planned = command("plan", folder=servd.folder, environ=environ(servd.folder))
    assert [line.split()[1] for line in planned.stdout.splitlines()[:3]] == [
        "gw.tokenizer",
        "gw.scorer",
        "gw",
    ]


def test_the_file_overrides_what_the_code_declares(servd: Servd) -> None:
    """`[defaults]` are weaker than the code, what is said of just the service is stronger."""
    (servd.folder / "conf").mkdir()
    (servd.folder / "conf" / "shade.env").write_text("SHADE=green\n")
    config = f"""
        [defaults]
        workers = 3
        {GATEWAY}
        workers = 1
        [services.gw.components.Scorer]
        env_file = "conf/shade.env"
        health = {{ path = "/readyz" }}
        [services.gw.components.Tokenizer]
        env_file = "conf/shade.env"
    """
    daemon = graph(servd, config).ready()
    desired = {s["name"]: s["workers"]["desired"] for s in daemon.status()["services"]}
    assert desired == {"gw": 1, "gw.scorer": 3, "gw.tokenizer": 2}
    assert httpx_post(daemon, "/about", {}).json()["shade"] == "green"


def test_a_component_is_scaled_and_rolled_alone(servd: Servd) -> None:
    daemon = graph(servd).ready()
    before = {name: daemon.pids(name) for name in ("gw", "gw.tokenizer", "gw.scorer")}
    scaled = GATEWAY + "[services.gw.components.Tokenizer]\nworkers = 3\n"
    report = daemon.reload(scaled)
    assert [(c["service"], c["kind"]) for c in report["changes"]] == [("gw.tokenizer", "scale")]
    assert set(before["gw.tokenizer"]) < set(daemon.pids("gw.tokenizer"))
    rolled = scaled + 'env = { SHADE = "red" }\n'
    report = daemon.reload(rolled)
    assert [(c["service"], c["kind"]) for c in report["changes"]] == [("gw.tokenizer", "roll")]
    assert httpx_post(daemon, "/about", {}).json()["shade"] == "red"
    assert daemon.pids("gw") == before["gw"]
    assert daemon.cli("scale", "gw.tokenizer=1").returncode == 0
    assert len(daemon.pids("gw.tokenizer")) == 1
    assert daemon.cli("restart", "gw.scorer").returncode == 0
    assert daemon.pids("gw.scorer") != before["gw.scorer"]
    assert "gw.scorer, gw depend on" in daemon.cli("stop", "gw.tokenizer").stderr
    assert rate(daemon)["words"] == 4.0


def test_code_is_asked_again_when_it_has_changed(servd: Servd) -> None:
    daemon = graph(servd).ready()
    code = (servd.folder / "service.py").read_text()
    assert daemon.reload()["outcome"] == "unchanged"
    (servd.folder / "service.py").write_text(
        code.replace("@bentoml.service(workers=2,", "@bentoml.service(workers=1,")
    )
    report = daemon.reload()
    assert [(c["service"], c["kind"]) for c in report["changes"]] == [("gw.tokenizer", "scale")]
    without = code.replace("    scorer = bentoml.depends(Scorer)\n", "").replace(
        "await self.scorer.score(text)", "0.0"
    )
    (servd.folder / "service.py").write_text(without)
    report = daemon.reload()
    kinds = {c["service"]: c["kind"] for c in report["changes"]}
    assert kinds == {"gw": "roll", "gw.tokenizer": "roll", "gw.scorer": "remove"} or kinds == {
        "gw": "roll",
        "gw.tokenizer": "scale",
        "gw.scorer": "remove",
    }
    assert rate(daemon) == {"words": 4.0, "score": 0.0}


BROKEN = "\nraise RuntimeError('half an edit')\n"


def test_broken_code_keeps_what_it_declared_before(servd: Servd) -> None:
    """As with every other code: a reload does not compare it, a roll of it is undone."""
    other = '[services.other]\ncommand = ["sleep", "1000"]\n'
    daemon = graph(servd, GATEWAY + other).ready()
    pids = daemon.pids("gw")
    with open(servd.folder / "service.py", "a") as file:
        file.write(BROKEN)
    report = daemon.reload(GATEWAY + other.replace("1000", "1001"))
    assert [(c["service"], c["kind"]) for c in report["changes"]] == [("other", "roll")]
    (warning,) = daemon.find("config warning")
    assert "cannot load service:Gateway: RuntimeError: half an edit" in warning["warning"]
    assert "service.py" in warning["exception"]
    assert "bentoml/_internal" not in warning["exception"]
    rolled = daemon.cli("restart", "gw")
    assert rolled.returncode == 1
    assert "RuntimeError: half an edit" in rolled.stderr
    assert daemon.pids("gw") == pids
    assert rate(daemon)["words"] == 4.0


def test_code_that_is_broken_at_the_start_is_planned_once_it_is_mended(servd: Servd) -> None:
    copied("graph", servd.folder)
    code = (servd.folder / "service.py").read_text()
    (servd.folder / "service.py").write_text(code + BROKEN)
    other = '[services.other]\ncommand = ["sleep", "1000"]\n'
    soon = 'restart = { backoff = "100ms", backoff_max = "300ms" }\n'
    daemon = graph(servd, GATEWAY + soon + other)
    daemon.wait_for("service ready", service="other")
    died = daemon.wait_for("worker exited", service="gw")
    assert "half an edit" in died["reason"]
    assert {s["name"] for s in daemon.status()["services"]} == {"gw", "other"}
    checked = daemon.cli("check", "--imports")
    assert checked.returncode == 1
    assert "RuntimeError: half an edit" in checked.stderr
    (servd.folder / "service.py").write_text(code)
    wait_until(
        lambda: {s["state"] for s in daemon.status()["services"]} == {"ready"}, "all are ready"
    )
    assert {s["name"] for s in daemon.status()["services"]} == {
        "gw", "gw.tokenizer", "gw.scorer", "other",
    }  # fmt: skip
    assert rate(daemon)["words"] == 4.0


def test_code_that_makes_metrics_when_it_is_imported_is_served(servd: Servd) -> None:
    code = """
        import bentoml
        from bentoml.metrics import Counter
        from prometheus_client import Gauge

        CALLS = Counter("calls", "Calls")
        GAUGE = Gauge("depth", "Depth", multiprocess_mode="max")

        @bentoml.service
        class Gateway:
            @bentoml.api
            def rate(self, text: str) -> str:
                CALLS.inc()
                return text
    """
    (servd.folder / "service.py").write_text(textwrap.dedent(code))
    temporary = servd.folder / "tmp"
    temporary.mkdir()
    daemon = graph(servd, f'{GATEWAY}\nenv.TMPDIR = "{temporary}"\n').ready()
    assert not daemon.lines("config warning")
    assert httpx_post(daemon, "/rate", {"text": "a"}).text == "a"
    wait_until(lambda: daemon.metric("calls_total", service="gw") == 1, "it is collected")
    checked = daemon.cli("check", "--imports")
    assert checked.returncode == 0, checked.stderr
    assert list(temporary.glob("servd-*")) == []


def test_code_that_only_workers_can_import_is_said_once(servd: Servd) -> None:
    copied("graph", servd.folder)
    code = (servd.folder / "service.py").read_text()
    fails = "import sys\nif 'describe' in str(sys.orig_argv):\n    raise RuntimeError('not here')\n"
    (servd.folder / "service.py").write_text(code + fails)
    soon = 'restart = { backoff = "10ms", backoff_max = "20ms", give_up_after = 0 }\n'
    daemon = graph(servd, GATEWAY + soon)
    wait_until(lambda: len(daemon.lines("reload finished")) >= 3, "it is tried again and again")
    (warning,) = daemon.lines("config warning")
    assert "not here" in warning["warning"]


SLOW = """
    import os, time
    import bentoml

    if os.path.exists("slow"):
        open("asked", "w").write(str(os.getpid()))
        time.sleep(100)

    @bentoml.service
    class Gateway:
        @bentoml.api
        def rate(self, text: str) -> str:
            return text
"""


def asked(servd: Servd) -> psutil.Process:
    file = servd.folder / "asked"
    wait_until(lambda: file.exists() and file.read_text(), "the code is being asked")
    return psutil.Process(int(file.read_text()))


def test_a_daemon_that_ends_while_it_asks_leaves_nobody_behind(servd: Servd) -> None:
    (servd.folder / "slow").touch()
    temporary = servd.folder / "tmp"
    temporary.mkdir()
    config = f'{GATEWAY}\nenv.TMPDIR = "{temporary}"\n'
    daemon = servd(config, service_py=SLOW, environ=environ(servd.folder))
    process = asked(servd)
    daemon.send(signal.SIGTERM)
    assert daemon.wait() == 0
    wait_until(lambda: not alive([process]), "who was asked has ended")
    assert list(temporary.glob("servd-*")) == []


def test_a_stop_does_not_wait_for_code_that_is_being_asked(servd: Servd) -> None:
    daemon = servd(GATEWAY, service_py=SLOW, environ=environ(servd.folder)).ready()
    (servd.folder / "slow").touch()
    with open(servd.folder / "service.py", "a") as file:
        file.write("# another\n")
    daemon.send(signal.SIGHUP)
    process = asked(servd)
    assert daemon.stop() == 0
    assert not alive([process])
    assert daemon.leftovers() == []


def test_an_edit_while_the_code_is_asked_is_not_missed(servd: Servd) -> None:
    """What was written after the code was read must not pass for what it said."""
    asking = """
        import os, time
        import bentoml

        open("asked", "w").write(str(os.getpid()))
        while not os.path.exists("go"):
            time.sleep(0.01)

        @bentoml.service
        class Inner:
            @bentoml.api
            def hello(self) -> str:
                return "hello"

        @bentoml.service
        class Gateway:
            NEEDS
    """
    code = textwrap.dedent(asking)
    daemon = servd(GATEWAY, service_py=code.replace("NEEDS", "pass"), environ=environ(servd.folder))
    asked(servd)
    later = code.replace("NEEDS", "inner = bentoml.depends(Inner)")
    (servd.folder / "service.py").write_text(later)
    (servd.folder / "go").touch()
    daemon.ready()
    assert {s["name"] for s in daemon.status()["services"]} == {"gw", "gw.inner"}


def test_secrets_of_components_are_never_shown(servd: Servd) -> None:
    config = (
        GATEWAY.replace("listen", 'env = { MINE = "${OF_ALL}" }\n    listen')
        + '[services.gw.components.Tokenizer]\nenv = { ITS = "${OF_ONE}", SHADE = "plain" }\n'
    )
    copied("graph", servd.folder)
    secrets = {"OF_ALL": "hush-all", "OF_ONE": "hush-one"}
    daemon = servd(config, environ={**environ(servd.folder), **secrets}).ready()
    daemon.edit(config.replace("${OF_ONE}", "${OF_ONE}!").replace("${OF_ALL}", "${OF_ALL}!"))
    shown = [daemon.cli("plan", **secrets).stdout]
    assert daemon.cli("reload", **secrets).returncode == 0
    shown += [daemon.ask("GET", route).text for route in ("/v1/config", "/v1/status", "/v1/plan")]
    shown += [daemon.cli("show", **secrets).stdout, daemon.output]
    assert "gw.tokenizer" in shown[0]
    assert "plain" in shown[1]
    assert not any("hush" in text for text in shown)


def test_a_service_depends_on_a_component(servd: Servd) -> None:
    web = """
        import json, os

        async def app(scope, receive, send):
            assert scope["type"] == "http"
            known = json.loads(os.environ["SERVD_DEPENDENCIES"])
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": " ".join(known).encode()})
    """
    config = (
        GATEWAY
        + """
        [services.web]
        app = "web:app"
        listen = "127.0.0.1:0"
        depends_on = ["gw.tokenizer"]
    """
    )
    daemon = graph(servd, config, web_py=web).ready()
    assert daemon.get("web").text == "gw.tokenizer"
    daemon.edit(config.replace('["gw.tokenizer"]', '["gw.tokeniser"]'))
    done = daemon.cli("reload")
    assert 'unknown service "gw.tokeniser" (did you mean "gw.tokenizer"?)' in done.stderr


def test_limits_of_the_file_are_servds_and_those_of_the_code_bentomls(servd: Servd) -> None:
    code = """
        import asyncio
        import bentoml

        class Slow:
            @bentoml.api
            async def wait(self, seconds: float) -> str:
                await asyncio.sleep(seconds)
                return "done"

        Coded = bentoml.service(name="Coded", traffic={"timeout": 0.3})(Slow)
        Filed = bentoml.service(name="Filed", traffic={"timeout": 0.3})(Slow)
    """
    config = f"""
        [defaults]
        python = "{PYTHON}"
        timeouts = {{ request = "200ms" }}
        [services.coded]
        bento = "service:Coded"
        listen = "127.0.0.1:0"
        [services.filed]
        bento = "service:Filed"
        listen = "127.0.0.1:0"
        timeouts = {{ request = "5s" }}
    """
    daemon = servd(config, service_py=code, environ=environ(servd.folder)).ready()
    with httpx.Client(timeout=DEADLINE) as client:
        coded = client.post(daemon.url("coded") + "/wait", json={"seconds": 1000})
        filed = client.post(daemon.url("filed") + "/wait", json={"seconds": 1000})
        fast = client.post(daemon.url("filed") + "/wait", json={"seconds": 0.5})
    assert (coded.status_code, filed.status_code, fast.status_code) == (504, 504, 200)
    assert coded.json() == {"error": "Not able to process the request in 0.3 seconds"}
    assert filed.headers["content-type"] == "application/problem+json"


def test_deployment_hooks_run_once_before_the_workers_of_a_generation(servd: Servd) -> None:
    code = """
        import os
        import bentoml

        @bentoml.service(workers=3)
        class Deployed:
            @bentoml.on_deployment
            @staticmethod
            def prepare():
                with open("deployed", "a") as file:
                    file.write("once\\n")

            @bentoml.api
            def where(self) -> str:
                return open("deployed").read()
    """
    config = GATEWAY.replace("Gateway", "Deployed")
    daemon = servd(config, service_py=code, environ=environ(servd.folder)).ready()
    assert (servd.folder / "deployed").read_text() == "once\n"
    os.kill(daemon.pids("gw")[0], signal.SIGKILL)
    wait_until(lambda: daemon.service("gw")["workers"]["ready"] == 3, "three again")
    assert (servd.folder / "deployed").read_text() == "once\n"
    daemon.act("gw", "restart")
    assert (servd.folder / "deployed").read_text() == "once\nonce\n"


def test_results_of_tasks_outlive_their_worker(servd: Servd) -> None:
    copied("streaming", servd.folder)
    config = GATEWAY.replace("Gateway", "Writer")
    daemon = servd(config, environ=environ(servd.folder)).ready()
    url = daemon.url("gw")
    task = httpx.post(f"{url}/reverse/submit", json={"text": "bread"}).json()["task_id"]

    def result() -> httpx.Response:
        return httpx.get(f"{url}/reverse/get", params={"task_id": task})

    wait_until(lambda: result().status_code == 200, "the task is done")
    daemon.act("gw", "restart")
    assert result().text == "daerb"


def test_without_bentoml_one_line_says_what_to_install(servd: Servd) -> None:
    copied("graph", servd.folder)
    servd.write(servd_toml='[services.gw]\nbento = "service:Gateway"\n')
    for arguments in (("--config", "servd.toml"), ("check", "--imports"), ("plan",)):
        done = command(*arguments, folder=servd.folder)
        assert done.returncode == 78
        first = done.stderr.splitlines()
        assert (
            f"servd.toml:2:9: services.gw.bento: {sys.executable} has no bentoml: run pip install"
            " 'bentoml>=1.4.20,<1.5', or set python to an environment that has it" in first
        )
        assert "Traceback" not in done.stderr


def test_many_calls_at_once_come_through_while_the_component_is_replaced(
    servd: Servd,
) -> None:
    """BentoML's client closes its session under requests in flight after a hundred of them."""
    daemon = graph(servd).ready()
    url = daemon.url("gw") + "/rate"

    def ask(_: int) -> int:
        return httpx.post(url, json={"text": "a b"}, timeout=DEADLINE).status_code

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = [pool.submit(ask, n) for n in range(600)]
        assert daemon.act("gw.scorer", "restart")["outcome"] == "applied"
        assert daemon.act("gw.tokenizer", "restart")["outcome"] == "applied"
        assert {answer.result() for answer in answers} == {200}


def test_a_service_with_a_command_of_its_own_is_stopped_before_it_starts_anew(
    servd: Servd,
) -> None:
    """Its program binds a port: two of them cannot stand side by side. Nobody is turned away."""
    port = free_port()
    code = f"""
        import os, sys
        import bentoml

        @bentoml.service(http={{"proxy_port": {port}}}, workers=1,
                         cmd=[sys.executable, "-m", "uvicorn", "program:app", "--port={port}"])
        class Gateway:
            pass
    """
    daemon = servd(
        GATEWAY, service_py=code, program_py=PID_IN_A_CHUNK, environ=environ(servd.folder)
    ).ready()
    url = daemon.url("gw") + "/any"
    first = httpx.get(url, timeout=DEADLINE).text
    found: list[int] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            found.append(httpx.get(url, timeout=DEADLINE).status_code)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        report = daemon.act("gw", "restart")
    finally:
        over.set()
        asking.join()
    assert set(found) == {200}
    assert [c["kind"] for c in report["changes"]] == ["interrupt"]
    assert report["outcome"] == "applied"
    assert httpx.get(url, timeout=DEADLINE).text != first
    assert daemon.stop() == 0
    assert daemon.leftovers() == []
