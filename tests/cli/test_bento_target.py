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
    "old.py": "import bentoml\nsvc = bentoml.legacy.Service('old')\napp = svc.asgi_app\n",
    "older.py": "from bentoml.legacy import Service as S\nsvc = S('old', runners=[])\n",
    "module.py": "from bentoml import legacy\nsvc = legacy.Service('old')\n",
    "program.py": "import bentoml\nweb = bentoml.Service(name='web', cmd=['serve'])\n",
    "made.py": "import bentoml, os\ndef make(): return bentoml.service(int)\nYes = make()\n"
    "if os.environ.get('A'):\n    Maybe = make()\nelse:\n    Maybe = bentoml.service(int)\n"
    "@wrapped\nclass Wrapped: ...\ndef app(scope): ...\nclass Plain: ...\n",
    "uses.py": "from made import make\nYes = make()\n",
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
    "tried:Yes", "typed:Yes", "old:svc", "older:svc", "module:svc", "program:web", "made:Maybe",
]  # fmt: skip
NO = [
    "decorated:No", "mounts:app", "plain:app", "plain", "broken:Yes", "nowhere:app",
    "empty", "iris:two", "others:app", "others:service", "made:app", "made:Plain",
]  # fmt: skip
UNSURE = ["made:Yes", "made:Wrapped", "uses:Yes", "old:app", "old:svc.asgi_app", "again:No"]
"""What only an import can tell."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("target", "expected"),
    [(t, True) for t in YES] + [(t, False) for t in NO] + [(t, None) for t in UNSURE],
)
def test_a_target_is_told_from_its_source(folder: Path, target: str, expected: bool | None) -> None:
    environ = {"BENTOML_HOME": str(folder / "home")}
    assert is_bento(target, str(folder), environ) is expected
