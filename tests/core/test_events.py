"""Every event that code emits, tests wait for, hooks hang on, and pages name is in the registry."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest

from servd.config.model import HookEvent
from servd.core.events import COMMON, Event, reference
from servd.daemon.hooks import _NAMES
from servd.supervisor.states import State

from support.harness import Servd, wait_until

ROOT = Path(__file__).parents[2]
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}
EMITTERS = {"_log", "_say", "event"}
BOUND = {"service", "generation", "worker", "pid"}
PRINTED = {
    "asked", "from structlog", "['NoNewPrivs:', '1']", "called: {'answer': 42}", "colour red",
    "Exception in ASGI application", "slow begins", "logged here", "forged", "signs begin 0.3",
}  # fmt: skip
"""What apps and libraries say, where the text in the app is another."""


def calls(path: Path) -> Iterator[ast.Call]:
    tree = ast.parse(path.read_text())
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def named(node: ast.expr) -> list[str]:
    """The names that an expression may mean: those in variables are not seen."""
    match node:
        case ast.Constant(value=str(name)):
            return [name]
        case ast.JoinedStr(values=parts):
            return ["".join(str(p.value) if isinstance(p, ast.Constant) else "%s" for p in parts)]
        case ast.Attribute(value=ast.Name(id="Event"), attr=member):
            return [Event[member]]
        case ast.IfExp(body=one, orelse=other):
            return [*named(one), *named(other)]
        case ast.Call(func=ast.Name(id="Event"), args=[ast.JoinedStr(values=[ast.Constant(), _])]):
            return [f"service {state}" for state in get_args(State)]
    return []


def emitted(path: Path) -> Iterator[tuple[ast.Call, list[str]]]:
    """Calls that log, with the names of their events."""
    for call in calls(path):
        func = call.func.body if isinstance(call.func, ast.IfExp) else call.func
        if not isinstance(func, ast.Attribute) or not call.args:
            continue
        takes_level = func.attr in ("_say", "event")
        if func.attr in EMITTERS or (func.attr in LEVELS and "log" in ast.unparse(func.value)):
            yield call, named(call.args[int(takes_level)])


SOURCES = [path for path in sorted((ROOT / "servd").rglob("*.py")) if path.name != "events.py"]
EMITTED = [
    pytest.param(call, name, id=f"{path.relative_to(ROOT)}:{call.lineno}")
    for path in SOURCES
    if path.parts[-2] != "cli" and path.relative_to(ROOT / "servd").parts[0] != "engines"
    for call, names in emitted(path)
    for name in names
]


@pytest.mark.parametrize(("call", "name"), EMITTED)
def test_what_is_emitted_has_the_fields_that_are_declared(call: ast.Call, name: str) -> None:
    fields = {field.removesuffix("?") for field in Event(name).fields}
    required = {field for field in Event(name).fields if not field.endswith("?")} - BOUND
    given = {keyword.arg for keyword in call.keywords}
    if given & {"exc_info"} or ast.unparse(call.func).endswith(".exception"):
        given = given - {"exc_info"} | {"exception"}
    assert given - {None} <= fields | BOUND
    if None not in given and "logger" not in required:  # which logging adds
        assert required <= given


def test_the_daemon_emits_members_alone() -> None:
    # an enum would cost each worker milliseconds and 300 KiB
    outside = ("worker", "http", "engines")
    literals = [
        f"{path}:{call.lineno}"
        for path in SOURCES
        if path.relative_to(ROOT / "servd").parts[0] not in outside
        for call, names in emitted(path)
        if names and isinstance(call.args[0], ast.Constant | ast.JoinedStr)
    ]
    assert literals == []


def test_each_event_is_emitted_somewhere() -> None:
    found = {f"service {state}" for state in get_args(State)}
    for path in [*SOURCES, ROOT / "servd/worker/events.py"]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.expr):
                found.update(named(node))
    text = (ROOT / "servd/wire/request_line.py").read_text()
    assert '"event": "request"' in text
    assert set(Event) - found - {Event.REQUEST} == set()


def asked(node: ast.AST) -> list[str]:
    """The names that a part of a test looks for."""
    match node:
        case ast.Call(
            func=ast.Attribute(attr="find" | "wait_for"), args=[ast.Constant(value=str(name))]
        ):
            return [name]
        case ast.Compare(
            left=ast.Subscript(slice=ast.Constant(value="event")), comparators=[right]
        ):
            return [str(leaf.value) for leaf in ast.walk(right) if isinstance(leaf, ast.Constant)]
        case ast.Compare(
            left=ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value="event")]),
            comparators=[right],
        ):
            return named(right)
    return []


TESTS = [path for path in sorted((ROOT / "tests").rglob("*.py")) if "services" not in path.parts]


SHARED_APPS = (ROOT / "tests/support/apps.py").read_text()


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_events_that_tests_look_for_exist(path: Path) -> None:
    nodes = list(ast.walk(ast.parse(path.read_text())))
    texts = [n.value for n in nodes if isinstance(n, ast.Constant) and "\n" in str(n.value)]
    texts.append(SHARED_APPS)
    for name in (name for node in nodes for name in asked(node)):
        known = name in PRINTED or any(re.fullmatch(pattern(event), name) for event in Event)
        assert known or any(name in str(text) for text in texts), name


def pattern(event: Event) -> str:
    """What a name may look like, as a regular expression."""
    return ".+".join(re.escape(part) for part in re.split(r"%\.?\d*[sdf]", event))


PAGES = sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").rglob("*.md"))


@pytest.mark.parametrize("page", ["README.md", "systemd/README.md", *PAGES])
def test_events_that_pages_name_exist(page: str) -> None:
    text = (ROOT / page).read_text()
    shown = re.findall(r'"event": "([^"]+)"', text)
    shown += re.findall(r"^ *[\d:.]+ \[\w+ *\] (.+?) [\w.]+=", text, re.MULTILINE)
    starts = {event.split()[0] for event in Event if " " in event} - {"servd", "service"}
    phrases = re.findall(r"`([a-z]+(?: [a-z]+)+)`", text)
    shown += [phrase for phrase in phrases if phrase.split()[0] in starts]
    assert [name for name in shown if name not in Event.__members__.values()] == []


def test_each_event_of_hooks_comes_from_one_of_the_log() -> None:
    assert {*_NAMES.values(), "reload_applied"} == set(get_args(HookEvent))


def test_the_page_on_events_is_up_to_date() -> None:
    """`python -m servd.core.events > docs/reference/events.md` makes it so."""
    assert (ROOT / "docs" / "reference" / "events.md").read_text() == reference()


def test_what_a_daemon_says_is_declared(servd: Servd) -> None:
    config = """
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"

        [services.loop]
        command = ["sh", "-c", "exit 3"]
        restart = { backoff = "10ms", backoff_max = "20ms" }
        timeouts.startup = "1s"
        """
    daemon = servd(config, main_py="async def app(*_): ...").ready()
    daemon.wait_for("crash loop")
    daemon.act("web", "restart")
    daemon.reload("version = 2")
    wait_until(lambda: daemon.find("service ready"), "it serves")
    daemon.stop()
    said = [event for event in daemon.events if not event.keys() & {"logger", "stream"}]
    assert {"worker draining", "reload failed", "servd stopped"} <= {e["event"] for e in said}
    for event in said:
        check(event)


def check(event: dict[str, Any]) -> None:
    declared = Event(event["event"]).fields
    optional = {field[:-1] for field in declared if field.endswith("?")}
    assert event.keys() - optional == set(declared) - {f"{f}?" for f in optional} | {*COMMON}, event
