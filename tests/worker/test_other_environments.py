"""Services whose `python` is of another virtual environment: one that has uvicorn, and no servd."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from support.harness import Servd, command

NEEDED = ("uvicorn", "click", "h11")
APP = """
    import json, os, sys
    import shade

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        known = {}
        for name in ("servd", "httptools", "pydantic", "circus"):
            try:
                __import__(name)
                known[name] = True
            except ImportError:
                known[name] = False
        body = json.dumps({"shade": shade.COLOUR, "prefix": sys.prefix, "known": known,
                           "service": os.environ["SERVD_SERVICE"]}).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""
CALLS = """
    import servd
    import shade

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        try:
            answer = await servd.depends("inner").get("/")
            body = f"{shade.COLOUR} asks {answer.json()['shade']}".encode()
        except servd.DependencyError as error:
            body = str(error).encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


def environment(folder: Path, colour: str, *packages: str) -> str:
    """A virtual environment with these packages, and a library of its own in one version; returns
    its interpreter.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    name = f"python3.{sys.version_info.minor}"
    here = folder / "lib" / name / "site-packages"
    (here / "shade.py").write_text(f"COLOUR = {colour!r}\n")
    for package in packages:
        found = importlib.util.find_spec(package)
        assert found is not None
        assert found.origin is not None
        origin = Path(found.origin)
        if origin.name == "__init__.py":
            shutil.copytree(origin.parent, here / package)
        else:
            shutil.copy(origin, here)
        for info in Path(sysconfig.get_path("purelib")).glob(f"{package}-*.dist-info"):
            shutil.copytree(info, here / info.name)
    return str(folder / "bin" / "python")


def test_two_services_with_two_versions_of_a_library_one_calling_the_other(servd: Servd) -> None:
    client = ("httpx", "httpcore", "anyio", "certifi", "idna", "sniffio", "typing_extensions")
    there = [name for name in client if importlib.util.find_spec(name)]
    environment(servd.folder / "old", "red", *NEEDED)
    environment(servd.folder / "new", "blue", *NEEDED, *there)
    config = """
        [services.outer]
        app = "calls:app"
        listen = "127.0.0.1:0"
        python = "new/bin/python"
        depends_on = ["inner"]
        [services.inner]
        app = "main:app"
        listen = "127.0.0.1:0"
        python = "old/bin/python"
        workers = 2
        health = { path = "/" }
        limits = { concurrency = 10 }
        timeouts = { request = "5s" }
    """
    daemon = servd(config, main_py=APP, calls_py=CALLS).ready()
    found = daemon.get("inner").json()
    assert found == {
        "shade": "red",
        "prefix": str(servd.folder / "old"),
        "known": {"servd": True, "httptools": False, "pydantic": False, "circus": False},
        "service": "inner",
    }
    assert daemon.get("outer").text == "blue asks red"
    assert daemon.metric("servd_requests_total", service="inner", method="GET", code="200") == 2
    before = daemon.pids("inner")
    assert daemon.reload(config + 'env = { V = "2" }\n')["outcome"] == "applied"
    assert not set(before) & set(daemon.pids("inner"))
    (change,) = daemon.reload(config)["changes"]
    assert (change["service"], change["kind"]) == ("inner", "roll")
    assert daemon.stop() == 0


def test_another_interpreter_is_a_roll_and_the_workers_say_which_they_are(servd: Servd) -> None:
    environment(servd.folder / "old", "red", *NEEDED)
    environment(servd.folder / "new", "blue", *NEEDED)
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\npython = "{}/bin/python"\n'
    daemon = servd(config.format("old"), main_py=APP).ready()
    assert daemon.get("web").json()["shade"] == "red"
    answer = daemon.reload(config.format("new"))
    assert [(c["kind"], c["keys"][0]["key"]) for c in answer["changes"]] == [("roll", "python")]
    assert daemon.get("web").json()["shade"] == "blue"


@pytest.mark.parametrize("kind", ["uvicorn", "httpx", "interpreter"])
def test_what_is_missing_there_is_named_and_what_ran_goes_on(servd: Servd, kind: str) -> None:
    environment(servd.folder / "old", "red", *NEEDED)
    environment(servd.folder / "bare", "grey")
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\npython = "old/bin/python"\n'
    daemon = servd(config, main_py=APP, calls_py=CALLS).ready()
    if kind == "uvicorn":
        answer = daemon.reload(config.replace("old", "bare"))
        python = servd.folder / "bare" / "bin" / "python"
        said = f"{python} has no uvicorn: run {python} -m pip install uvicorn"
        assert answer["outcome"] == "rolled_back"
        assert said in answer["last_lines"]
    elif kind == "interpreter":
        answer = daemon.reload(config.replace("old", "nosuch"))
        assert answer["outcome"] == "invalid"
        assert "interpreter not found: " in answer["details"][0]
    else:
        both = config.replace("main:app", "calls:app") + 'depends_on = ["inner"]\n'
        both += '[services.inner]\napp = "main:app"\npython = "old/bin/python"\n'
        assert daemon.reload(both)["outcome"] == "applied"
        assert "servd.depends needs httpx" in daemon.get("web").text, daemon.output[-3000:]
        return
    assert daemon.get("web").json()["shade"] == "red"


def test_apps_of_other_environments_are_imported_there_to_be_checked(servd: Servd) -> None:
    environment(servd.folder / "old", "red", *NEEDED)
    config = '[services.web]\napp = "main:app"\nlisten = "127.0.0.1:0"\npython = "old/bin/python"\n'
    servd.write(servd_toml=config, main_py=APP)
    assert command("check", "--imports", folder=servd.folder).returncode == 0
    servd.write(servd_toml=config.replace("python =", "# python ="))
    done = command("check", "--imports", folder=servd.folder)
    assert done.returncode != 0
    assert "No module named 'shade'" in done.stderr


def test_a_command_may_have_an_interpreter_too(servd: Servd) -> None:
    python = environment(servd.folder / "old", "red")
    code = "import shade, time; print('colour', shade.COLOUR, flush=True); time.sleep(1000)"
    lines = f'command = {json.dumps([python, "-c", code])}\npython = "old/bin/python"\n'
    daemon = servd(f"[services.job]\n{lines}").ready()
    daemon.wait_for_line("colour red", service="job")
