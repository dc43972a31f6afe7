"""What people install: the sdist, the wheel, the image, and what a release needs."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path
from typing import Any

import httpx
import pytest

from servd import __version__

from support.harness import DEADLINE, Servd, free_port

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTAINER = ROOT / "sample-configs" / "container"


def run(*argv: str | Path, folder: Path = ROOT, **options: Any) -> str:
    done = subprocess.run(argv, cwd=folder, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return str(done.stdout)


def tracked() -> set[str]:
    """The files of the repository, and those that would be with the next commit."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs a git checkout")
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    return {name for name in listed.split("\0") if name and (ROOT / name).exists()}


@pytest.fixture(scope="module")
def sdist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sdist, unpacked."""
    folder = tmp_path_factory.mktemp("sdist")
    run(sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", folder)
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        packed.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@pytest.fixture(scope="module")
def wheel(sdist: Path) -> zipfile.ZipFile:
    """The wheel as it is built from the sdist, which has no git beside it."""
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", "dist", folder=sdist)
    (archive,) = (sdist / "dist").glob("*.whl")
    return zipfile.ZipFile(archive)


def test_the_sdist_holds_what_git_tracks(sdist: Path) -> None:
    packed = {str(path.relative_to(sdist)) for path in sdist.rglob("*") if path.is_file()}
    packed = {name for name in packed if not name.startswith("dist/")}
    assert packed - tracked() == {"PKG-INFO"}
    assert tracked() - packed == set()


def test_the_wheel_holds_the_package_the_schema_and_the_license(wheel: zipfile.ZipFile) -> None:
    names = set(wheel.namelist())
    about = f"{PROJECT['name'].replace('-', '_')}-{__version__}.dist-info"
    beside = {f"{about}/{name}" for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt")}
    assert names == {
        *(name for name in tracked() if name.startswith("servd/")),
        "servd/schemas/servd.schema.json",
        f"{about}/licenses/LICENSE",
        *beside,
    }
    assert {"servd/admin/page_files/index.html", "servd/py.typed"} <= names
    schema = wheel.read("servd/schemas/servd.schema.json")
    assert schema == (ROOT / "schemas" / "servd.schema.json").read_bytes()
    metadata = Parser().parsestr(wheel.read(f"{about}/METADATA").decode())
    assert metadata["Name"] == PROJECT["name"]
    assert metadata["Version"] == __version__
    assert metadata["License-Expression"] == "Apache-2.0"
    versions = re.findall(r"Python :: (3\.\d+)", "\n".join(metadata.get_all("Classifier", [])))
    ci = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert f"python-version: {json.dumps(versions)}" in ci


def test_a_release_needs_a_section_of_the_changelog_and_an_address(tmp_path: Path) -> None:
    missing = runpy.run_path(str(ROOT / ".ci" / "release.py"))["missing"]
    (tmp_path / "servd").mkdir()
    shutil.copy(ROOT / "servd" / "_version.py", tmp_path / "servd")
    project = tmp_path / "pyproject.toml"
    project.write_text("[project]\n")
    changelog = tmp_path / "CHANGELOG.md"
    changelog.write_text("## [Unreleased]\n")
    readme = tmp_path / "README.md"
    readme.write_text("![The page](docs/page.png)\n![ok](https://git.example/page.png)\n")
    tag = f"v{__version__}"
    assert missing("v99", tmp_path) == [
        f"the tag must be {tag}, since servd/_version.py says {__version__}, not v99",
        f"CHANGELOG.md needs a section: ## [{__version__}] - YYYY-MM-DD",
        "pyproject.toml needs [project.urls]: the public address of the repository",
        "README.md needs an absolute link to docs/page.png: an index shows no other",
    ]
    readme.write_text("")
    changelog.write_text(f"## [Unreleased]\n\n## [{__version__}] - 2026-01-31\n")
    project.write_text('[project.urls]\nRepository = "https://git.example/servd"\n')
    assert missing(tag, tmp_path) == []
    said = [reason.split()[0] for reason in missing(tag)]
    assert ("pyproject.toml" in said) == ("urls" not in PROJECT)


Instruction = tuple[str, str]


def stages() -> list[list[Instruction]]:
    """The instructions of the Dockerfile, from each FROM on."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found: list[list[Instruction]] = [[]]
    for name, _, rest in (line.partition(" ") for line in lines if line):
        if name == "FROM":
            found.append([])
        found[-1].append((name, " ".join(rest.split())))
    return found[1:]


def of_image(wanted: str) -> list[str]:
    return [rest for name, rest in stages()[-1] if name == wanted]


def test_the_image_runs_servd_as_a_user_without_rights() -> None:
    assert of_image("USER") == ["1000:1000"]
    assert of_image("STOPSIGNAL") == ["SIGTERM"]
    assert of_image("ENTRYPOINT") == ['["servd"]']
    assert of_image("EXPOSE") == ["8000"]
    assert len(of_image("HEALTHCHECK")) == 1


@pytest.mark.slow
def test_what_the_image_installs_serves_without_extras(servd: Servd) -> None:
    """The Dockerfile's steps, without the container: the wheel and the locked packages alone."""
    source, prefix = servd.folder / "src", servd.folder / "opt"
    kept = re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    for name in kept:
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    clean["PIP_NO_COMPILE"] = "1"  # most of the work, for modules that nothing imports here
    base = Path(sys.executable).resolve().parent
    path = f"{base}:/usr/bin:/bin"
    for name, step in stages()[0]:
        if name == "RUN":
            here = step.replace("python -m venv", f"{sys.executable} -m venv")
            here = here.replace("/opt/", f"{prefix}/")
            run("sh", "-ec", here, folder=source, env={**clean, "PATH": path})
    python = str(prefix / "servd" / "bin" / "python")
    installed = json.loads(run(python, "-m", "pip", "list", "--format=json", env=clean))
    locked = re.findall(r"^([\w.-]+)==", (ROOT / ".ci/requirements.lock").read_text(), re.MULTILINE)
    names = {each["name"].lower().replace("_", "-").replace(".", "-") for each in installed}
    assert names - {"pip", "setuptools"} <= {PROJECT["name"], *locked}
    run(python, "-m", "pip", "check", env=clean)

    port, metrics = free_port(), free_port()
    shutil.copytree(CONTAINER, servd.folder / "app")
    environ = {"PORT": str(port), "METRICS_PORT": str(metrics)}
    daemon = servd.run(
        environ={**environ, "PYTHONPATH": None}, folder=servd.folder / "app", interpreter=python
    ).ready()
    answer = httpx.get(f"http://127.0.0.1:{port}/", timeout=DEADLINE)
    assert answer.text == "Hello from a container\n"
    page = daemon.ask("GET", "/")
    assert "<html" in page.text
    assert json.loads(run(python, "-m", "servd", "schema", env=clean))["title"]

    beside = {**clean, **environ, **daemon.environ, "PATH": f"{prefix}/servd/bin:{path}"}
    (health,) = of_image("HEALTHCHECK")
    argv = json.loads(health.partition(" CMD ")[2])
    run(*argv, folder=servd.folder / "app", env=beside)
    compose = (CONTAINER / "compose.yaml").read_text()
    (test,) = re.findall(r"test: (\[.+\])", compose)
    probe = json.loads(test)[1:]
    assert "9100" in probe[-1]
    probe[-1] = probe[-1].replace("9100", str(metrics))
    run(*probe, folder=servd.folder / "app", env=beside)
    assert daemon.stop() == 0
    assert subprocess.run(argv, cwd=servd.folder / "app", env=beside).returncode != 0
