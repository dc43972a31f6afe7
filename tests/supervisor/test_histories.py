"""Random histories: reloads, failures, deaths and cancellations in any order end well.

SERVD_TEST_SEEDS=2000 tries more of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random

import pytest

from servd.core.events import Event
from servd.supervisor.apply.mode import MANUAL, RELOAD
from servd.supervisor.apply.transaction import ApplyError

from support.fake_worker import NEVER, Fakes, Fleet, Script
from support.virtual_time import virtual_time

SEEDS = range(int(os.environ.get("SERVD_TEST_SEEDS", "25")))

ALONE = 'command = ["sleep", "9"]\nlisten = "127.0.0.1:4567"\nactivation = "self"\nready = "notify"'
APP = 'app = "main:app"\nlisten = "127.0.0.1:0"'
NEEDS = {"web": ["api", "job"], "api": ["db"], "db": [], "job": [], "alone": ["db"]}
"""Services, with what they may depend on."""

KEYS = "timeouts.startup = 8\ntimeouts.drain = 10\nrestart.backoff_max = 20"


class History:
    """One history, as a seed has it."""

    def __init__(self, fakes: Fakes, seed: int) -> None:
        self.fakes = fakes
        self.fleet = Fleet(fakes)
        self.random = random.Random(seed)

    def text(self) -> str:
        """A configuration."""
        pick = self.random.choice
        names = [name for name in NEEDS if self.random.random() < 0.8] or ["db"]
        parts = []
        for name in names:
            needs = [other for other in NEEDS[name] if other in names and pick((0, 1, 1))]
            lines = [f"[services.{name}]", KEYS, f"depends_on = {needs}"]
            if name == "alone":
                lines.append(ALONE)
            elif name == "job":
                lines.append(f'command = ["sleep", "9"]\nkind = "task"\nrun = "{pick(RUNS)}"')
            else:
                lines += [APP, f'rollout.strategy = "{pick(("surge", "one-by-one"))}"']
                lines.append(f"rollout.max_surge = {pick((1, 2, 9))}")
                lines.append(f"workers = {pick((0, 1, 1, 2, 3))}")
                lines.append(f'log.level = "{pick(("info", "debug"))}"')
            lines.append(f'env = {{ A = "{pick("123")}" }}')
            parts.append("\n".join(lines))
        return "\n".join(parts)

    def behave(self, chance: float) -> None:
        """Workers behave well from now on, or with a `chance` not."""
        for name in NEEDS:
            scripts = [self._script(name, chance) for _ in range(12)]
            self.fakes.plays(name, *scripts)

    def _script(self, name: str, chance: float) -> Script:
        pick = self.random.choice
        bad = self.random.random() < chance
        if name == "job":
            return Script(0.0, dies_after=pick((0.5, 3.0)), status=int(bad))
        if not bad:
            return Script(pick((0.5, 1.0, 3.0)), drains_for=pick((0.1, 0.5, 9.0)))
        return pick((
            Script(ready_after=NEVER, dies_after=pick((0.0, 0.5, 5.0))),
            Script(ready_after=NEVER),
            Script(dies_after=pick((1.0, 1.5, 6.0))),
            Script(drains_for=NEVER),
            Script(answers="no"),
            Script(answers=NEVER),
            Script(spawned=OSError(2, "No such file")),
            Script(spawned=OSError(24, "Too many open files")),
        ))  # fmt: skip

    async def step(self) -> None:
        """Something happens."""
        pick = self.random.choice
        what = pick(("reload", "reload", "reload", "cancel", "death", "recycle", "pause"))
        alive = [worker for worker in self.fakes.workers if worker.is_alive()]
        if what == "reload":
            await self._reload(self.text(), None)
        elif what == "cancel":
            await self._reload(self.text(), pick((0.0, 0.3, 1.0, 2.0, 5.0)))
        elif what == "death" and alive:
            pick(alive).die(pick((0, 1, -9)))
        elif what == "recycle" and alive:
            pick(alive).ask_to_be_recycled()
        else:
            await asyncio.sleep(pick((0.1, 1.0, 15.0)))

    async def _reload(self, text: str, cancel_after: float | None) -> None:
        supervisor = self.fleet.supervisor
        before = (supervisor.plan, set(supervisor.services))
        self.behave(self.random.choice((0.0, 0.2, 0.6)))
        mode = self.random.choice((RELOAD, MANUAL))
        applying = asyncio.ensure_future(self.fleet.apply(text, mode))
        if cancel_after is not None:
            await asyncio.sleep(cancel_after)
            applying.cancel()
        try:
            await applying
        except ApplyError:
            assert (supervisor.plan, set(supervisor.services)) == before
        except asyncio.CancelledError:
            assert cancel_after is not None
        assert {s.name for s in supervisor.plan.services} == set(supervisor.services)
        assert all(service.upcoming is None for service in supervisor.services.values())

    def check(self) -> None:
        """All is as the plan says, and nothing else is there."""
        services = self.fleet.supervisor.services
        for name, service in services.items():
            plan, alive = service.plan, self.fakes.alive(name)
            assert plan == self.fleet.supervisor.plan.service(name)
            if plan.workers == 0:
                assert (service.state, alive) == ("stopped", []), name
                continue
            if service.state == "waiting":  # for what is kept stopped, or waits itself
                needed = [services[d.service].state for d in plan.depends_on]
                assert {"stopped", "waiting"} & set(needed), (name, service.error)
                assert not alive
                continue
            assert service.current is not None
            assert {w.launch.generation for w in alive} <= {service.current.number}, name
            assert not service.draining, name
            if plan.is_task:
                assert service.state == "completed", name
                continue
            assert service.state == "ready", (name, service.state, service.error)
            assert sorted(w.slot for w in alive) == list(range(plan.workers)), name
            assert all(w.accepting for w in alive), name
            assert all(w.launch.plan.environment["A"] == plan.environment["A"] for w in alive)
        wanted = {s.key for service in services.values() if service.plan.workers
                  for s in service.plan.sockets}  # fmt: skip
        assert len(self.fleet.context.pool.bound) == len(wanted)
        assert not self.fleet.supervisor.leaving
        gone = {w.launch.plan.name for w in self.fakes.workers if w.is_alive()} - set(services)
        assert not gone


RUNS = ("once", "always")


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_happens_all_is_well_in_the_end(fakes: Fakes, seed: int) -> None:
    @virtual_time
    async def test() -> None:
        history = History(fakes, seed)
        supervisor = history.fleet.supervisor
        history.behave(history.random.choice((0.0, 0.3, 0.8)))
        await history.fleet.start(history.text())
        for _ in range(history.random.randint(1, 8)):
            await history.step()
        if history.random.random() < 0.8:
            history.behave(0.0)
            with contextlib.suppress(ApplyError):
                await history.fleet.apply(history.text())
            history.behave(0.0)
            supervisor.retry(supervisor.services)
            await asyncio.sleep(200.0)
            supervisor.retry(supervisor.services)
            await asyncio.sleep(200.0)
            history.check()
        history.fleet.context.stopping.set()
        await supervisor.stop(history.random.choice((0.0, 5.0, 500.0)))
        assert not [worker for worker in fakes.workers if worker.is_alive()]
        assert not history.fleet.context.pool.bound
        assert not history.fleet.context.arbiter.watchers

    test()
    assert not fakes.logged(Event.INTERNAL_ERROR)
