"""The schema in the language servers of editors, and in the validator of those who collect schemas.
The npm packages come from `.ci/editors`; without them their tests are skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import tomli_w

from servd.config.find import Source
from servd.config.load import parse_source
from servd.config.schema import json_schema
from servd.config.starter import starter
from servd.config.tree import plain

from support.config_cases import SPELLINGS, WRONG_FILES, spelled
from support.harness import command
from support.language_server import LanguageServer

ROOT = Path(__file__).parents[2]
SCHEMA = ROOT / "schemas" / "servd.schema.json"
MODULES = ROOT / ".ci" / "editors" / "node_modules"
needs_node = pytest.mark.skipif(
    not (MODULES.is_dir() and shutil.which("node")), reason="needs npm ci in .ci/editors"
)
OTHERS = {
    "own-keys": 'x-a = 1\ninclude = "a.toml"\n[services.a]\napp = "m:a"\nlisten = "8000"\n',
    "references": '[services.a]\napp = "m:a"\nworkers = "${W:-2}"\nthreads = "${T}"\n'
    'factory = "${F}"\nlimits = "${L:-false}"\ntimeouts.drain = "${D}"\nkind = "${K}"\n',
    "bento": '[services.a]\nbento = "service:A"\ncomponents.B.workers = 2\n',
    "short": '[services.a]\ncommand = "sleep 1"\ndepends_on = "b"\nhealth = "off"\n'
    '[services.b]\napp = "m:b"\nlisten = [80, "unix:/x"]\nworkers = "2"\n[[hooks]]\n'
    'on = "crash_loop"\ncommand = "true"\n',
}
"""Valid files that nothing else has."""


def valid_files() -> dict[str, str]:
    """TOML files that servd takes, by a name."""
    samples = sorted(ROOT.glob("sample-configs/*/servd.toml"))
    return {
        **{path.parent.name: path.read_text().partition("\n")[2] for path in samples},
        **{f"spelling-{i}": tomli_w.dumps(spelled(*s[:2])) for i, s in enumerate(SPELLINGS)},
        "everything": Path(__file__).with_name("everything.toml").read_text(),
        "starter": starter("main:app", "toml"),
        **OTHERS,
    }


def values_of(language: str, text: str) -> Any:
    """The values of a file as JSON has them; None for what cannot be read."""
    parsed = parse_source(Source(f"servd.{language}", text.encode()), {})
    if parsed.damaged or parsed.diagnostics:
        return None
    return json.loads(json.dumps(plain(parsed.root)))


def seen_by_a_schema() -> list[tuple[str, str, set[int]]]:
    """The wrong files that can be read and that the schema refuses: the language, the text, and the
    lines that servd complains about.
    """
    validator = jsonschema.Draft7Validator(json_schema())
    return [
        (language, text, {int(line.partition(":")[0]) for line in said if line[:1].isdigit()})
        for language, text, said in WRONG_FILES
        if (values := values_of(language, text)) is not None and not validator.is_valid(values)
    ]


def near(lines: set[int]) -> set[int]:
    """The lines, those above, and the header: what is missing, or too much, has no line."""
    return {1, *lines, *(line - 1 for line in lines)}


SEEN = seen_by_a_schema()


def test_a_schema_sees_most_of_what_is_wrong() -> None:
    readable = [text for language, text, _ in WRONG_FILES if values_of(language, text) is not None]
    assert len(SEEN) > 0.6 * len(readable) > 70


@pytest.fixture(scope="module")
def tombi(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the settings of tombi, a language server for TOML."""
    folder = tmp_path_factory.mktemp("tombi")
    (folder / "tombi.toml").write_text(
        'toml-version = "v1.0.0"\n[schema]\ncatalog = { paths = [] }\n'
        f'[[schemas]]\npath = "{SCHEMA}"\ninclude = ["*.toml"]\n'
    )
    return folder


def linted(folder: Path, files: dict[str, str]) -> dict[str, list[dict[str, Any]]]:
    """What tombi says of each file."""
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(text)
    argv = [str(Path(sys.executable).with_name("tombi")), "lint", "--offline", "--quiet"]
    argv += ["--diagnostics-format", "json-lines", "--diagnostics-file", "said.jsonl"]
    subprocess.run([*argv, *(f"{name}.toml" for name in files)], cwd=folder, check=False)
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in files}
    for line in (folder / "said.jsonl").read_text().splitlines():
        said = json.loads(line)
        found[Path(said["path"]).stem].append(said)
    return found


def test_an_editor_of_toml_has_nothing_against_a_valid_file(tombi: Path) -> None:
    found = linted(tombi, valid_files())
    assert len(found) > 40
    assert {name: said for name, said in found.items() if said} == {}


