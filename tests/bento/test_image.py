"""The page about images of Bentos is followed, but for the container: the entrypoint runs here."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from support.harness import DEADLINE, alive, free_port, wait_until
from support.pages import DOCS, blocks
from support.with_bentoml import PYTHON, environ

PAGE = (DOCS / "how-to" / "bentoml-image.md").read_text()
SED = re.compile(r"^RUN (sed -i .+) (/home/bentoml/bento/env/docker/entrypoint\.sh)$", re.MULTILINE)


@pytest.fixture(scope="module")
def bento(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Bento of the page, with what its Dockerfile does to the entrypoint."""
    folder = tmp_path_factory.mktemp("image")
    home = folder / "home"
    for path in (home, folder / "summary"):
        path.mkdir()
    for block in blocks(PAGE):
        if block.title:
            (folder / block.title).write_text(block.text)
    (wheel,) = re.findall(r'wheels: \["(.+?)"\]', PAGE)
    (folder / "summary" / wheel).touch()
    done = subprocess.run(
        [PYTHON, "-m", "bentoml", "build", "summary", "--version", "one"],
        cwd=folder,
        env={**os.environ, **environ(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    made = home / "bentos" / "summary" / "one"
    assert (made / "env" / "python" / "wheels" / wheel).exists()
    return made


def entrypoint(bento: Path) -> Path:
    return bento / "env" / "docker" / "entrypoint.sh"


@pytest.fixture(scope="module")
def edited(bento: Path) -> Path:
    """The entrypoint as the step of the Dockerfile leaves it."""
    dockerfile = (bento / "env" / "docker" / "Dockerfile").read_text()
    after = dockerfile[dockerfile.index("ENTRYPOINT [") :]
    step = SED.search(after)
    assert step is not None, dockerfile
    assert after[: step.start()].rstrip().endswith("USER root")
    assert after[step.end() :].strip() == "USER bentoml"
    assert f'ENTRYPOINT [ "{step[2]}" ]' in after
    copy = bento / "env" / "docker" / "edited.sh"
    copy.write_bytes(entrypoint(bento).read_bytes())
    subprocess.run(["sh", "-c", f"{step[1]} {copy}"], check=True)
    before, text = entrypoint(bento).read_text(), copy.read_text()
    assert len(set(text.splitlines()) - set(before.splitlines())) == 2
    return copy


@contextlib.contextmanager
def container(
    bento: Path, script: Path, *arguments: str, **variables: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The entrypoint with these arguments, as a container would run it."""
    with tempfile.TemporaryDirectory(prefix="sd", dir="/tmp") as short:
        inherited = {n: v for n, v in os.environ.items() if n not in ("PORT", "BENTOML_PORT")}
        process = subprocess.Popen(
            ["bash", script, *arguments],
            cwd=bento,
            env={
                **inherited,
                **environ(bento.parents[2]),
                "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
                "BENTO_PATH": str(bento),
                "BENTOML_HOST": "127.0.0.1",
                "SERVD_DAEMON__RUNTIME_DIR": f"{short}/run",
                **variables,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        family: list[psutil.Process] = []
        try:
            yield process
            family = psutil.Process(process.pid).children(recursive=True)
            assert family
            process.send_signal(signal.SIGTERM)
            said, _ = process.communicate(timeout=DEADLINE)
            assert process.returncode == 0, said.decode()
            assert alive(family) == []
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                family += psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.communicate()
            for each in alive(family):
                each.kill()


def is_asked(process: subprocess.Popen[bytes], port: int) -> None:
    """The service answers there, and the process of the container is servd."""
    url = f"http://127.0.0.1:{port}"

    def answered() -> bool:
        assert process.poll() is None, process.communicate()[0].decode()
        with contextlib.suppress(httpx.TransportError):
            return httpx.get(f"{url}/readyz", timeout=DEADLINE).status_code == 200
        return False

    wait_until(answered, "the container is ready")
    answer = httpx.post(f"{url}/first", json={"text": "One. Two."}, timeout=DEADLINE)
    assert answer.text == "One."
    command = psutil.Process(process.pid).cmdline()
    assert Path(command[1]).name == "servd", command


@pytest.mark.parametrize(
    "arguments",
    [[], ["serve"], ["serve-http"], ["--api-workers", "1"], ["serve", "--development"]],
    ids=" ".join,
)
def test_the_entrypoint_runs_servd(bento: Path, edited: Path, arguments: list[str]) -> None:
    port = free_port()
    given = {"PORT": str(port), "BENTOML_PORT": "1"} if arguments else {"BENTOML_PORT": str(port)}
    with container(bento, edited, *arguments, **given) as process:
        is_asked(process, port)


@pytest.mark.parametrize(
    "command", ["servd serve .", "servd --config src/servd.toml"], ids=["serve", "configuration"]
)
def test_the_entrypoint_of_bentoml_runs_the_commands_of_the_page(bento: Path, command: str) -> None:
    assert f"summary {command}\n" in PAGE
    port = free_port()
    with container(bento, entrypoint(bento), *command.split(), PORT=str(port)) as process:
        is_asked(process, port)


def test_grpc_is_refused_and_other_commands_run_as_they_are(bento: Path, edited: Path) -> None:
    variables = {
        **os.environ,
        "PATH": f"{Path(PYTHON).parent}:{os.environ['PATH']}",
        "BENTO_PATH": str(bento),
    }

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", edited, *arguments], cwd=bento, env=variables, capture_output=True, text=True
        )

    refused = run("serve-grpc")
    assert refused.returncode == 2
    assert "servd serves HTTP" in refused.stderr
    assert run("bentoml", "serve-grpc", "--help").stdout.startswith("Usage: bentoml serve-grpc")
    assert run("echo", "hello").stdout == "hello\n"
