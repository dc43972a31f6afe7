"""Development: BentoML services restart for what `bentoml serve --reload` restarts them for, and
follow the latest Bento of the store.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import httpx
import pytest

from servd.cli.bento_target import is_bento
from servd.daemon.watch.bento_files import BentoFiles

from support.harness import DEADLINE, Servd, ServdProcess, command, free_port, wait_until
from support.with_bentoml import PYTHON, environ

SERVICE = """
    import bentoml
    from pathlib import Path
    {imports}

    @bentoml.service
    class Inner:
        @bentoml.api
        def word(self) -> str:
            return {word}

    @bentoml.service
    class Outer:
        inner = bentoml.depends(Inner)

        @bentoml.api
        def word(self) -> str:
            return self.inner.word()
"""
FROM_FILE = SERVICE.format(imports='WORD = Path("word.yaml").read_text()', word="WORD")
FROM_MODULE = SERVICE.format(imports="from word import WORD", word="WORD")
APP = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"app"})
"""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Where BentoML keeps what it has, outside the folder of the code."""
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def config(bento: str, more: str = "") -> str:
    return f"""
        [services.it]
        bento = "{bento}"
        listen = "127.0.0.1:{free_port()}"
        python = "{PYTHON}"
        {more}
    """


def dev(servd: Servd, store: Path, *argv: str) -> ServdProcess:
    daemon = servd.run(*(argv or ("dev",)), interpreter=PYTHON, environ=environ(store))
    wait_until(lambda: "servd ready" in daemon.output, "it is ready")
    return daemon


def word(daemon: ServdProcess, name: str = "it") -> str:
    url = daemon.service(name)["listen"][0]
    try:
        return httpx.post(f"{url}/word", json={}, timeout=DEADLINE).text
    except httpx.HTTPError:  # a connection that the old worker has closed meanwhile
        return ""


def reasons(daemon: ServdProcess) -> set[str]:
    """What has changed, of each reload."""
    found = re.findall(r"reload started.*reason='?(.*?) changed", daemon.output)
    return {name for reason in found for name in reason.split(", ")}


def serves(daemon: ServdProcess, expected: str) -> None:
    wait_until(lambda: word(daemon) == expected, f"{expected} is served")


RULES = {
    "bentofile.yaml": (
        'service: "service:Outer"\ninclude: ["*.py", "*.yaml", "conf/", "data/**"]\n'
        'exclude: ["tests/", "*_old.py", "!kept_old.py"]\n'
    ),
    ".bentoignore": "secret.yaml\nscratch/\n",
    "sub/.bentoignore": "/only_here.py\n*.yaml\n!good.yaml\n",
}
PATHS = [
    "main.py", "a.yaml", "a.txt", "conf/x.txt", "conf/deep/x.bin", "data/x.csv", "tests/t.py",
    "sub/tests/t.py", "x_old.py", "kept_old.py", "secret.yaml", "sub/secret.yaml", "sub/a.yaml",
    "sub/good.yaml", "sub/only_here.py", "sub/in/only_here.py", "only_here.py", "scratch/x.py",
    ".git/x.py", "venv/x.py", "sub/.venv/x.py", "sub/__pycache__/x.py", ".hidden.py", ".hid/x.py",
    "bentofile.yaml",
]  # fmt: skip
ASK = """
import json, os, sys
from bentoml._internal.bento.build_config import BentoBuildConfig, BentoPathSpec
root, *paths = sys.argv[1:]
config = BentoBuildConfig.from_bento_dir(root)
spec = BentoPathSpec(config.include, config.exclude, root)
print(json.dumps([path for path in paths if spec.includes(path)]))
"""


@pytest.mark.parametrize("build_file", ["bentofile.yaml", "pyproject.toml", "none"])
def test_it_decides_as_bentoml_does(tmp_path: Path, build_file: str) -> None:
    rules = dict(RULES)
    if build_file != "bentofile.yaml":
        del rules["bentofile.yaml"]
    if build_file == "pyproject.toml":
        rules["pyproject.toml"] = (
            '[project]\nname = "it"\n[tool.bentoml.build]\nservice = "service:Outer"\n'
            'include = ["*.py", "conf/*"]\nexclude = ["sub/*"]\n'
        )
    for name, text in {**dict.fromkeys(PATHS, ""), **rules}.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    if build_file != "bentofile.yaml":
        (tmp_path / "bentofile.yaml").unlink(missing_ok=True)
    done = subprocess.run(
        [PYTHON, "-c", ASK, str(tmp_path), *PATHS],
        capture_output=True, text=True, env={**os.environ, **environ(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    files = BentoFiles(str(tmp_path))
    files.read()
    folders = files.folders()
    there = [path for path in PATHS if (tmp_path / path).exists()]
    expected = [path for path in json.loads(done.stdout) if path in there]
    assert [path for path in there if files(str(tmp_path / path))] == expected
    assert {str((tmp_path / path).parent) for path in expected} <= {*folders}


def test_what_include_names_restarts_the_service_and_what_is_ignored_does_not(
    servd: Servd, store: Path
) -> None:
    servd.write(
        servd_toml=config("service:Outer", f'[services.web]\napp = "main:app"\n'
                          f'listen = "127.0.0.1:{free_port()}"'),
        service_py=FROM_FILE, main_py=APP, word_yaml="a",
        bentofile_yaml='service: "service:Outer"\ninclude: ["*.py", "*.yaml"]\nexclude: [old/]\n',
    )  # fmt: skip
    (servd.folder / ".bentoignore").write_text("ignored*\n")
    (servd.folder / "old").mkdir()
    daemon = dev(servd, store)
    serves(daemon, "a")
    web, inner = daemon.pids("web"), daemon.pids("it.inner")
    for name in ("notes.txt", "ignored.yaml", "ignored.py", "old/x.py", ".x.py.swp"):
        (servd.folder / name).write_text("x = 1")
    servd.write(word_yaml="b")
    serves(daemon, "b")
    wait_until(lambda: len(daemon.pids("it.inner")) == 1, "the old one has ended")
    assert daemon.pids("it.inner") != inner
    servd.write(nobody_py="X = 1")
    wait_until(lambda: "nobody.py" in reasons(daemon), "BentoML would restart it")
    assert reasons(daemon) <= {"word.yaml", "nobody.py"}
    servd.write(main_py=APP.replace('b"app"', 'b"new"'))
    url = daemon.service("web")["listen"][0]
    wait_until(lambda: httpx.get(url).text == "new", "the app has its edit")
    assert daemon.pids("web") != web
    assert reasons(daemon) <= {"word.yaml", "nobody.py", "main.py"}
    assert daemon.stop() == 0


def test_the_build_file_changes_what_is_watched_and_which_service_it_is(
    servd: Servd, store: Path
) -> None:
    two = FROM_FILE.replace("Outer", "Second").replace(
        "return self.inner.word()", 'return "second"'
    )
    servd.write(
        service_py=FROM_FILE, second_py=two, word_yaml="a",
        bentofile_yaml='service: "service:Outer"\ninclude: ["*.py"]\n',
        servd_toml=config("."),
    )  # fmt: skip
    daemon = dev(servd, store)
    serves(daemon, "a")
    servd.write(word_yaml="b", more_yaml="x")
    servd.write(bentofile_yaml='service: "second:Second"\ninclude: ["*.py", "word.yaml"]\n')
    serves(daemon, "second")
    servd.write(bentofile_yaml='service: "service:Outer"\ninclude: ["*.py", "word.yaml"]\n')
    serves(daemon, "b")
    servd.write(word_yaml="c", more_yaml="y")
    serves(daemon, "c")
    assert reasons(daemon) == {"bentofile.yaml", "word.yaml"}
    servd.write(bentofile_yaml="include: [")
    wait_until(lambda: "cannot watch sources" in daemon.output, "the mistake is shown")
    servd.write(word_yaml="d")
    servd.write(bentofile_yaml='service: "service:Outer"\ninclude: ["*.yaml"]\n')
    serves(daemon, "d")
    assert daemon.stop() == 0


def test_a_module_that_was_missing_mends_a_service_and_its_components(
    servd: Servd, store: Path
) -> None:
    servd.write(servd_toml=config("service:Outer"), service_py=FROM_MODULE)
    daemon = servd.run("dev", interpreter=PYTHON, environ=environ(store))
    wait_until(lambda: "No module named 'word'" in daemon.output, "the traceback is shown")
    servd.write(word_py='WORD = "a"')
    wait_until(lambda: daemon.service("it")["state"] == "ready", "it is ready")
    serves(daemon, "a")
    servd.write(word_py="from more import WORD")
    wait_until(lambda: "No module named 'more'" in daemon.output, "the edit was refused")
    assert word(daemon) == "a"
    (servd.folder / "more").mkdir()
    (servd.folder / "more" / "__init__.py").write_text('WORD = "b"')
    serves(daemon, "b")
    assert daemon.stop() == 0


def build(folder: Path, store: Path, text: str, version: str) -> None:
    (folder / "service.py").write_text(
        f"import bentoml\n\n@bentoml.service\nclass It:\n    @bentoml.api\n"
        f"    def word(self) -> str:\n        return {text!r}\n"
    )
    (folder / "bentofile.yaml").write_text("service: service:It\n")
    done = subprocess.run(
        [PYTHON, "-m", "bentoml", "build", "--version", version],
        cwd=folder, env={**os.environ, **environ(store)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder whose code is built, and not that of the configuration."""
    (tmp_path / "project").mkdir()
    return tmp_path / "project"


