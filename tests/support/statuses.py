"""Statuses as the admin API tells them, to be shown."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

NOW = datetime(2026, 3, 4, 12, 0, 0, tzinfo=UTC)
"""The time at which they are looked at."""


def worker(index: int = 0, **more: Any) -> dict[str, Any]:
    """A ready worker of an app, without a request."""
    return {
        "pid": 100 + index, "worker": index, "generation": 1, "state": "ready",
        "started_at": "2026-03-04T11:57:00Z", "rss_bytes": 36_700_160, "cpu_percent": 1.5,
        "requests": 0, "in_flight": 0, "rps": 0.0, "rps_4xx": 0.0, "rps_5xx": 0.0,
        "error_rate": None, "p50_ms": None, "p99_ms": None, "gpus": [], **more,
    }  # fmt: skip


def service(name: str, workers: int = 1, **more: Any) -> dict[str, Any]:
    """An app whose workers are all ready."""
    found = {
        "name": name, "state": "ready", "since": "2026-03-04T11:57:05Z", "generation": 1,
        "listen": [], "bound_by": "servd", "binds_itself": [], "public_url": "", "depends_on": [],
        "workers": {"desired": workers, "ready": workers},
        "processes": [worker(index) for index in range(workers)], "draining": [], "coming": None,
        "by_hand": None, "autoscale": None, "crash_loop": False, "kind": "app",
        "requests": 0, "rps": 0.0, "rps_4xx": 0.0, "rps_5xx": 0.0, "error_rate": None,
        "p50_ms": None, "p99_ms": None,
        "certificate_expires_at": None, "restarts": 0, "last_exit": None, "error": None,
    }  # fmt: skip
    return {**found, **more}


def down(name: str, state: str, desired: int = 1, **more: Any) -> dict[str, Any]:
    """An app without workers."""
    return service(name, 0, state=state, **more) | {"workers": {"desired": desired, "ready": 0}}


def command(name: str, **more: Any) -> dict[str, Any]:
    """A program without an address, whose requests are not counted."""
    unknown = dict.fromkeys(("requests", "rps", "rps_4xx", "rps_5xx", "error_rate"))
    return service(name, **{"kind": "command", "bound_by": None, **unknown, **more})


def task(name: str, state: str, **more: Any) -> dict[str, Any]:
    """A task that does not run (any more)."""
    none = {"desired": 1, "ready": 0}
    return command(name, state=state, **{"kind": "task", **more}) | {
        "processes": [], "workers": none,
    }  # fmt: skip


def exited(reason: str, *last_lines: str) -> dict[str, Any]:
    """How a worker ended."""
    return {"worker": 0, "pid": 9, "status": 1, "reason": reason, "last_lines": [*last_lines]}


def reload(outcome: str, at: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The report of a reload."""
    return {
        "outcome": outcome, "at": at, "since": at, "why": "SIGHUP", "seconds": 0.5,
        "changes": [*changes], "settings": [], "error": None, "service": None, "details": [],
        "last_lines": [], "restart_needed": [], "by_hand_ends": [], **more,
    }  # fmt: skip


def change(sign: str, name: str, kind: str) -> dict[str, Any]:
    """A change of a service."""
    return {"sign": sign, "service": name, "kind": kind, "keys": []}


def status(*services: dict[str, Any], **more: Any) -> dict[str, Any]:
    """The daemon with these services."""
    return {
        "version": "0.1.0", "pid": 7, "state": "running", "started_at": "2026-03-04T11:57:00Z",
        "config": {
            "path": "/srv/servd.toml", "digest": "x", "generation": 3,
            "loaded_at": "2026-03-03T08:30:00Z",
        },
        "last_reload": None, "unchanged_at": None, "last_act": None,
        "services": [*services], "predecessor": None, **more,
    }  # fmt: skip


def many(count: int) -> list[dict[str, Any]]:
    """Many services: well, failing, waiting, answering with errors, and tasks."""
    lost = "worker 0 cannot import ranker: ModuleNotFoundError: No module named 'torch'"
    special = [
        down("gateway", "waiting", desired=2, depends_on=["search"],
             listen=["http://0.0.0.0:80"], error="waiting for search"),
        down("search", "waiting", depends_on=["ranker"]),
        down("ranker", "backoff", error=lost, crash_loop=True, restarts=4, depends_on=["prepare"],
             last_exit=exited("cannot import", "ModuleNotFoundError: No module named 'torch'")),
        service("pay", rps=120.0, rps_5xx=90.0, error_rate=0.75, p50_ms=1.5, p99_ms=20.25,
                requests=2000, error="900 of 1200 requests lately were answered with 5xx"),
        task("migrate", "failed", error="worker 0 exited with status 3",
             last_exit=exited("exited with status 3", "connecting", "no route to db.internal")),
        task("prepare", "completed"),
        task("backfill", "starting"),
        command("redis", binds_itself=["127.0.0.1:6379"]),
        command("triton", listen=["http://127.0.0.1:8000"], bound_by="program"),
        down("off", "stopped", desired=0),
    ]  # fmt: skip
    rest = [command(f"consumer-{number}") for number in range(1, count - len(special) + 1)]
    return [*rest, *special]
