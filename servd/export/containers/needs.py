"""What a container of servd needs: CPUs, memory, GPUs, time to end, and a home."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from servd.config.gpu_table import gpus_each
from servd.core.quick_dataclass import dataclass
from servd.export.containers.options import ExportSource
from servd.export.containers.pods import PodPlan
from servd.plan.autoscale import scaling_of
from servd.plan.model import ServicePlan

MIB = 2**20

_BENTOML_HOME = "/tmp/bentoml"  # noqa: S108  # in the container
_DAEMON_BYTES = 128 * MIB

_MARGIN_SECONDS = 5
"""Beyond everything that servd waits for, before the engine kills the container."""


@dataclass(frozen=True, slots=True)
class ContainerNeeds:
    """A CPU for each worker (`is_by_cpus`: there are as many workers as CPUs), and memory in bytes
    where each service has a limit: `most_memory` while servd replaces workers, when old and new
    ones run at the same time.
    """

    cpus: int
    is_by_cpus: bool
    memory: int | None
    most_memory: int
    gpus: int


def needs_of(pod: PodPlan, *, scales: bool) -> ContainerNeeds:
    """Returns what a container needs. `scales`: the engine decides on the number of containers;
    otherwise the memory is enough for the most workers.
    """
    services = pod.plan.services
    numbers = {each.name: _workers(each, pod, scales=scales) for each in services}
    running = [each for each in services if numbers[each.name]]
    most = {each.name: _workers(each, pod, scales=scales, most=True) for each in running}
    is_limited = bool(running) and all(each.limits.memory is not None for each in running)
    return ContainerNeeds(
        cpus=max(1, sum(numbers.values())),
        is_by_cpus=any(each.definition.workers == "auto" for each in services),
        memory=_memory(running, numbers) + _DAEMON_BYTES if is_limited else None,
        most_memory=2 * _memory(running, most) + _DAEMON_BYTES,
        gpus=_gpus(services, numbers),
    )


def _memory(services: Sequence[ServicePlan], workers: Mapping[str, int]) -> int:
    return sum(workers[each.name] * (each.limits.memory or 0) for each in services)


def _workers(service: ServicePlan, pod: PodPlan, *, scales: bool, most: bool = False) -> int:
    """Returns the number of workers in a pod; "auto" is one for each CPU of the limit. An
    autoscaler of pods has them with one each; otherwise servd starts the fewest, or the `most`.
    """
    given = service.definition
    if (scale := scaling_of(service)) is not None:
        if scales and pod.services == (service.name,):
            return 1
        return scale.max if most else scale.min
    is_off = given.workers == 0 and len(pod.services) == 1
    return 1 if given.workers == "auto" or is_off else service.workers


def _gpus(services: Sequence[ServicePlan], workers: Mapping[str, int]) -> int:
    total = 0.0
    for each in services:
        asked = each.definition.gpus
        if isinstance(asked, tuple):
            total += len(asked)
        else:
            of_code = each.part.gpus if each.part is not None and not asked else 0
            total += (gpus_each(asked) or of_code) * workers[each.name]
    return math.ceil(total)


def grace_seconds(pod: PodPlan, source: ExportSource, pre_stop: int) -> int:
    """Returns the time from the decision to end a pod until it is killed."""
    limit = source.as_written.config.daemon.shutdown_timeout
    longest = pod.plan.stop_seconds
    ends = longest if limit == "auto" else min(longest, float(limit))
    return math.ceil(pre_stop + ends + _MARGIN_SECONDS)


def home_variables(services: Sequence[ServicePlan]) -> dict[str, str]:
    """Returns where BentoML makes its folder, since it may not write to its home: but not where
    that folder, with a Bento in it, is part of the image.
    """
    parts = [each.part for each in services if each.definition.bento]
    is_written = bool(parts) and not any(part is not None and part.tag for part in parts)
    return {"BENTOML_HOME": _BENTOML_HOME} if is_written else {}