def test_an_editor_of_toml_complains_where_servd_does(tombi: Path) -> None:
    files = {str(i): text for i, (form, text, _) in enumerate(SEEN) if form == "toml"}
    for name, said in linted(tombi, files).items():
        lines = {each["range"]["start"]["line"] for each in said}
        assert lines, files[name]
        assert lines <= near(SEEN[int(name)][2]), (files[name], said)


def test_an_editor_of_toml_finds_the_schema_that_init_names(tmp_path: Path) -> None:
    def said() -> list[str]:
        (tmp_path / "tombi.toml").write_text("[schema]\ncatalog = { paths = [] }\n")
        found = linted(tmp_path, {"servd": (tmp_path / "servd.toml").read_text()})
        return [each["message"] for each in found["servd"]]

    assert command("init", folder=tmp_path).returncode == 0
    path = tmp_path / "servd.toml"
    assert path.read_text().startswith(f"#:schema {SCHEMA.as_uri()}\n")
    assert said() == []
    path.write_text(path.read_text().replace("# threads = 40", 'threads = [""]'))
    assert said() != []


@pytest.fixture(scope="module")
def yaml(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LanguageServer]:
    """yaml-language-server, which most editors use."""
    settings = {
        "schemas": {SCHEMA.as_uri(): "*.yaml"},
        "validate": True, "hover": True, "completion": True, "schemaStore": {"enable": False},
    }  # fmt: skip
    argv = ["node", str(MODULES / ".bin" / "yaml-language-server"), "--stdio"]
    with LanguageServer(argv, tmp_path_factory.mktemp("yaml"), {"yaml": settings}) as server:
        yield server


@needs_node
def test_an_editor_of_yaml_has_nothing_against_a_valid_file(yaml: LanguageServer) -> None:
    assert yaml.complaints(".yaml", "services: {a: {app: 3}}\n")  # it has read the schema
    for name, text in valid_files().items():
        values = values_of("toml", text)
        as_yaml = json.dumps(values, indent=2)
        assert yaml.complaints(".yaml", as_yaml) == [], (name, as_yaml)
    assert yaml.complaints(".yaml", starter("main:app", "yaml")) == []
    umask = 'services:\n  a:\n    command: ["true"]\n    umask: 022\n    restart: no\n'
    assert yaml.complaints(".yaml", umask) == []


@needs_node
def test_an_editor_of_yaml_complains_where_servd_does(yaml: LanguageServer) -> None:
    for language, text, lines in SEEN:
        if language == "yaml":
            said = yaml.complaints(".yaml", text)
            assert said, text
            assert {each.line for each in said} <= near(lines), (text, said)


HALF = """\
services:
  web:
    app: main:app
    kind: |
    restart:
      policy: |
    timeouts:
      |
"""


@needs_node
def test_what_an_editor_proposes_and_explains_is_in_the_docs(yaml: LanguageServer) -> None:
    """The page shows what yaml-language-server does with the schema, word for word."""
    assert yaml.complaints(".yaml", "services: 3\n")  # it has read the schema
    text = HALF.replace("|", "")
    uri = yaml.open("half.yaml", text)
    shown = []
    for number, line in enumerate(HALF.splitlines()):
        if "|" in line:
            items = yaml.completions(uri, number, line.index("|"))
            shown.append(f"{line}\n")
            shown += [f"    # {each['label']}: {each.get('documentation', '')}\n" for each in items]
    docs = (ROOT / "docs" / "how-to" / "editors.md").read_text()
    assert "".join(shown) in docs, "".join(shown)
    hover = yaml.hover(uri, 2, 5).split("Source:")[0].strip()
    assert hover in docs, hover


@needs_node
def test_it_passes_the_strict_mode_of_ajv() -> None:
    script = (
        "const Ajv = require('ajv'); const options = { strict: true, strictTypes: true,"
        " strictTuples: true, strictRequired: true };"
        " const validate = new Ajv(options).compile(require(process.argv[1]));"
        " console.log(validate({services: {a: {app: 'm:a'}}}), validate({services: {a: {}}}));"
    )
    done = subprocess.run(
        ["node", "-e", script, str(SCHEMA)], cwd=MODULES.parent, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("true false\n", "")


def test_it_ships_with_the_package(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(argv, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = subprocess.run(
        [sys.executable, "-m", "zipfile", "-l", str(wheel)],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "servd/schemas/servd.schema.json" in names
    assert "dist-info/licenses/LICENSE" in names
    installed = tmp_path / "site"
    argv = [sys.executable, "-m", "zipfile", "-e", str(wheel), str(installed)]
    subprocess.run(argv, check=True)
    done = command("init", "-", folder=tmp_path, environ={"PYTHONPATH": str(installed)})
    shipped = installed / "servd" / "schemas" / "servd.schema.json"
    assert done.stdout.startswith(f"#:schema {shipped.as_uri()}\n")
