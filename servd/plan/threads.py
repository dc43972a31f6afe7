"""How many threads the libraries of a worker that computes should use. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from servd.plan.model import ServicePlan

THREADS = "OMP_NUM_THREADS"
"""OpenMP, PyTorch, OpenBLAS, MKL and numexpr heed it; each has a variable of its own that wins."""


def thread_limit(plan: ServicePlan, slot: int) -> Mapping[str, str]:
    """Returns the variable that keeps workers from using all CPUs at once, each of them: its share
    of its CPUs, or of all. Only for services that compute (they have GPUs, or CPUs of their own),
    and unless it is set. It is none of the plan's environment: another number of workers changes it
    for those that start, and rolls none.
    """
    if THREADS in plan.environment or not plan.usable_cpus:
        return {}
    workers, affinity = max(1, plan.workers), plan.identity.affinity
    if affinity:
        own = set(affinity[slot % len(affinity)])
        others = (set(affinity[each % len(affinity)]) for each in range(workers))
        return {THREADS: str(max(1, len(own) // max(1, sum(own == cpus for cpus in others))))}
    if plan.gpus:
        return {THREADS: str(max(1, plan.usable_cpus // workers))}
    return {}
