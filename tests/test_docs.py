"""What the documents promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from servd.wire import graces

ROOT = Path(__file__).parents[1]
SECURITY = (ROOT / "docs" / "explanation" / "security.md").read_text()
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)(?:::(\w+))?`", SECURITY)))
PAGES = (
    "README.md", "CONTRIBUTING.md", "systemd/README.md", "sample-configs/README.md",
    "benchmarks/README.md",
)  # fmt: skip
"""Pages outside `docs/`: MkDocs checks the links there."""


def links(page: str) -> list[tuple[str, str]]:
    """The links of a page to files of the repository: paths (none is the page), and fragments."""
    found = re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", without_code(page))
    return [(target, fragment) for target, fragment in found if "://" not in target]


def without_code(page: str) -> str:
    return re.sub(r"^```.*?^```", "", (ROOT / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: str) -> set[str]:
    """What `#` may be followed by: the headings as GitHub makes anchors of them."""
    headings = re.findall(r"^#+ +(.+?) *$", without_code(page), re.MULTILINE)
    found: set[str] = set()
    for heading in headings:
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        again = sum(re.fullmatch(rf"{name}(-\d+)?", other) is not None for other in found)
        found.add(f"{name}-{again}" if again else name)
    return found


@pytest.mark.parametrize(("file", "name"), NAMED)
def test_every_test_that_the_page_on_security_names_exists(file: str, name: str) -> None:
    where = "" if file.startswith("benchmarks/") else "tests"
    text = (ROOT / where / file).read_text()
    assert not name or re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    for target, fragment in links(page):
        led = (ROOT / page).parent / target if target else ROOT / page
        assert led.exists(), target
        if fragment:
            assert fragment in anchors(str(led)), f"{target}#{fragment}"


def test_there_are_links_and_names_to_follow() -> None:
    assert len(NAMED) > 30
    assert len([link for page in PAGES for link in links(page)]) > 20


ARCHITECTURE = (ROOT / "docs" / "explanation" / "architecture.md").read_text()


def test_modules_that_the_page_on_the_architecture_names_exist() -> None:
    named = set(re.findall(r"`(?:servd/)?((?:\w+/)+\w+\.py)`", ARCHITECTURE))
    assert len(named) > 20
    for path in named - {"tests/test_architecture.py"}:
        assert (ROOT / "servd" / path).exists(), path


def test_the_page_on_the_architecture_has_the_table_of_graces() -> None:
    rows = dict(re.findall(r"^\| `(\w+_SECONDS)` \| ([\d.]+) \|", ARCHITECTURE, re.MULTILINE))
    found = {name: value for name, value in vars(graces).items() if name.endswith("_SECONDS")}
    assert {name: float(seconds) for name, seconds in rows.items()} == found


INSTALLS = [
    (path.relative_to(ROOT), line.strip())
    for path in sorted(ROOT.rglob("*"))
    if path.suffix in (".py", ".md", ".toml", ".sh", ".yml", ".yaml")
    and not any(part.startswith(".venv") or part == "node_modules" for part in path.parts)
    for line in path.read_text(errors="replace").splitlines()
    if re.search(r"\b(pip|pipx|uv)\b.* install ", line)
]


def test_no_line_installs_the_other_project_that_is_called_servd() -> None:
    """On the Python package index, servd is another project."""
    assert len(INSTALLS) > 10
    named = [
        item for item in INSTALLS if re.search(r"install[^#]*[ '\"]servd(\[| |'|\"|$)", item[1])
    ]
    assert [item for item in named if item[0].name != "test_docs.py"] == []


def test_a_project_that_people_can_join_has_these_files() -> None:
    for name in ("LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md"):
        assert (ROOT / name).stat().st_size > 500
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_messages_of_the_troubleshooting_page_exist() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text()
    code = "".join(path.read_text() for path in sorted((ROOT / "servd").rglob("*.py")))
    messages = [
        row for row in re.findall(r"^\| `([^`]+)`", page, re.MULTILINE) if row not in OF_THE_SYSTEM
    ]
    assert len(messages) > 15
    missing = [
        message
        for message in messages
        if any(part.strip() not in code for part in message.split("…") if part.strip())
    ]
    assert missing == []


OF_THE_SYSTEM = ("Address already in use", "Permission denied")
"""Messages of the operating system."""
