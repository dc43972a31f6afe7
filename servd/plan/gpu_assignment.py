"""Deals GPUs to workers: whole ones, shares, and memory. Pure."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from servd.plan.gpu_inventory import GpuInventory, Ids
from servd.plan.gpu_requests import GpuRequest

TOLERANCE = 1e-9
"""Shares are sums of decimal fractions: ten times 0.1 is one GPU."""

_MOST_SETS = 70
"""Sets of GPUs that are compared for the nearest: four of eight."""

_FAR = 1 << 20
"""The distance of GPUs of which nothing is known."""

Held = Mapping[str, tuple[Ids, ...]]
Dealt = dict[str, list[Ids]]


def assign(wanted: Sequence[GpuRequest], gpus: GpuInventory, held: Held) -> Dealt | None:
    """Returns the GPU ids per worker and service, or None if the requests cannot be satisfied.
    Workers keep what they hold, and shares are spread, unless that is in the way.
    """
    for before, spread, order in (
        (held, True, _by_share),
        (held, False, _by_share),
        ({}, False, _by_share),
        ({}, False, _by_memory),
    ):
        found = _deal(wanted, _Free(gpus, wanted), before, spread=spread, order=order)
        if found is not None:
            return found
    return None


def assign_around(wanted: Sequence[GpuRequest], gpus: GpuInventory, held: Held) -> Dealt | None:
    """Returns what `assign` does, with sound GPUs for as many services as possible: first for those
    that have them. The others keep what they have, and wait.
    """
    bad = gpus.quarantined
    harmed = {name for name, workers in held.items() if any(bad & set(ids) for ids in workers)}
    given, sound = assign(wanted, gpus, held), set[str]()
    for request in sorted(wanted, key=lambda each: each.service in harmed):
        tried = sound | {request.service}
        found = assign(
            [dataclasses.replace(each, sound_only=each.service in tried) for each in wanted],
            gpus,
            held,
        )
        if found is not None:
            given, sound = found, tried
    return given


_Order = Callable[[GpuRequest], float]


def _by_share(request: GpuRequest) -> float:
    return -request.each


def _by_memory(request: GpuRequest) -> float:
    """Whole GPUs first, and the largest need first among equals."""
    whole = 1 << 62 if request.each >= 1 else 0
    return -(whole + (request.memory or 0))


class _Free:
    """What is free of each GPU: a share, and bytes of memory (None: unknown)."""

    def __init__(self, gpus: GpuInventory, wanted: Iterable[GpuRequest]) -> None:
        self._gpus = gpus
        self.shares = dict.fromkeys(gpus.ids, 1.0)
        self.shares |= {each: 0.0 for request in wanted for each in request.named}
        self._memory = {gpu: gpus.total(gpu) or None for gpu in gpus.ids}

    def fits(self, request: GpuRequest, gpu: str) -> bool:
        """Whether there is room for a worker."""
        if request.sound_only and gpu in self._gpus.quarantined:
            return False
        if self.shares.get(gpu, 0.0) + TOLERANCE < min(request.each, 1.0):
            return False
        memory = self._memory.get(gpu)
        return memory is None or request.need(self._gpus.total(gpu)) <= memory

    def take(self, request: GpuRequest, ids: Ids) -> None:
        """Gives GPUs to a worker."""
        for gpu in ids:
            self.shares[gpu] -= min(request.each, 1.0)
            memory = self._memory[gpu]
            if memory is not None:
                self._memory[gpu] = memory - request.need(self._gpus.total(gpu))

    def _left(self, gpu: str) -> float:
        """The free part of a GPU, of its memory or its share."""
        memory = self._memory[gpu]
        of_memory = memory / self._gpus.total(gpu) if memory is not None else 1.0
        return round(min(self.shares[gpu], of_memory), 6)

    def find(self, request: GpuRequest, *, spread: bool) -> Ids | None:
        """Returns the GPUs for one portion, or None."""
        several = request.each > 1
        fitting = [
            gpu
            for gpu in self.shares
            if self.fits(request, gpu) and not (several and self._gpus.is_instance(gpu))
        ]
        if len(fitting) < request.each:
            return None
        if several and request.near:
            return nearest(fitting, int(request.each), self._gpus)
        if request.each >= 1:
            if not spread:
                fitting.sort(key=self._gpus.total)
            return tuple(fitting[: int(request.each)])
        return ((max if spread else min)(fitting, key=self._left),)


def _deal(
    wanted: Sequence[GpuRequest], free: _Free, held: Held, *, spread: bool, order: _Order
) -> Dealt | None:
    given: Dealt = {}
    open_portions: list[tuple[GpuRequest, int]] = []
    for request in wanted:
        given[request.service] = [request.named] * request.workers
        if not request.named:
            kept = _keep_held(request, held.get(request.service, ()), free)
            given[request.service] = [*kept, *([()] * (request.portions - len(kept)))]
            open_portions += [(request, slot) for slot in range(len(kept), request.portions)]
    for request, slot in sorted(open_portions, key=lambda item: order(item[0])):
        found = free.find(request, spread=spread)
        if found is None:
            return None
        free.take(request, found)
        given[request.service][slot] = found
    for request in wanted:
        if request.shared:
            given[request.service] *= request.workers
    return given


def _keep_held(request: GpuRequest, held: tuple[Ids, ...], free: _Free) -> list[Ids]:
    """Takes and returns the GPUs of the first workers, as long as they fit the request."""
    kept: list[Ids] = []
    for ids in held[: request.portions]:
        whole = request.each >= 1
        fits = len(ids) == (int(request.each) if whole else 1) and len(set(ids)) == len(ids)
        if not fits or not all(free.fits(request, gpu) for gpu in ids):
            break
        free.take(request, ids)
        kept.append(ids)
    return kept


def nearest(ids: Sequence[str], count: int, gpus: GpuInventory) -> Ids:
    """Returns `count` of `ids` that are closest to each other, in the order of `ids`."""
    known = gpus.by_id

    def distance(chosen: Iterable[str]) -> int:
        return sum(
            known[one].near.get(other, _FAR) if one in known else _FAR
            for one, other in itertools.combinations(chosen, 2)
        )

    if math.comb(len(ids), count) <= _MOST_SETS:
        return min(itertools.combinations(ids, count), key=distance)
    return tuple(sorted(min(_grown(ids, count, distance), key=distance), key=ids.index))


def _grown(
    ids: Sequence[str], count: int, distance: Callable[[Iterable[str]], int]
) -> Iterator[list[str]]:
    """Yields a set for each GPU: with those that add the least distance, one after the other."""
    for first in ids:
        chosen = [first]
        while len(chosen) < count:
            rest = [each for each in ids if each not in chosen]
            chosen.append(min(rest, key=lambda each: distance([*chosen, each])))
        yield chosen