@pytest.mark.parametrize("target", ["it:latest", "it"])
def test_a_new_build_is_served_in_development(
    servd: Servd, store: Path, project: Path, target: str
) -> None:
    build(project, store, "one", "one")
    servd.write(servd_toml=config(target))
    daemon = dev(servd, store)
    serves(daemon, "one")
    build(project, store, "two", "two")
    serves(daemon, "two")
    assert reasons(daemon) == {target}
    delete = [PYTHON, "-m", "bentoml", "delete", "-y"]
    subprocess.run([*delete, "it:two"], env={**os.environ, **environ(store)}, check=True)
    serves(daemon, "one")
    subprocess.run([*delete, "it:one"], env={**os.environ, **environ(store)}, check=True)
    build(project, store, "three", "three")
    serves(daemon, "three")
    assert daemon.stop() == 0


def test_serve_with_reload_follows_the_latest_and_not_a_certain_version(
    servd: Servd, store: Path, project: Path
) -> None:
    build(project, store, "one", "one")
    text = config("it:one").replace("services.it", "services.fixed")
    servd.write(servd_toml=text + config("it:latest"))
    port = free_port()
    follows = dev(servd, store, "serve", "it:latest", "--reload", f"--port={port}")
    both = servd.run("dev", interpreter=PYTHON, environ=environ(store))
    wait_until(lambda: "servd ready" in both.output, "it is ready")
    build(project, store, "two", "two")
    serves(follows, "two")
    serves(both, "two")
    assert word(both, "fixed") == "one"


