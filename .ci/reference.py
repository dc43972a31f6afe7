"""Writes the reference pages of the documentation from the code: `python .ci/reference.py`.

With `--check` it writes nothing, and fails where a page is not what the code says.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
import tomllib
import types
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from pydantic import BaseModel

from servd.config import gpu_table, network, scalars, service, words
from servd.config.choices import CHOICES
from servd.config.kinds import daemon_kind, service_kind
from servd.config.model import AdminConfig, Config, DaemonConfig, Hook
from servd.config.model_paths import model_in
from servd.config.service import Dependency, EnvFile, Service
from servd.config.starter import defaults_of

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
PROSE = Path(__file__).parent / "reference"
EXAMPLES = tomllib.loads((PROSE / "examples.toml").read_text())

TYPES: list[tuple[Any, str]] = [
    (scalars.Duration, "duration"),
    (scalars.DurationOrNone, 'duration, or `"none"`'),
    (scalars.DurationOrAuto, 'duration, or `"auto"`'),
    (scalars.Size, "size"),
    (scalars.SizeOrNone, 'size, or `"none"`'),
    (scalars.Readiness, "a word below, or a duration"),
    (scalars.CountOrAuto, 'integer, or `"auto"`'),
    (scalars.OctalMode, "octal mode as a string"),
    (scalars.OctalModeOrNone, 'octal mode as a string, or `"none"`'),
    (scalars.PercentOrCount, "integer, or a percentage as a string"),
    (scalars.Affinity, 'list of integers, or `"spread"`'),
    (gpu_table.Gpus, 'number, list of ids, `"none"`, or table'),
    (scalars.GpusOrAuto, 'number, list of ids, or `"auto"`'),
    (scalars.Text, "string"),
    (service.Word, "string"),
    (service.Texts, "string, or list of strings"),
    (service.Command, "string, or list of strings"),
    (service.EnvFiles, "string, table, or list of these"),
    (service.Dependencies, "string, or list of strings and tables"),
    (service.Environment, "table of strings"),
    (service.ResourceLimits, "table of integers"),
    (network.Listen, "string, or list of strings"),
    (network.OptionalAddress, "address"),
    (network.Peer, "address or network"),
    (words.LogLevel, "a word below"),
    (words.StopSignal, "a word below"),
]
SIMPLE = {bool: "boolean", int: "integer", float: "number", str: "string"}
LISTS = {"a word below": "list of the words below", "address or network": "list of addresses"}
CHANGES = {
    "live": "applied to the running workers",
    "scale": "workers start or drain; the others keep running",
    "roll": "rolling restart: new workers are ready before the old ones drain",
    "rebind": "rolling restart: the new address opens before the old one closes",
    "switch": "rolling restart: new and old workers never accept at the same time",
}
OF_SERVD = {"live": "applied by a reload", "restart": "needs a restart of servd"}


def type_of(annotation: Any) -> str:
    """Returns the type of a key in words."""
    for known, name in TYPES:
        if annotation == known:
            return name
    if get_origin(annotation) is Annotated:
        return type_of(get_args(annotation)[0])
    if get_origin(annotation) is Literal:
        return "integer" if isinstance(get_args(annotation)[0], int) else "a word below"
    if get_origin(annotation) in (Union, types.UnionType):
        inner = [each for each in get_args(annotation) if each is not type(None)]
        return " or ".join(type_of(each) for each in inner) + (
            ", or `false`" if type(None) in get_args(annotation) else ""
        )
    if get_origin(annotation) is tuple:
        return LISTS.get(inner := type_of(get_args(annotation)[0]), f"list of {inner}s")
    if get_origin(annotation) is dict:
        return "table of tables" if model_in(get_args(annotation)[1]) else "table"
    return SIMPLE.get(annotation, "table")


def spelled(value: Any) -> str:
    """Returns a default as a file spells it."""
    if value in ("", [], {}, (), None):
        return "none" if value in ("", None) else f"`{json.dumps(value)}`"
    return f"`{json.dumps(value)}`"


def choices(model: type[BaseModel], key: str) -> dict[str, str]:
    """Returns the words of a key with their meanings."""
    for each in model.__mro__:
        if found := CHOICES.get(f"{each.__name__}.{key}"):
            return dict(found)
    return {}


def table_of(annotation: Any) -> type[BaseModel] | None:
    """Returns the model of a table whose keys are listed under it."""
    model = model_in(annotation)
    return model if get_origin(annotation) not in (tuple, dict) and model else None


def keys(
    model: type[BaseModel], path: tuple[str, ...], section: str, skip: frozenset[str] = frozenset()
) -> Iterator[str]:
    """Yields the entry of each key of a table, and of the tables in it."""
    hints = get_type_hints(model, include_extras=True)
    defaults = defaults_of(model)
    for key, field in model.model_fields.items():
        dotted = ".".join((*path, key))
        if dotted in skip:
            continue
        inner = table_of(field.annotation)
        anchor = "-".join(((section,) if section == "service" else ()) + (*path, key))
        yield f"### `{dotted}` {{#{anchor.replace('_', '-')}}}\n"
        yield f"{field.description}\n"
        is_known = any(hints[key] == known for known, _ in TYPES)
        rows = {"Type": "table" if inner and not is_known else type_of(hints[key])}
        if inner and type(None) in get_args(field.annotation):
            rows["Type"] = "table, or `false`"
        if field.is_required():
            rows["Required"] = "yes"
        elif not inner or rows["Type"] != "table":
            rows["Default"] = spelled(defaults[key])
        kind = service_kind(dotted) if section == "service" else daemon_kind(dotted)
        if inner is None:
            rows["A change"] = CHANGES[kind] if section == "service" else OF_SERVD[kind]
        yield "".join(f"- {name}: {value}\n" for name, value in rows.items()).rstrip("\n")
        if meanings := choices(model, key):
            yield "".join(
                f"- `{word!r}`: {text}\n".replace("'", '"', 2) for word, text in meanings.items()
            )
        example = EXAMPLES["service" if section == "service" else "config"].get(dotted)
        if example:
            yield f"```toml\n{example}\n```\n"
        if inner is not None:
            yield from keys(inner, (*path, key), section)


TOP = """\
`[services.NAME]` is a service. `[defaults]` is what all services inherit: it accepts every key of a
service except `app`, `command`, `bento`, `listen`, `depends_on` and `components`.
"""


def configuration() -> str:
    """Returns the page of configuration keys."""
    return "\n".join(
        [
            "## Top level\n",
            TOP,
            *keys(
                Config, (), "top", frozenset({"daemon", "admin", "hooks", "defaults", "services"})
            ),
            "## `[services.NAME]` {#services}\n",
            "A service has exactly one of `app`, `command` and `bento`.\n",
            *service_keys(),
            "## `[daemon]` {#daemon-table}\n",
            *keys(DaemonConfig, ("daemon",), "daemon"),
            "## `[admin]` {#admin-table}\n",
            *keys(AdminConfig, ("admin",), "admin"),
            "## `[[hooks]]` {#hooks-table}\n",
            *keys(Hook, ("hooks",), "hooks"),
            "## Tables in lists\n",
            "### `depends_on` {#depends-on-table}\n",
            *small(Dependency),
            "### `env_file` {#env-file-table}\n",
            *small(EnvFile),
        ]
    )


def service_keys() -> Iterator[str]:
    """Yields the keys of a service: what it runs and where first."""
    entries = list(keys(Service, (), "service"))
    starts = [n for n, text in enumerate(entries) if text.startswith("### ")]
    groups = [entries[a:b] for a, b in zip(starts, [*starts[1:], len(entries)], strict=True)]
    first = ("app", "command", "bento", "listen", "workers", "depends_on")
    name = {group[0].split("`")[1]: group for group in groups}
    for key in first:
        yield from name.pop(key)
    for group in name.values():
        yield from group


def small(model: type[BaseModel]) -> Iterator[str]:
    """Yields the keys of a table as a list."""
    hints = get_type_hints(model, include_extras=True)
    for key, field in model.model_fields.items():
        default = "required" if field.is_required() else f"default {spelled(field.default)}"
        yield f"- `{key}` ({type_of(hints[key])}, {default}): {field.description}"
        for word, text in choices(model, key).items():
            yield f'    - `"{word}"`: {text}'
    yield ""


def commands() -> str:
    """Returns the page of commands."""
    from servd.cli.main import servd as cli

    parts: list[str] = []
    context = click.Context(cli, info_name="servd")
    for name in ("", *cli.list_commands(context)):
        command = cli.get_command(context, name) if name else cli
        assert command is not None
        parts += command_page(command, context, f"servd {name}".strip())
    return "\n".join(parts)


def command_page(command: click.Command, parent: click.Context, name: str) -> Iterator[str]:
    """Yields the section of one command, and of those in it."""
    context = click.Context(
        command, info_name=name.rpartition(" ")[2], parent=parent if " " in name else None
    )
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"## `{name}` {{#{name.replace(' ', '-')}}}\n"
    yield f"```text\n{name} {usage}\n```\n"
    yield inspect.cleandoc((command.help or "").replace("\b\n", "")) + "\n"
    rows = [each.get_help_record(context) for each in command.get_params(context)]
    listed = [row for row in rows if row is not None and row[0] != "--help"]
    if listed:
        yield "| Option | Meaning |\n| --- | --- |"
        for option, text in listed:
            yield f"| `{cell(option)}` | {cell(text)} |"
        yield ""
    if isinstance(command, click.Group) and " " in name:
        for inner in command.list_commands(context):
            found = command.get_command(context, inner)
            assert found is not None
            yield from command_page(found, context, f"{name} {inner}")


def cell(text: str) -> str:
    """Returns a text for a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")


