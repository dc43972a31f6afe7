"""`servd export dockerfile`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from support.exports import BENTOML_NAMES, EXPORTS, NAMES, Exported, export, export_sample
from support.with_bentoml import PYTHON as WITH_BENTOML

GOLDEN = EXPORTS / "dockerfiles"
HADOLINT = Path(sys.executable).with_name("hadolint")
WEB = '[services.web]\napp = "main:app"\nlisten = ":8000"\n'


def shop(folder: Path, text: str = WEB, *options: str, **files: str) -> Exported:
    (folder / "main.py").touch()
    (folder / "servd.toml").write_text(text)
    for name, content in files.items():
        (folder / name.replace("_", ".")).write_text(content)
    return export(folder, "dockerfile", "--python", "3.13", *options)


def lint(text: str) -> str:
    done = subprocess.run([HADOLINT, "-"], input=text, capture_output=True, text=True)
    return done.stdout


@pytest.mark.parametrize("name", NAMES)
def test_dockerfiles_of_the_samples_are_as_expected(name: str, tmp_path: Path) -> None:
    if name in BENTOML_NAMES and not Path(WITH_BENTOML).exists():
        pytest.skip("BentoML is not installed")
    done = export_sample(name, tmp_path, "--python", "3.13", engine="dockerfile")
    assert done.status == 0, done.told
    assert done.text == (GOLDEN / f"{name}.Dockerfile").read_text()
    assert lint(done.text) == ""


@pytest.mark.parametrize(
    ("file", "steps"),
    [
        ("uv_lock", ["COPY pyproject.toml uv.lock ./", "uv sync --frozen --no-dev --inexact"]),
        (
            "requirements_txt",
            ["COPY requirements.txt ./", "servd-serve==0.1.0 -r requirements.txt"],
        ),
        ("pyproject_toml", ["COPY pyproject.toml ./", "servd-serve==0.1.0 -r pyproject.toml"]),
    ],
)
def test_packages_are_those_of_the_project(tmp_path: Path, file: str, steps: list[str]) -> None:
    done = shop(tmp_path, **{file: ""})
    assert done.status == 0, done.told
    for step in steps:
        assert step in done.text
    assert "no uv.lock" not in done.told
    assert lint(done.text) == ""


def test_the_image_runs_servd_without_rights_and_without_a_shell(tmp_path: Path) -> None:
    done = shop(tmp_path)
    lines = done.text.splitlines()
    assert 'ENTRYPOINT ["servd"]' in lines
    assert "USER 10001:10001" in lines
    assert "EXPOSE 8000" in lines
    assert [line for line in lines if line.startswith("CMD")] == []
    assert "the image has servd alone" in done.told


def test_directories_of_services_are_copied(tmp_path: Path) -> None:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "main.py").touch()
    inside = WEB + 'directory = "api"\n'
    done = shop(tmp_path, inside)
    assert "COPY api /app/api\nCOPY servd.toml /app/servd.toml\n" in done.text
    outside = shop(tmp_path, WEB + 'directory = "/srv"\n')
    assert "servd.toml:4:13: warning: services.web.directory: /srv is not below" in outside.told
    (tmp_path / "shop.toml").write_text(WEB)
    named = export(tmp_path, "dockerfile", "-c", "shop.toml")
    assert "SERVD_CONFIG=/app/shop.toml" in named.text


def test_names_with_spaces_quotes_and_globs_mean_themselves(tmp_path: Path) -> None:
    for name in ("my app", "it's [1]", "$x"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "main.py").touch()
    folders = ("my app", "it's [1]", "$$x")
    tables = [
        f'[services.s{n}]\napp = "main:app"\ndirectory = "{f}"' for n, f in enumerate(folders)
    ]
    (tmp_path / 'my "conf" $1.toml').write_text("\n".join(tables))
    done = export(tmp_path, "dockerfile", "--python", "3.13", "-c", 'my "conf" $1.toml')
    assert done.status == 0, done.told
    lines = done.text.splitlines()
    assert [line for line in lines if line.startswith("COPY [")] == [
        r'COPY ["\\$x", "/app/\\$x"]',
        r"""COPY ["it\\'s [[]1]", "/app/it\\'s [1]"]""",
        r'COPY ["my \\\"conf\\\" \\$1.toml", "/app/my \\\"conf\\\" \\$1.toml"]',
        'COPY ["my app", "/app/my app"]',
    ]
    (variable,) = (line for line in lines if "SERVD_CONFIG" in line)
    assert variable.strip(" \\") == r'SERVD_CONFIG="/app/my \"conf\" \$1.toml"'

    assert lint(done.text) == ""


def test_what_an_image_has_not_is_told_with_its_place(tmp_path: Path) -> None:
    text = WEB.replace(":8000", "127.0.0.1:8000") + 'env_file = ".env"\n'
    done = shop(tmp_path, text, _env="A=1")
    assert "servd.toml:3:1" in done.told or "servd.toml:3:10" in done.told
    assert "nothing outside the container reaches this address" in done.told
    assert "servd.toml:4:1: warning: services.web.env_file: not carried over" in done.told
    strict = shop(tmp_path, text, "--strict")
    assert (strict.status, strict.text) == (1, "")


def test_files_are_written_and_not_overwritten(tmp_path: Path) -> None:
    assert shop(tmp_path, WEB, "--write").status == 0
    first = (tmp_path / "Dockerfile").read_text()
    assert first.startswith("# Made by `servd export dockerfile`.")
    assert "**/.env\n" in (tmp_path / ".dockerignore").read_text()
    again = shop(tmp_path, WEB, "--write")
    assert again.status == 1
    assert "already exists: use --force" in again.told
    assert shop(tmp_path, WEB, "--write", "--force").status == 0


def test_a_version_of_python_is_one(tmp_path: Path) -> None:
    done = shop(tmp_path, WEB, "--python", "latest; rm -rf /")
    assert done.status == 2
    assert "expected a version of Python" in done.told
