"""The document that tells a worker process what to run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from servd.config import connections, service, worker_tables
from servd.config.table import Table
from servd.plan.build import spec_of
from servd.wire import worker_spec as wire
from servd.wire.worker_spec import AppSpec, BentoSpec, SocketSpec, TlsSpec, WorkerSpec

TABLES: list[tuple[type[Any], type[Table]]] = [
    (wire.TimeoutSpec, connections.Timeouts),
    (wire.LimitSpec, worker_tables.Limits),
    (wire.LogSpec, service.ServiceLog),
    (wire.ProxySpec, connections.Proxy),
    (wire.UvicornSpec, connections.UvicornOptions),
]


def names_of(spec: type[Any]) -> set[str]:
    return {field.name for field in dataclasses.fields(spec)}


@pytest.mark.parametrize(("spec", "table"), TABLES)
def test_every_field_of_a_table_is_a_key_of_the_configuration(
    spec: type[Any], table: type[Table]
) -> None:
    assert names_of(spec) <= set(table.model_fields)
    values = table()
    copied = spec_of(spec, values)
    assert all(getattr(copied, name) == getattr(values, name) for name in names_of(spec))


def test_the_tables_stand_under_the_names_of_the_configuration() -> None:
    for field in dataclasses.fields(AppSpec):
        if str(field.type).removesuffix("Spec") in ("Timeout", "Limit", "Log", "Proxy", "Uvicorn"):
            assert field.name in service.Service.model_fields


def test_a_spec_survives_its_journey_as_json() -> None:
    tables = {
        "timeouts": spec_of(wire.TimeoutSpec, connections.Timeouts(request=1.5)),
        "limits": spec_of(wire.LimitSpec, worker_tables.Limits(concurrency=3, body=1)),
        "log": spec_of(wire.LogSpec, service.ServiceLog(skip_paths=("/a", "/b"))),
        "proxy": spec_of(wire.ProxySpec, connections.Proxy(headers=True)),
        "uvicorn": spec_of(wire.UvicornSpec, connections.UvicornOptions()),
    }
    reached = (("Other", "file:///x"), ("Third", "file:///y"))
    bento = BentoSpec("Part", reached, 2, True, False, "/run/b")
    app = AppSpec("m:app", False, "auto", ".", 4, 9, "", "/healthz", **tables, bento=bento)  # type: ignore[arg-type]
    whole = WorkerSpec(
        service="web",
        worker=1,
        generation=2,
        stop_signal=15,
        sockets=(SocketSpec("web", 3, tls=True), SocketSpec("web-internal", 4)),
        app=app,
        rlimits=(("nofile", 64), ("core", 0)),
        cpus=(0, 2),
        tls=TlsSpec("cert", "key", "", "", "none", "TLSv1.2", ""),
    )
    assert WorkerSpec.from_json(whole.to_json()) == whole
    command = WorkerSpec("job", 0, 1, 2, argv=("sh", "-c", "true"))
    assert WorkerSpec.from_json(command.to_json()) == command