def metrics() -> str:
    """Returns the page of metrics."""
    from servd.daemon.metrics.prometheus import described

    parts = [
        "| Metric | Type | Labels | Meaning |",
        "| --- | --- | --- | --- |",
    ]
    for each in described():
        labels = " ".join(f"`{label}`" for label in each.labels)
        parts.append(f"| `{each.name}` | {each.type} | {labels} | {cell(each.text)} |")
    return "\n".join([*parts, ""])


def admin_api() -> str:
    """Returns the page of the admin API."""
    from servd.admin.app import build

    spec = build(None, None).openapi()  # type: ignore[arg-type]  # neither is asked for the spec
    parts = []
    parts += [
        "## Routes\n",
        "| Route | Meaning | Parameters | Body | Status |",
        "| --- | --- | --- | --- | --- |",
    ]
    for path, methods in spec["paths"].items():
        for method, route in methods.items():
            given = [each for each in route.get("parameters", []) if each["in"] != "path"]
            names = " ".join(f"`{each['name']}`" for each in given)
            codes = " ".join(
                code for code in sorted(route["responses"]) if code not in ("401", "403", "421")
            )
            text = cell(route.get("summary", ""))
            parts.append(
                f"| `{method.upper()} {path}` | {text} | {names} | {body_of(route)} | {codes} |"
            )
    parts += ["", "## Answers and bodies\n"]
    for name, schema in sorted(spec["components"]["schemas"].items()):
        if name in ("HTTPValidationError", "ValidationError") or "properties" not in schema:
            continue
        parts += [f"### {name} {{#{name.lower()}}}\n", f"{schema.get('description', '').strip()}\n"]
        required = schema.get("required", [])
        parts += ["| Field | Type | Meaning |", "| --- | --- | --- |"]
        for field, value in schema["properties"].items():
            mark = "" if field in required else "?"
            parts.append(
                f"| `{field}`{mark} | {json_type(value)} | {cell(value.get('description', ''))} |"
            )
        parts.append("")
    return "\n".join(parts)


