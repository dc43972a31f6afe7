"""What the documents promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "docs" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", SECURITY)))
PAGES = (
    "README.md", "docs/security.md", "systemd/README.md", "sample-configs/README.md",
    "benchmarks/README.md",
)  # fmt: skip


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_the_page_on_security_names_exists(file: str, name: str) -> None:
    where = "" if file.startswith("benchmarks/") else "tests"
    text = (ROOT / where / file).read_text()
    assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[\w-]+)?\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), target
