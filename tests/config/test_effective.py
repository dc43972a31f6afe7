"""What `servd show` prints can be read again, and means the same."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from servd.config.dump import escaped, to_text
from servd.config.effective import effective
from servd.config.find import Format
from servd.config.load import Loaded, load
from servd.host.facts import inspect_host
from servd.plan.build import build_loaded
from servd.plan.diff import diff

ENVIRON = {"PATH": os.environ["PATH"], "WORKERS": "3", "NAME": "x", "OFF": "false"}


def table(**keys: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the keys with any of their values; each first value is servd's default."""
    return st.fixed_dictionaries({}, optional={key: st.sampled_from(v) for key, v in keys.items()})


SHARED = {
    "workers": [1, 2, 0, "auto", "${WORKERS}"],
    "threads": [40, 4],
    "backlog": [2048, 16],
    "factory": [False, True],
    "root_path": ["", "/api", "/a$$b", "/$${x}", "/${NAME}"],
    "umask": ["022", "077"],
    "watchdog": ["30s", "none", "2s", "60s"],
    "cpu_affinity": [[], [0], "spread"],
    "env": [{}, {"A": "1"}, {"A": "$$a$${NAME}", "B": True, "C": 3}],
    "env_passthrough": [[], ["HOME"], ["LC_*"]],
    "rlimits": [{}, {"nofile": 1024}, {"nofile": 2048, "core": "unlimited"}],
    "gpus": [0],
    "interface": ["auto", "wsgi"],
    "ready": ["auto", "5s"],
    "public_url": ["", "https://example.org"],
    "stop_signal": ["SIGTERM", "SIGINT"],
}
TABLES = {
    "timeouts": table(startup=["60s", 90], request=["none", "4s"], drain=["30s", 0.5, "1h30m"]),
    "limits": st.one_of(
        st.just(value=False),
        table(concurrency=[0, 8], max_requests=[0, 100], body=["none", "1MiB", 1000]),
    ),
    "health": st.one_of(
        st.sampled_from([False, "${OFF}"]),
        table(path=["/healthz", "/h"], interval=["10s", "3s"], failures=[3, 1]),
    ),
    "restart": table(policy=["always", "never"], backoff=["500ms", "1s"], give_up_after=[0, 3]),
    "rollout": table(strategy=["surge", "recreate"], max_surge=["100%", 1]),
    "log": table(access=[True, False], level=["info", "debug"], sample=[1.0], max_size=["none"]),
    "proxy": table(headers=[False, True], trusted=[["127.0.0.1", "::1"], ["*"], []]),
    "uvicorn": table(http=["auto", "h11"], ws_ping_interval=["20s", "none"]),
    "socket": table(mode=["0600", "0660"]),
    "autoscale": table(min=[1, 2], max=[8], up_after=["10s"]),
}  # fmt: skip


def _with(more: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    keys = {key: st.sampled_from(values) for key, values in {**SHARED, **more}.items()}
    return st.fixed_dictionaries({}, optional={**keys, **TABLES})


DEFAULTS = _with({})
APP = _with({"listen": [":0", ["127.0.0.1:0", "unix:a.sock"]]})
COMMAND = _with({})
EXTERNALS: list[dict[str, Any]] = [
    {"external": "http://host2:8000"},
    {"external": "https://host2/api", "tls": {}, "timeouts": {"startup": "5s"}},
    {"external": "http://[::1]:80", "health": {"path": "/x"}},
]
OWN = {
    "daemon": table(watch=[True, False], shutdown_timeout=["90s", "5s"], gpus=["auto", 0]),
    "admin": table(token=["", "secret-of-ours"], metrics=["", "127.0.0.1:0"]),
}  # fmt: skip


@st.composite
def configurations(draw: st.DrawFn) -> dict[str, Any]:
    defaults = draw(DEFAULTS)
    services: dict[str, Any] = {"app": {**draw(APP), "app": "main:app"}}
    if draw(st.booleans()):
        services["cmd"] = {**draw(COMMAND), "command": ["true", "a$$b", "${NAME}"]}
        services["app"]["depends_on"] = draw(
            st.sampled_from([[], ["cmd"], [{"service": "cmd", "condition": "started"}]])
        )
    if draw(st.booleans()):
        services["far"] = draw(st.sampled_from(EXTERNALS))
    own = {key: draw(strategy) for key, strategy in OWN.items()}
    return {**own, "defaults": defaults, "services": services}


def changes(before: Loaded, after: Loaded) -> list[Any]:
    old, new = (
        build_loaded(each, inspect_host(each.config, ENVIRON), "/run/x") for each in (before, after)
    )
    return list(diff(old, new))


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "main.py").write_text("")
        yield Path(name)


@settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=200)
@given(values=configurations(), everything=st.booleans(), form=st.sampled_from(["toml", "yaml"]))
def test_what_is_shown_is_the_same_configuration(
    folder: Path, values: dict[str, Any], everything: bool, form: Format
) -> None:
    (folder / "servd.toml").write_text(tomli_w.dumps(values))
    first = load(str(folder / "servd.toml"), ENVIRON)
    assume(not first.errors)  # contradictory values
    text = to_text(escaped(effective(first, everything=everything)), form)
    (folder / f"shown.{form}").write_text(text)
    again = load(str(folder / f"shown.{form}"), ENVIRON)
    assert [d.summary() for d in again.errors] == [], text
    hidden = {"token": first.config.admin.token}
    admin = again.config.admin.model_copy(update=hidden)
    assert changes(first, again) == [], text
    assert again.config.services == first.config.services, text
    assert (again.config.daemon, admin) == (first.config.daemon, first.config.admin)


def shown(folder: Path, text: str, **files: str) -> dict[str, Any]:
    for name, content in files.items():
        (folder / f"{name}.toml").write_text(content)
    (folder / "servd.toml").write_text(text)
    return effective(load(str(folder / "servd.toml"), ENVIRON).require())


def test_a_default_against_the_defaults_is_shown(tmp_path: Path) -> None:
    text = """
[defaults]
workers = 4
limits = { concurrency = 3 }
health = {}
timeouts.drain = "9s"
log.access = false
[services.web]
command = ["true"]
workers = 1
limits = false
health = false
timeouts.drain = "30s"
log.access = true
"""
    web = shown(tmp_path, text)["services"]["web"]
    assert web.pop("directory") == str(tmp_path)
    assert web == {
        "command": ["true"],
        "workers": 1,
        "limits": False,
        "health": False,
        "timeouts": {"drain": "30s"},
        "log": {"access": True},
    }


def test_includes_are_merged(tmp_path: Path) -> None:
    values = shown(
        tmp_path,
        'include = "more.toml"\n[services.a]\ncommand = ["true"]\n',
        more='[services.b]\ncommand = ["true"]\n',
    )
    assert set(values) == {"services"}
    assert set(values["services"]) == {"a", "b"}
