"""Whatever `bentoml serve` can be pointed at, servd can; and its commands with the word changed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import trustme

from support.harness import (
    DEADLINE,
    Servd,
    ServdProcess,
    command,
    free_port,
    python_for_others,
    servd_for_others,
    wait_until,
)
from support.with_bentoml import PYTHON, copied, environ, packages

WRITER = "service:Writer"
SAMPLE = Path(__file__).parents[2] / "sample-configs" / "bentoml"


def counts(daemon: ServdProcess, service: str) -> str:
    url = daemon.service(service)["listen"][0]
    return httpx.post(f"{url}/count", json={"upto": 2}, timeout=DEADLINE).text


def built(folder: Path) -> Path:
    """A Bento of the streaming service, in a store of BentoML; the folder of the Bento."""
    copied("streaming", folder)
    (folder / "bentofile.yaml").write_text(f"service: {WRITER}\n")
    done = subprocess.run(
        [PYTHON, "-m", "bentoml", "build", "--version", "one", "--output", "tag", "."],
        cwd=folder,
        env={**os.environ, **environ(folder)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return folder / "bentos" / "writer" / "one"


def test_a_built_bento_by_its_tag_its_latest_its_path_and_its_sources_folder(servd: Servd) -> None:
    sources = servd.folder / "sources"
    sources.mkdir()
    bento = built(sources)
    for path in sources.glob("*.py"):
        path.rename(path.with_suffix(".gone"))
    folder = servd.folder / "plain"
    folder.mkdir()
    copied("streaming", folder)
    named = servd.folder / "named"
    named.mkdir()
    copied("streaming", named)
    (named / "service.py").rename(named / "elsewhere.py")
    (named / "bentofile.yaml").write_text("service: elsewhere:Writer\n")
    config = f"""
        [defaults]
        python = "{PYTHON}"
        env = {{ BENTOML_HOME = "{sources}" }}
        [services.tag]
        bento = "writer:one"
        listen = "127.0.0.1:0"
        [services.latest]
        bento = "writer:latest"
        listen = "127.0.0.1:0"
        [services.path]
        bento = "{bento}"
        listen = "127.0.0.1:0"
        [services.folder]
        bento = "plain"
        listen = "127.0.0.1:0"
        [services.bentofile]
        bento = "named"
        listen = "127.0.0.1:0"
    """
    daemon = servd(config).ready()
    for service in ("tag", "latest", "path", "folder", "bentofile"):
        assert counts(daemon, service) == "0 1 ", service
    schema = httpx.get(f"{daemon.url('tag')}/schema.json").json()
    assert schema["name"] == "Writer"


def test_the_sample_of_bentoml_runs(servd: Servd) -> None:
    folder = servd.folder / "bentoml"
    shutil.copytree(SAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__"))
    port = str(free_port())
    daemon = servd.run(
        "--config", "servd.toml", interpreter=PYTHON, folder=folder,
        environ={"PORT": port, **environ(servd.folder)},
    ).ready()  # fmt: skip
    body = {"text": "the cat and the dog"}
    counted = httpx.post(f"http://127.0.0.1:{port}/count", json=body, timeout=DEADLINE)
    assert counted.json() == {"the": 2, "cat": 1, "and": 1, "dog": 1}
    assert len(daemon.pids("my.tokenizer")) == 3
    assert daemon.stop() == 0


def test_serve_with_port_and_api_workers(servd: Servd) -> None:
    """The first command of BentoML's page."""
    copied("streaming", servd.folder)
    port = str(free_port())
    daemon = servd.run(
        "serve", WRITER, "--port", port, "--api-workers", "2",
        interpreter=PYTHON, environ=environ(servd.folder),
    ).ready()  # fmt: skip
    assert daemon.service("writer")["listen"] == [f"http://0.0.0.0:{port}"]
    assert len(daemon.pids("writer")) == 2
    assert httpx.post(f"http://127.0.0.1:{port}/count", json={"upto": 2}).text == "0 1 "
    assert daemon.stop() == 0


