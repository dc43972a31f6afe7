"""`.gitignore` decides as git does: compared with git itself."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from servd.daemon.watch.gitignore import Ignored

RULES = {
    ".gitignore": "*.log\n!keep.log\nbuild/\n/top.py\ndocs/*.py\n**/deep/x.py\n",
    "sub/.gitignore": "*.py\n!good.py\n",
}
PATHS = [
    "a.log", "keep.log", "sub/a.log", "build/a.py", "sub/build/a.py", "top.py", "sub/top.py",
    "docs/a.py", "docs/in/a.py", "some/deep/x.py", "sub/bad.py", "sub/good.py", "main.py",
    "other/bad.py", "build.py", "sub/build", "keep.log.py",
]  # fmt: skip


def test_it_decides_as_git_does(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    for name, text in {**RULES, **dict.fromkeys(PATHS, "")}.items():
        path = tmp_path / name
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text) if not path.is_dir() else None
    done = subprocess.run(
        ["git", "check-ignore", "--stdin"],
        cwd=tmp_path, input="\n".join(PATHS), capture_output=True, text=True,
    )  # fmt: skip
    expected = set(done.stdout.split())
    ignored = Ignored(str(tmp_path))
    found = {
        path
        for path in PATHS
        if ignored(str(tmp_path / path), is_folder=(tmp_path / path).is_dir())
    }
    assert found == expected
    below = Ignored(str(tmp_path / "sub"))
    assert below(str(tmp_path / "sub" / "a.log")), "rules of the folders above count"


def test_folders_without_sources_are_not_watched(tmp_path: Path) -> None:
    for name in (".git", ".venv/lib", "node_modules/x", "src/pkg", "src/__pycache__", "out"):
        os.makedirs(tmp_path / name)
    (tmp_path / ".gitignore").write_text("out\n")
    found = Ignored(str(tmp_path)).folders(str(tmp_path))
    assert {os.path.relpath(folder, tmp_path) for folder in found} == {".", "src", "src/pkg"}
