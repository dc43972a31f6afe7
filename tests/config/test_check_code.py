"""`servd check` warns of code that plainly cannot be imported, and is silent when in doubt."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from servd.config.check_code import check_code
from servd.config.load import load

from support.harness import command

HINT = "`servd check --imports` imports it"


def warnings_of(
    folder: Path, files: dict[str, str], app: str = "main:app", more: str = ""
) -> list[str]:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "servd.toml").write_text(f'[services.web]\napp = "{app}"\n{more}')
    loaded = load(str(folder / "servd.toml"), {}).require()
    return [f"{each.message} ({each.hint})" for each in check_code(loaded)]


@pytest.mark.parametrize(
    ("app", "files", "said"),
    [
        ("main:app", {"main.py": "x = 1\ndef f(:\n"},
            "cannot import main: main.py:2: invalid syntax"),
        ("main:app", {"main.py": "return 1"}, "cannot import main: main.py:1: 'return' outside"),
        ("main:app", {"main.py": "import os\nimport nonesuch.x\napp = 1"},
            "cannot import main: main.py:2: no module named nonesuch ("),
        ("main:app", {"main.py": '"""Doc."""\nfrom nonesuch import x\napp = x'}, "named non"),
        ("main:app", {"main.py": "aap = 1"}, 'main has no attribute "app" (did you mean "aap"?; '),
        ("main:app.x", {"main.py": "def f():\n    app = 1"},
            f'main has no attribute "app" ({HINT})'),
        ("main.py:app", {"main.py": "class A:\n    app = 1"}, 'has no attribute "app"'),
        ("pkg.web:app", {"pkg/__init__.py": "(", "pkg/web.py": "app = 1"},
            "cannot import pkg.web: pkg/__init__.py:1: "),
        ("pkg:app", {"pkg/__init__.py": "", "pkg/web.py": ""}, 'pkg has no attribute "app"'),
        ("space.web:app", {"space/web.py": "import nonesuch"}, "space/web.py:1: no module named"),
    ],
)  # fmt: skip
def test_a_warning_says_what_is_wrong(
    tmp_path: Path, app: str, files: dict[str, str], said: str
) -> None:
    (warning,) = warnings_of(tmp_path, files, app)
    assert said in warning
    assert HINT in warning


@pytest.mark.parametrize(
    "text",
    [
        "app = 1",
        "app: object = 1",
        "import json as app",
        "from json import loads as app",
        "if True:\n    app = 1",
        "try:\n    import nonesuch as app\nexcept ImportError:\n    app = None",
        "import sys\nsys.path.insert(0, 'lib')\nimport nonesuch\napp = 1",
        "import other\nimport nonesuch\napp = 1",
        "from . import nonesuch\nimport gone\napp = 1",
        "import fastapi, click\nfrom __future__ import annotations as a\napp = 1",
        "with open('x') as app: pass",
        "for app in [1]: pass",
        "print(app := 1)",
        "def make():\n    global app\n    app = 1\nmake()",
        "match {'a': 1}:\n    case {'a': app}: pass",
        "match [1]:\n    case [*app]: pass",
        "globals()['app'] = 1",
        "vars()['app'] = 1",
        "from other import *",
        "exec('app = 1')",
        "def __getattr__(name): return 1",
        "import lazy\n__getattr__, __dir__, __all__ = lazy.attach()",
        "import sys\nsetattr(sys.modules[__name__], 'app', 1)",
        "import sys\nsys._getframe().f_globals['app'] = 1",
        "x = '\\d'\napp = 1",
    ],
)
def test_where_only_the_import_tells_there_is_no_warning(tmp_path: Path, text: str) -> None:
    if "import annotations as a" in text:
        text = "from __future__ import annotations\nimport fastapi, click\napp = 1"
    assert warnings_of(tmp_path, {"main.py": text, "other.py": "", "lazy.py": ""}) == []


@pytest.mark.parametrize(
    ("app", "more"),
    [
        ("main:app", 'python = "python3"\n'),
        ("main:app", 'env = { PYTHONPATH = "lib" }\n'),
        ("main:app", 'env_file = "a.env"\n'),
        ("main:app", '[defaults]\nenv = { PYTHONPATH = "lib" }\n'),
        ("main:app", '[defaults]\nenv_file = "a.env"\n'),
        ("json:nonesuch", ""),
        ("pkg:web", ""),
        ("native:app", ""),
    ],
)
def test_code_that_is_elsewhere_is_not_judged(tmp_path: Path, app: str, more: str) -> None:
    files = {"main.py": "(", "a.env": "", "pkg/__init__.py": "", "pkg/web.py": "", "native.pyc": ""}
    assert warnings_of(tmp_path, files, app, more) == []


def test_another_directory_is_looked_at(tmp_path: Path) -> None:
    files = {"main.py": "app = 1", "code/main.py": "site = 1"}
    (warning,) = warnings_of(tmp_path, files, more='directory = "code"\n')
    assert 'main has no attribute "app"' in warning


def test_a_huge_or_deep_source_is_not_judged(tmp_path: Path) -> None:
    assert warnings_of(tmp_path, {"main.py": "#" * 2**22 + "\n(\n"}) == []
    assert warnings_of(tmp_path, {"main.py": "x = " + "(" * 150 + ")" * 150}) != []
    assert warnings_of(tmp_path, {"main.py": "x = " + "-" * 50_000 + "1"}) == []


def test_check_warns_at_the_place_and_runs_nothing(tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("open('ran', 'w').close()\nasgi = None\n")
    (tmp_path / "servd.toml").write_text('[services.web]\napp = "main:app"\n')
    done = command("check", folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "servd.toml is valid: web\n")
    lines = done.stderr.splitlines()
    assert lines[0] == (
        f'servd.toml:2:7: warning: services.web.app: main has no attribute "app" ({HINT})'
    )
    assert lines[1] == '  2 | app = "main:app"'
    assert not (tmp_path / "ran").exists()
    (found,) = json.loads(command("check", "--json", folder=tmp_path).stdout)["diagnostics"]
    assert (found["code"], found["severity"]) == ("import", "warning")
    done = command("check", "--imports", folder=tmp_path)
    assert done.returncode == 1
    assert HINT not in done.stderr
    assert (tmp_path / "ran").exists()
