"""`servd serve` detects whether its target is a BentoML service."""

from __future__ import annotations

from pathlib import Path

import pytest

from servd.cli.bento_target import is_bento

FILES = {
    "decorated.py": "import bentoml\n@bentoml.service(workers=2)\nclass Yes: ...\nclass No: ...\n",
    "bare.py": "from bentoml import service\n@service\nclass Yes: ...\n",
    "assigned.py": "import bentoml\nclass Inner: ...\nYes = bentoml.service(name='x')(Inner)\n",
    "again.py": "from decorated import Yes, No\nfrom pack import Yes as Other\n",
    "pack/__init__.py": "from .inner import Yes\n",
    "pack/inner.py": "import bentoml\n@bentoml.service\nclass Yes: ...\n",
    "pack/sub/__init__.py": "",
    "pack/sub/up.py": "from ..inner import Yes as Up\n",
    "alias.py": "from bentoml import service as svc\n@svc\nclass Yes: ...\nOther = Yes\n",
    "starred.py": "from pack.inner import *\nimport pack.inner\nMine = pack.inner.Yes\n",
    "tried.py": "try:\n    from pack.inner import Yes\nexcept ImportError:\n    Yes = None\n",
    "typed.py": "import bentoml as b\nYes: object = b.service(name='x')(int)\n",
    "others.py": "# bentoml\n@registry.service\nclass app: ...\nservice = registry.service(1)\n",
    "mounts.py": "import bentoml\nfrom fastapi import FastAPI\napp = FastAPI()\n",
    "plain.py": "async def app(scope, receive, send): ...\n",
    "broken.py": "import bentoml\ndef (:\n",
    "folder/service.py": "import bentoml\n@bentoml.service\nclass Yes: ...\n",
    "empty/readme": "",
    "home/bentos/iris/one/bento.yaml": "",
    "home/bentos/iris/latest": "one",
}
YES = [
    "decorated:Yes", "decorated.py:Yes", "decorated", "bare:Yes", "assigned:Yes", "again:Yes",
    "again:Other", "pack:Yes", "pack.inner:Yes", "folder", "./folder", "iris:one", "iris:latest",
    "iris", "pack.sub.up:Up", "alias:Yes", "alias:Other", "starred:Yes", "starred:Mine",
    "tried:Yes", "typed:Yes",
]  # fmt: skip
NO = [
    "decorated:No", "again:No", "mounts:app", "plain:app", "plain", "broken:Yes", "nowhere:app",
    "empty", "iris:two", "others:app", "others:service",
]  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "expected"), [(t, True) for t in YES] + [(t, False) for t in NO]
)
def test_a_target_is_told_from_its_source(folder: Path, target: str, expected: bool) -> None:
    environ = {"BENTOML_HOME": str(folder / "home")}
    assert is_bento(target, str(folder), environ) is expected