def body_of(route: dict[str, Any]) -> str:
    """Returns a link to what a route accepts."""
    schema = (
        route.get("requestBody", {}).get("content", {}).get("application/json", {}).get("schema")
    )
    return json_type(schema) if schema else ""


def json_type(schema: dict[str, Any]) -> str:
    """Returns the type of a field of JSON in words."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(json_type(each) for each in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {json_type(schema.get('items', {}))}"
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{each}`" for each in schema["enum"])
    return str(schema.get("type", "any"))


def exports() -> str:
    """Returns the page of what other engines are given."""
    from servd.export.carried import ROWS
    from servd.export.fate import ENGINES, TITLES, Engine, Fate

    def shown(fate: Fate) -> str:
        words = {"carried": "", "inside": "inside", "lost": "**not**: ", "refused": "**refused**: "}
        return cell(f"{words[fate.kind]}{fate.text}")

    def line(name: str, fates: Mapping[Engine, Fate]) -> str:
        cells = [shown(fates[each]) if each in fates else "as above" for each in ENGINES]
        return f"| {' | '.join([name, *cells])} |"

    parts = [f"| Key | {' | '.join(TITLES[each] for each in ENGINES)} |"]
    parts.append("| --- |" + " --- |" * len(ENGINES))
    for row in ROWS:
        names = " ".join(f"`{key}`" for key in row.keys)
        parts.append(line(names, row.fates))
        parts += [line(f"{names}: {cell(each.of)}", each.fates) for each in row.cases]
    return "\n".join([*parts, ""])


def pages() -> dict[str, str]:
    """Returns the generated pages by name."""
    from servd.core.events import reference

    made = {
        "configuration.md": configuration,
        "commands.md": commands,
        "metrics.md": metrics,
        "admin-api.md": admin_api,
        "exports.md": exports,
    }
    found = {
        name: (PROSE / name).read_text().replace("<!-- generated -->", make().strip())
        for name, make in made.items()
    }
    return {**found, "events.md": reference()}


def main() -> None:
    """Writes the pages, or checks them."""
    os.environ["COLUMNS"] = "80"
    wrong = []
    for name, text in pages().items():
        path = PAGES / name
        if "--check" not in sys.argv:
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            wrong.append(str(path.relative_to(ROOT)))
    if wrong:
        sys.exit(f"out of date: {', '.join(wrong)}: run `python .ci/reference.py`")


if __name__ == "__main__":
    main()