ARGUMENTS = """
    import bentoml
    from pydantic import BaseModel

    class Arguments(BaseModel):
        name: str
        count: int = 1
        secret_token: str = ""
        many: list[str] = []

    ARGUMENTS = bentoml.use_arguments(Arguments)

    @bentoml.service
    class Helper:
        @bentoml.api
        def name(self) -> str:
            return ARGUMENTS.name

    @bentoml.service(workers=ARGUMENTS.count)
    class Gateway:
        helper = bentoml.depends(Helper)

        @bentoml.api
        def all(self) -> str:
            return f"{ARGUMENTS.name} {ARGUMENTS.count} {ARGUMENTS.many} {self.helper.name()}"
"""


def test_arguments_of_the_file_reach_the_code_and_a_change_is_a_roll(servd: Servd) -> None:
    config = f"""
        [services.gw]
        bento = "service:Gateway"
        listen = "127.0.0.1:0"
        python = "{PYTHON}"
        bento_args = {{ name = "one", count = 2, many = ["a", "b"], secret_token = "hunter2" }}
    """
    daemon = servd(config, service_py=ARGUMENTS, environ=environ(servd.folder)).ready()
    url = daemon.url("gw")
    assert httpx.post(f"{url}/all", json={}, timeout=DEADLINE).text == "one 2 ['a', 'b'] one"
    assert len(daemon.pids("gw")) == 2
    shown = daemon.cli("show").stdout
    assert 'name = "one"' in shown
    assert "hunter2" not in shown
    daemon.edit(config.replace('"one"', '"two"').replace("hunter2", "hunter3"))
    plan = daemon.cli("plan").stdout
    assert "bento_args" in plan
    assert "hunter" not in plan
    assert daemon.reload()["outcome"] == "applied"
    assert httpx.post(f"{url}/all", json={}, timeout=DEADLINE).text == "two 2 ['a', 'b'] two"
    argv = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in daemon.pids("gw")]
    assert not any(b"hunter" in each for each in argv)
    refused = daemon.reload(config.replace("count = 2", 'count = "many"'))
    assert refused["outcome"] in ("invalid", "rolled_back")
    assert httpx.post(f"{url}/all", json={}, timeout=DEADLINE).text == "two 2 ['a', 'b'] two"


def test_arguments_of_the_command_line_outrank_those_of_its_file(servd: Servd) -> None:
    servd.write(service_py=ARGUMENTS, args_yaml="name: file\nmany: [x]\n")
    port = free_port()
    argv = ["serve", "service:Gateway", f"--port={port}", "--arg", "name=line"]
    argv += ["--arg-file", "args.yaml"]
    daemon = servd.run(*argv, interpreter=PYTHON, environ=environ(servd.folder)).ready()
    answer = httpx.post(f"http://127.0.0.1:{port}/all", json={}, timeout=DEADLINE)
    assert answer.text == "line 1 ['x'] line"
    assert daemon.stop() == 0


def test_arguments_of_a_call_are_any_values_and_on_no_command_line(servd: Servd) -> None:
    servd.write(service_py=ARGUMENTS)
    arguments = {"name": "call", "many": ["x"], "secret_token": "hunter2"}
    code = f"""
import httpx, psutil, servd
with servd.serve(
    bento_identifier="service:Gateway", port={free_port()}, args={arguments}, threaded=True
) as server:
    lines = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
    assert not any("hunter" in str(each.cmdline()) for each in lines)
    print(httpx.post(server.url() + "/all", json={{}}, timeout=60).text)
"""
    done = subprocess.run(
        [PYTHON, "-c", code],
        cwd=servd.folder,
        capture_output=True,
        text=True,
        env={**os.environ, **environ(servd.folder)},
        timeout=DEADLINE,
    )
    assert done.stdout == "call 1 ['x'] call\n", done.stderr


