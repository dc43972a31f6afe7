"""The house: which package may import which, what each is for, and where its tests are."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "servd"
TESTS = ROOT / "tests"
AT_THE_TOP = {"__init__", "__main__", "_version", "api", "embed", "pytest_plugin"}


def test_imports_point_one_way() -> None:
    """The contracts stand in pyproject.toml; the layers name every module (`exhaustive`)."""
    linter = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run(
        [linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:]
    assert "0 broken" in done.stdout


def test_no_module_is_loose() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == AT_THE_TOP


def test_each_package_says_what_it_holds_what_it_uses_and_who_uses_it() -> None:
    packages = [path for path in PACKAGE.rglob("__init__.py") if path.parent != PACKAGE]
    assert len(packages) > 20
    for path in packages:
        said = ast.get_docstring(ast.parse(path.read_text())) or ""
        lines = said.splitlines()
        assert any(line.startswith("Uses: ") for line in lines), path
        assert any(line.startswith("Used by: ") for line in lines), path
        assert len(lines) <= 8, path


def test_folders_of_tests_mirror_the_packages() -> None:
    """What tests a package lies in the folder of its name; these few test no single package."""
    folders = {
        folder.relative_to(TESTS)
        for test in TESTS.rglob("test_*.py")
        for folder in [test.parent, *test.parent.parents]
        if TESTS in folder.parents
    }
    assert len(folders) > 20
    others = {folder for folder in folders if not (PACKAGE / folder / "__init__.py").exists()}
    assert {str(folder) for folder in others} == {"end_to_end", "systemd"}


def test_events_are_asked_for_by_names_that_are_written_out() -> None:
    """So that the names can be found, and compared with those that there are."""
    asked = [
        call
        for path in TESTS.rglob("test_*.py")
        for call in ast.walk(ast.parse(path.read_text()))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)
        if call.func.attr in ("find", "wait_for") and ast.unparse(call.func.value) != "asyncio"
    ]
    assert len(asked) > 150
    others = [ast.unparse(call) for call in asked if not isinstance(call.args[0], ast.Constant)]
    assert others == []


def test_code_in_texts_of_tests_imports_what_there_is() -> None:
    """What a test has another process run is text, which neither mypy nor a rename looks into."""
    pattern = re.compile(r"from (servd(?:\.\w+)+) import (\w+(?:, \w+)*)")
    found = {
        (module, name)
        for path in TESTS.rglob("*.py")
        for module, names in pattern.findall(path.read_text())
        for name in names.split(", ")
    }
    assert len(found) > 100
    for module, name in sorted(found):
        loaded = importlib.import_module(module)
        assert hasattr(loaded, name) or importlib.util.find_spec(f"{module}.{name}"), (module, name)


def test_no_public_type_name_is_defined_twice() -> None:
    homes: dict[str, list[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        for name in _type_names(ast.parse(path.read_text())):
            homes.setdefault(name, []).append(str(path.relative_to(PACKAGE)))
    assert len(homes) > 200
    assert {name: found for name, found in homes.items() if len(found) > 1} == {}


def _type_names(tree: ast.Module) -> list[str]:
    """Public classes, and aliases of types: names in CamelCase that are assigned to."""
    found = [node.name for node in tree.body if isinstance(node, ast.ClassDef)]
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        found += [
            t.id for t in targets if isinstance(t, ast.Name) and re.match("[A-Z].*[a-z]", t.id)
        ]
    return [name for name in found if not name.startswith("_")]


def test_no_two_files_of_tests_have_the_same_name() -> None:
    """pytest imports them by their names alone."""
    names = [path.name for path in TESTS.rglob("test_*.py")]
    assert len(names) > 100
    assert sorted(set(names)) == sorted(names)
