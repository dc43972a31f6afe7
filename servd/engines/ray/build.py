"""The builder that Ray Serve imports: makes an application of one service."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from collections.abc import AsyncGenerator, Mapping
from typing import Any

from servd.engines.ray import exchange
from servd.engines.ray.bridge import Bridge
from servd.engines.ray.replica_app import ReplicaApp, load_replica_app
from servd.engines.ray.replica_spec import BentoArguments, ReplicaSpec
from servd.wire.names import DEPENDENCIES, GENERATION, SERVICE, WORKER
from servd.wire.worker_spec import BentoSpec


def build(args: Mapping[str, Any]) -> Any:
    """Returns the application for the `args` of its configuration. Ray calls it."""
    from ray.serve import deployment, ingress

    spec = ReplicaSpec.from_args(args)
    return deployment(name=spec.service)(ingress()(Replica)).bind(dict(args))


class Replica:
    """One replica: a worker of its service."""

    def __init__(self, args: Mapping[str, Any]) -> None:
        """Enters the directory, and sets the variables of servd."""
        from ray.serve import get_replica_context

        self.spec = spec = ReplicaSpec.from_args(args)
        rank = get_replica_context().rank
        self.worker = int(getattr(rank, "rank", rank) or 0)
        os.environ.update({
            SERVICE: spec.service,
            WORKER: str(self.worker),
            GENERATION: "0",
            DEPENDENCIES: json.dumps({name: dict(each) for name, each in spec.depends.items()}),
        })  # fmt: skip
        os.chdir(folder := spec.folder())
        self.spec = dataclasses.replace(spec, directory=folder)

    def __serve_build_asgi_app__(self) -> ReplicaApp:
        """Loads the app. Ray calls it once."""
        bento = _bento_spec(self.spec.bento) if self.spec.bento is not None else None
        self.replica_app = load_replica_app(self.spec, self.worker, bento)
        return self.replica_app

    async def check_health(self) -> None:
        """Is called by Ray. Raises `UnhealthyError`."""
        await self.replica_app.check_health()

    async def servd_answer(self, call: tuple[Any, ...]) -> tuple[Any, ...]:
        """Answers a call of another service at once."""
        return tuple(await exchange.answer(self.replica_app.serve, exchange.HandleCall(*call)))

    async def servd_stream(self, call: tuple[Any, ...]) -> AsyncGenerator[Any, None]:
        """Answers a call of another service: the head, then the pieces of the body."""
        async for part in exchange.stream(self.replica_app.serve, exchange.HandleCall(*call)):
            yield tuple(part) if isinstance(part, exchange.Head) else part


def _bento_spec(given: BentoArguments) -> BentoSpec:
    """Returns how BentoML's code is set up. It knows addresses alone: sockets that lead to the
    other parts.
    """
    reached = {name: Bridge(service).address for name, service in given.reached.items()}
    return BentoSpec(
        service=given.part,
        reached_at=tuple(sorted(reached.items())),
        workers=given.workers,
        keeps_timeout=given.keeps_timeout,
        keeps_concurrency=given.keeps_concurrency,
        folder=tempfile.mkdtemp(prefix="servd-"),
        arguments=given.arguments,
    )