@pytest.mark.parametrize("target", ["service.Plain", "Tag('plain', 'one')", "get('plain:one')"])
def test_the_python_call_takes_what_bentoml_takes_and_gives_what_it_gives(
    servd: Servd, target: str
) -> None:
    code = """
        import bentoml

        @bentoml.service
        class Plain:
            @bentoml.api
            def hello(self) -> str:
                return "hello"
    """
    servd.write(service_py=code, bentofile_yaml="service: service:Plain\n")
    there = {**os.environ, **environ(servd.folder)}
    build = [PYTHON, "-m", "bentoml", "build", "--version", "one"]
    done = subprocess.run(build, cwd=servd.folder, env=there, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    del there["BENTOML_HOME"]
    code = f"""
import os
os.environ["BENTOML_HOME"] = {str(servd.folder)!r}
import bentoml, servd, service
from bentoml import Tag, get
target = {target}
del os.environ["BENTOML_HOME"]
with servd.serve(
    target, port={free_port()}, blocking=False, bentoml_home={str(servd.folder)!r}
) as server:
    assert server.running
    assert server.url.startswith("http://localhost:")
    with server.get_client() as client:
        print(client.hello())
assert not server.running
"""
    done = subprocess.run(
        [PYTHON, "-c", code], cwd=servd.folder, env=there, capture_output=True, text=True
    )
    assert done.stdout == "hello\n", done.stderr


def test_arguments_that_are_none_are_refused(servd: Servd) -> None:
    servd.write(bad_yaml="a: [", list_yaml="- a\n")
    for given, message in (
        ("--arg=name", "--arg name: expected KEY=VALUE"),
        ("--arg==x", "expected KEY=VALUE"),
        ("--arg-file=no.yaml", "cannot read no.yaml: No such file or directory"),
        ("--arg-file=bad.yaml", "bad.yaml:"),
        ("--arg-file=list.yaml", "list.yaml:1:1: expected a table"),
    ):
        done = command("serve", "service:X", "--bento", given, folder=servd.folder)
        assert (done.returncode, message in done.stderr) == (2, True), done.stderr


@pytest.mark.parametrize("given", ["", "--host", "--port"])
def test_serve_listens_where_the_code_says_unless_an_option_says_otherwise(
    servd: Servd, given: str
) -> None:
    port, another = free_port(), free_port()
    code = f"""
        import bentoml

        @bentoml.service(http={{"host": "127.0.0.1", "port": {port}}})
        class Here:
            @bentoml.api
            def where(self) -> str:
                return "here"
    """
    (servd.folder / "service.py").write_text(textwrap.dedent(code))
    options, host = {
        "": ([], "127.0.0.1"),
        "--host": (["--host", "127.0.0.2"], "127.0.0.2"),
        "--port": (["--port", str(another)], "127.0.0.1"),
    }[given]
    port = another if given == "--port" else port
    argv = ["serve", "service:Here", *options]
    shown = subprocess.run(
        [PYTHON, "-m", "servd", *argv, "--print-config"],
        cwd=servd.folder,
        capture_output=True,
        text=True,
    )
    assert f'listen = "{host}:{port}"' in shown.stdout, shown.stderr
    daemon = servd.run(*argv, interpreter=PYTHON, environ=environ(servd.folder)).ready()
    assert daemon.service("here")["listen"] == [f"http://{host}:{port}"]
    assert httpx.post(f"http://{host}:{port}/where", json={}, timeout=DEADLINE).text == "here"


def test_serve_with_reload_and_development(servd: Servd) -> None:
    """The second one: an edit is served; a broken one shows its traceback and changes nothing."""
    copied("streaming", servd.folder)
    daemon = servd.run(
        "serve", WRITER, "--reload", "--development", "--host=127.0.0.1", f"--port={free_port()}",
        interpreter=PYTHON, environ=environ(servd.folder),
    )  # fmt: skip
    wait_until(lambda: "servd ready" in daemon.output, "it is ready")
    assert counts(daemon, "writer") == "0 1 "
    file = servd.folder / "service.py"
    code = file.read_text()
    file.write_text(code.replace('f"{number} "', 'f"<{number}>"'))
    wait_until(lambda: counts(daemon, "writer") == "<0><1>", "the edit is served")
    file.write_text(code.replace("for number in range(upto):", "for number in range(upto:"))
    wait_until(lambda: "SyntaxError" in daemon.output, "the traceback is shown")
    wait_until(lambda: "reload failed" in daemon.output, "it was undone")
    assert counts(daemon, "writer") == "<0><1>"
    file.write_text(code)
    wait_until(lambda: counts(daemon, "writer") == "0 1 ", "the next edit is served")
    assert daemon.stop() == 0


def test_serve_with_tls(servd: Servd) -> None:
    """The third one."""
    copied("streaming", servd.folder)
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.private_key_pem.write_to_path(servd.folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(servd.folder / "cert.pem")
    authority.cert_pem.write_to_path(servd.folder / "ca.pem")
    port = free_port()
    daemon = servd.run(
        "serve", WRITER, "--port", str(port), "--api-workers", "2",
        "--ssl-certfile", "cert.pem", "--ssl-keyfile", "key.pem",
        interpreter=PYTHON, environ=environ(servd.folder),
    ).ready()  # fmt: skip
    import ssl

    context = ssl.create_default_context(cafile=str(servd.folder / "ca.pem"))
    answer = httpx.post(f"https://localhost:{port}/count", json={"upto": 2}, verify=context)
    assert answer.text == "0 1 "
    assert daemon.service("writer")["listen"] == [f"https://0.0.0.0:{port}"]


def test_tls_and_port_as_the_code_declares_them(servd: Servd) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost")
    certificate.private_key_pem.write_to_path(servd.folder / "key.pem")
    certificate.cert_chain_pems[0].write_to_path(servd.folder / "cert.pem")
    port = free_port()
    code = f"""
        import bentoml

        @bentoml.service(
            workers="cpu_count", backlog=77,
            http={{"host": "127.0.0.1", "port": {port}}},
            ssl={{"enabled": True, "certfile": "cert.pem", "keyfile": "key.pem"}},
        )
        class Coded:
            @bentoml.api
            def hello(self) -> str:
                return "hello"
    """
    config = f'[services.coded]\nbento = "service:Coded"\npython = "{PYTHON}"\n'
    daemon = servd(config, service_py=code, environ=environ(servd.folder)).ready()
    assert daemon.service("coded")["listen"] == [f"https://127.0.0.1:{port}"]
    assert len(daemon.pids("coded")) == len(os.sched_getaffinity(0))
    answer = httpx.post(f"https://127.0.0.1:{port}/hello", json={}, verify=False)
    assert answer.text == "hello"


def test_the_python_call_with_the_arguments_of_serve_http_production(tmp_path: Path) -> None:
    copied("streaming", tmp_path)
    port = free_port()
    code = f"""
import json, servd, httpx
server = servd.serve(
    bento_identifier="{WRITER}", working_dir="{tmp_path}", port={port}, host="127.0.0.1",
    api_workers=2, threaded=True,
)
with server:
    text = httpx.post(f"{{server.url()}}/count", json={{"upto": 2}}, timeout=90).text
    workers = server.status()["services"][0]["workers"]["ready"]
print(json.dumps([text, workers]))
"""
    done = subprocess.run(
        [PYTHON, "-c", code],
        cwd="/",
        env={**os.environ, **environ(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ["0 1 ", 2]


def test_the_python_call_with_a_service_of_bentoml_1_1(tmp_path: Path) -> None:
    copied("legacy", tmp_path)
    code = f"""
import os, sys, servd, httpx
sys.path.insert(0, os.getcwd())
from service import svc
os.chdir("/")
with servd.serve(svc, port={free_port()}, host="127.0.0.1", threaded=True) as server:
    print(httpx.post(f"{{server.url}}/repeat", content="hi", timeout=90).text.split()[0])
print(server.running)
"""
    done = subprocess.run(
        [PYTHON, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **environ(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["hi", "False"]


def test_the_python_call_refuses_a_service_that_no_worker_can_import(tmp_path: Path) -> None:
    code = "import bentoml, servd\nsvc = bentoml.legacy.Service('typed')\nservd.serve(svc)"
    done = subprocess.run(
        [PYTHON, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **environ(tmp_path)},
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )
    assert done.returncode == 1
    assert "UsageError: typed is no variable of a module" in done.stderr


@pytest.fixture
def shared() -> Iterator[Servd]:
    yield from servd_for_others("sdb")


@pytest.fixture
def python() -> Iterator[str]:
    """BentoML's environment, for an interpreter that any user can run."""
    with python_for_others(packages(), "bentoml") as found:
        yield found


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can run services as another user")
def test_the_code_of_a_service_with_a_user_is_never_run_as_root(shared: Servd, python: str) -> None:
    """Neither by its workers nor when it is asked for what it declares."""
    with tempfile.TemporaryDirectory(prefix="sdb", dir="/tmp") as home:
        Path(home).chmod(0o777)
        notes = Path(home) / "uids"
        code = f"""
            import os
            import bentoml

            with open("{notes}", "a") as file:
                file.write(f"{{os.getuid()}}\\n")

            @bentoml.service
            class Inner:
                @bentoml.api
                def who(self) -> int:
                    return os.getuid()

            @bentoml.service
            class Outer:
                inner = bentoml.depends(Inner)

                @bentoml.api
                def who(self) -> int:
                    return self.inner.who()
        """
        config = f"""
            [services.outer]
            bento = "service:Outer"
            python = "{python}"
            listen = "127.0.0.1:0"
            user = "nobody"
        """
        daemon = shared(config, service_py=code, environ=environ(Path(home))).ready()
        nobody = "65534"
        assert httpx.post(f"{daemon.url('outer')}/who", json={}).text == nobody
        assert set(notes.read_text().split()) == {nobody}


def test_a_name_that_is_not_there_is_said_at_once(servd: Servd) -> None:
    copied("streaming", servd.folder)
    for target in ("service:Writter", "service.py:Writter"):
        daemon = servd.run("serve", target, interpreter=PYTHON, environ=environ(servd.folder))
        assert daemon.wait() == 78
        assert f'cannot load {target}: Attribute "Writter" not found' in daemon.output


def test_check_says_whose_code_it_has_not_asked(servd: Servd) -> None:
    copied("streaming", servd.folder)
    servd.write(servd_toml=f'[services.it]\nbento = "{WRITER}"\n')
    done = command("check", folder=servd.folder)
    assert done.returncode == 0
    assert "The code of it was not inspected: use --imports" in done.stderr


def test_a_service_that_is_taken_for_an_app_says_so(servd: Servd) -> None:
    copied("streaming", servd.folder)
    config = f'[services.it]\napp = "service:Writer"\npython = "{PYTHON}"\n'
    daemon = servd(config, environ=environ(servd.folder))
    died = daemon.wait_for("worker exited", service="it")
    assert 'service:Writer is a BentoML service: write bento = "service:Writer"' in died["reason"]


def test_the_latest_bento_is_the_one_that_was_the_latest_when_it_was_planned(servd: Servd) -> None:
    """A worker that is started again is no newer than the others; a reload brings the new one."""
    import signal

    built(servd.folder)
    config = f"""
        [services.it]
        bento = "writer:latest"
        listen = "127.0.0.1:0"
        directory = "/"
        python = "{PYTHON}"
        env = {{ BENTOML_HOME = "{servd.folder}" }}
    """
    daemon = servd(config).ready()
    code = (servd.folder / "service.py").read_text().replace("{number} ", "{number}!")
    (servd.folder / "service.py").write_text(code)
    done = subprocess.run(
        [PYTHON, "-m", "bentoml", "build", "--version", "two", "--output", "tag", "."],
        cwd=servd.folder,
        env={**os.environ, **environ(servd.folder)},
        capture_output=True,
    )
    assert done.returncode == 0
    (pid,) = daemon.pids("it")
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: daemon.pids("it") not in ([], [pid]), "another worker")
    wait_until(lambda: daemon.service("it")["state"] == "ready", "it is ready")
    assert counts(daemon, "it") == "0 1 "
    report = daemon.reload()
    assert [(c["service"], c["kind"]) for c in report["changes"]] == [("it", "roll")]
    assert counts(daemon, "it") == "0!1!"