def test_outside_development_a_new_build_waits_for_a_reload(
    servd: Servd, store: Path, project: Path
) -> None:
    build(project, store, "one", "one")
    daemon = servd(config("it"), environ=environ(store)).ready()
    build(project, store, "two", "two")
    assert word(daemon) == "one"
    report = daemon.reload()
    assert [(c["service"], c["kind"]) for c in report["changes"]] == [("it", "roll")]
    assert word(daemon) == "two"


def test_outside_development_the_stores_file_is_an_input(
    servd: Servd, store: Path, project: Path
) -> None:
    build(project, store, "one", "one")
    latest = f'inputs = "{store}/bentos/it/latest"\n'
    servd.watching = True
    daemon = servd(config("it") + latest, environ=environ(store)).ready()
    build(project, store, "two", "two")
    wait_until(lambda: word(daemon) == "two", "the new build is served")


def test_check_and_serve_agree_with_bentoml_about_what_a_tag_names(
    servd: Servd, store: Path, project: Path
) -> None:
    build(project, store, "one", "first")
    build(project, store, "two", "second")
    for target in ("it", "it:latest", "it:first", "it:sec"):
        servd.write(servd_toml=config(target))
        done = command("check", "--imports", folder=servd.folder, environ=environ(store))
        assert done.returncode == 0, (target, done.stdout, done.stderr)
        shown = subprocess.run(
            [PYTHON, "-m", "servd", "serve", target, "--print-config"],
            cwd=servd.folder, capture_output=True, text=True,
            env={**os.environ, **environ(store)},
        )  # fmt: skip
        assert f'bento = "{target}"' in shown.stdout, shown.stderr
    for target, reason in (("it:third", "Bento has that name"), ("nowhere:latest", "Bento")):
        servd.write(servd_toml=config(target))
        done = command("check", "--imports", folder=servd.folder, environ=environ(store))
        assert done.returncode == 78, (target, done.stdout, done.stderr)
        assert reason in done.stderr
    (store / "bentos" / "it" / "latest").unlink()  # BentoML finds it out again
    shutil.rmtree(store / "bentos" / "it" / "second")
    servd.write(servd_toml=config("it"))
    daemon = dev(servd, store)
    serves(daemon, "one")


def test_a_bento_called_like_a_library_is_one(tmp_path: Path) -> None:
    (tmp_path / "bentos" / "json" / "second").mkdir(parents=True)
    home = {"BENTOML_HOME": str(tmp_path)}
    for target, expected in (
        ("json", True), ("json:latest", True), ("json:second", True), ("json:sec", True),
        ("json:third", False), ("json:dumps", False),
    ):  # fmt: skip
        assert is_bento(target, str(tmp_path), home) is expected, target
