"""The documentation is true: its commands print what it shows, and its configurations are valid."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from support.pages import DOCS, ROOT, blocks, commands, matches, pages, path_for

PAGES = ["../README.md", *pages()]
TEXTS = {page: (DOCS / page).read_text() for page in PAGES}
RUN = [
    page
    for page, text in TEXTS.items()
    if any(each.language == "console" and not each.not_run for each in blocks(text))
]
ISOLATED = 'mount -t tmpfs -o mode=0755 none /run && ip link set lo up && exec "$@"'
"""Nothing of this machine's network or of its daemons is seen, or in the way."""


def isolated(*argv: str) -> list[str]:
    own = ["unshare", "-nm"] if os.getuid() == 0 else ["unshare", "-rnm"]
    return [*own, "sh", "-c", ISOLATED, "sh", *argv]


@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_print_what_it_shows(page: str) -> None:
    if path_for(TEXTS[page]) is None:
        pytest.skip("something that the page needs is not installed")
    if subprocess.run(isolated("true"), capture_output=True).returncode:
        pytest.skip("no network namespaces here")
    with tempfile.TemporaryDirectory(prefix="page-") as folder:
        shop = Path(folder) / "shop"
        shop.mkdir()
        result = subprocess.run(
            isolated(sys.executable, "-m", "support.pages", str(DOCS / page), str(shop)),
            capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        )  # fmt: skip
    assert result.returncode == 0, result.stderr[-6000:]
    listed = [each for each in blocks(TEXTS[page]) if each.language == "console"]
    assert int(result.stdout) == sum(len(commands(each)) for each in listed if not each.not_run)


def test_output_is_compared_but_for_what_is_another_at_each_run() -> None:
    assert matches(["ready in 0.3 s, pid 12"], ["ready in 12.9 s, pid 4711"])
    assert matches(["a  b", "...", "z"], ["a b", "c", "d", "z"])
    assert matches(["at ... now"], ["at any time now"])
    assert not matches(["a"], ["a", "b"])
    assert not matches(["a", "b"], ["a"])
    assert not matches(["at :8000"], ["at :8001"])
