"""Services of BentoML 1.1 (`bentoml.legacy.Service`): an API server, and a server for each runner
that it does not embed, as `bentoml.serving.serve_http_production` makes them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

from servd.wire.worker_spec import BentoSpec
from servd.worker.bento.declared_settings import leave_to_servd, server_settings
from servd.worker.bento.first_worker import first_of_all
from servd.worker.load_app import AppLoadError


def is_legacy(service: Any) -> bool:
    """Whether a loaded service is of the old kind."""
    try:
        from bentoml.legacy import Service
    except ImportError:
        return False
    return isinstance(service, Service)


def described_legacy(service: Any) -> list[dict[str, Any]]:
    """Returns the API server and its runners, each as `Declared` has it. Raises `AppLoadError`."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    config = BentoMLContainer.config.get()
    runners = [_described(runner, config["runners"]) for runner in _own_servers(service)]
    server = {
        "name": service.name,
        "depends": [runner["name"] for runner in runners],
        "workers": config["api_server"].get("workers") or "cpu_count",
        **server_settings(config["api_server"], {}),
    }
    return [server, *runners]


def _own_servers(service: Any) -> Iterator[Any]:
    """Yields the runners with a server of their own. Raises `AppLoadError` for one that servd
    cannot start.
    """
    from bentoml.legacy import Runner

    for runner in service.runners:
        if not isinstance(runner, Runner):
            raise AppLoadError(
                f"its runner {runner.name} is a Triton server, which servd does not start: write a"
                ' service with command = ["tritonserver", ...], and ask it over HTTP'
            )
        if not runner.embedded:
            yield runner


def _described(runner: Any, config: dict[str, Any]) -> dict[str, Any]:
    own = config.get(runner.name) or {}
    traffic = dict(config.get("traffic") or {}) | (own.get("traffic") or {})
    environments = runner.scheduled_worker_env_map
    return {
        "name": runner.name,
        "depends": [],
        "workers": runner.scheduled_worker_count,
        "timeout": traffic.get("timeout"),
        "max_concurrency": traffic.get("max_concurrency"),
        "runner": True,
        "environments": [
            sorted((name, str(value)) for name, value in environments[worker].items())
            for worker in sorted(environments)
        ],
    }


def set_variables(spec: BentoSpec, worker: int) -> None:
    """Sets what the runner's strategy wants for a worker, before its libraries are imported. A
    worker that the strategy did not plan has the variables of another one.
    """
    if spec.environments:
        os.environ.update(spec.environments[worker % len(spec.environments)])


def legacy_app(service: Any, spec: BentoSpec, worker: int) -> Any:
    """Returns the ASGI app of the API server, or of the runner that `spec` names."""
    from bentoml._internal.context import server_context

    server_context.service_name = spec.service or service.name
    server_context.service_type = "runner" if spec.service else "api_server"
    _configure(spec)
    if not spec.service:
        with first_of_all(spec) as is_first:
            if is_first:
                for hook in service.deployment_hooks:
                    hook()
        return service.asgi_app
    from bentoml._internal.server.runner_app import RunnerAppFactory

    named = {runner.name: runner for runner in service.runners}
    return RunnerAppFactory(named[spec.service], worker_index=worker + 1)()


def _configure(spec: BentoSpec) -> None:
    """Turns off what servd does, as `servd.worker.bento.load` does for newer services."""
    from bentoml._internal.configuration.containers import BentoMLContainer

    whole = BentoMLContainer.config.get()
    parts = [whole["runners" if spec.service else "api_server"]]
    if spec.service in parts[0]:
        parts.append(parts[0][spec.service])
    for part in parts:
        leave_to_servd(part, spec)
    BentoMLContainer.config.set(whole)
