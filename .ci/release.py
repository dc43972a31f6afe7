"""Says what is missing for a release under a tag: python .ci/release.py v1.2.3."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def missing(tag: str, root: Path = ROOT) -> list[str]:
    """What must be done before this state is released under the tag; nothing when it may be."""
    version = re.search(r'__version__ = "(.+)"', (root / "servd" / "_version.py").read_text())
    assert version is not None
    number = version[1]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    changes = (root / "CHANGELOG.md").read_text()
    found = []
    if tag != f"v{number}":
        found.append(f"the tag must be v{number}, since servd/_version.py says {number}, not {tag}")
    if not re.search(rf"^## \[{re.escape(number)}\] - \d{{4}}-\d\d-\d\d$", changes, re.MULTILINE):
        found.append(f"CHANGELOG.md needs a section: ## [{number}] - YYYY-MM-DD")
    if not project.get("urls"):
        found.append("pyproject.toml needs [project.urls]: the public address of the repository")
    images = re.findall(r"!\[[^\]]*\]\((?!https?:)([^)\s]+)", (root / "README.md").read_text())
    found += [
        f"README.md needs an absolute link to {image}: an index shows no other" for image in images
    ]
    return found


if __name__ == "__main__":
    reasons = missing(sys.argv[1])
    for reason in reasons:
        print(reason, file=sys.stderr)
    sys.exit(bool(reasons))
