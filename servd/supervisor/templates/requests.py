"""What a process of a service is forked with, and the template that loads its app."""

from __future__ import annotations

import os
from typing import Any

from servd.host.identity import running_as
from servd.plan.model import ServicePlan
from servd.plan.threads import thread_limit
from servd.wire import names
from servd.wire.fork_request import ForkRequest
from servd.wire.worker_spec import WorkerSpec


def streams_of(plan: ServicePlan) -> tuple[str, ...]:
    """Returns the pipes that a process writes to; servd's own worker has a third, for finished
    events.
    """
    streams = ("stdout", "stderr")
    return streams if plan.app is None else (*streams, "events")


def identity_options(plan: ServicePlan) -> dict[str, Any]:
    """Returns the arguments of `subprocess.Popen` for the identity of the service's processes."""
    identity = plan.identity
    umask = identity.umask if identity.umask is not None else -1
    return {"umask": umask, **running_as(identity.account, identity.gid)}


def fork_request(
    plan: ServicePlan,
    environment: dict[str, str],
    title: str,
    *,
    numbers: tuple[int, ...] = (),
    is_template: bool = False,
    has_identity: bool = False,
) -> ForkRequest:
    """Returns the request for a fork with the identity of a service's workers; a template that
    `has_identity` already could not change it.
    """
    options = identity_options(plan)
    umask = options.pop("umask")
    if has_identity:
        options = {}
    return ForkRequest(
        parent=os.getpid(),
        title=title,
        environment=environment,
        directory=plan.directory,
        umask=umask,
        uid=options.get("user"),
        gid=options.get("group"),
        groups=options.get("extra_groups"),
        numbers=numbers,
        is_template=is_template,
    )


def template_environment(plan: ServicePlan, generation: int) -> dict[str, str]:
    """Returns the environment of the template that loads the app: without what is a single
    worker's.
    """
    return {**plan.environment, **thread_limit(plan, 0), names.GENERATION: str(generation)}


def template_spec(plan: ServicePlan, generation: int) -> WorkerSpec:
    """Returns the spec of the template that loads the app."""
    return WorkerSpec(plan.name, 0, generation, plan.stop_signal, app=plan.app)


def template_request(plan: ServicePlan, generation: int) -> ForkRequest:
    """Returns the request for the template that loads the app."""
    environment = template_environment(plan, generation)
    title = f"servd: template of {plan.name}"
    return fork_request(plan, environment, title, is_template=True)
