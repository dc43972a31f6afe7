"""What is measured of the servers, each interleaved: A B C ... C B A."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bursts import burst
from many import Daemon
from overhead import EVERYTHING, PARTS

from harness import places, proc, wrk
from harness.running import FASTAPI, RAW, MeasurementError, Running, ask, ready, running
from harness.servers import BEFORE, SERVD, UVICORN, Server, Setting
from harness.tables import Column, Result

T = TypeVar("T")
CPUS = sorted(os.sched_getaffinity(0))
BURSTS = tuple((connections, apart) for connections in (32, 64) for apart in (0.0, 0.005))
"""Connections of a burst, and seconds between two of them."""
_TEMPLATE_SECONDS = 7.0
"""Time in which a template of servd that is idle has ended."""

KILL_SECONDS = 20.0
"""How long a killed worker may be missed."""


@dataclass(frozen=True)
class Plan:
    """How often everything is measured: rounds, each of which goes forwards and backwards."""

    starts: int
    kills: int
    bursts: int
    loads: int
    seconds: float
    places: int
    many: int
    overhead: int
    many_back: bool = True
    pin: bool = False


QUICK = Plan(
    starts=1, kills=1, bursts=2, loads=1, seconds=1.0, places=1, many=1, many_back=False, overhead=3
)
FULL = Plan(4, 4, 5, loads=4, seconds=2.0, places=3, many=1, overhead=8)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def interleaved(
    result: Result,
    subjects: Mapping[str, T],
    rounds: int,
    once: Callable[[T], Mapping[str, float]],
    *,
    back: bool = True,
) -> None:
    """Measures all subjects forwards and backwards; one that fails is not asked again."""
    names = list(subjects)
    for name in [*names, *(reversed(names) if back else ())] * rounds:
        if name in result.failed:
            continue
        try:
            result.add(name, once(subjects[name]))
        except (Exception, SystemExit) as error:  # one cell fails, the others go on
            result.failed[name] = str(error) or type(error).__name__
            say(f"{result.name}: {name}: {result.failed[name]}")


def up(
    stack: contextlib.ExitStack, results: Sequence[Result], servers: Sequence[Server], what: Setting
) -> dict[str, Running]:
    """All servers, each ready until the stack ends; those that do not start fail in the results."""
    found: dict[str, Running] = {}
    for server in servers:
        try:
            found[server.name] = stack.enter_context(ready(server, what))
        except Exception as error:
            for result in results:
                result.failed[server.name] = str(error)
            say(f"{results[0].name}: {server.name}: {error}")
    return found


def start(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """The first answer, and the memory at rest."""
    result = Result(
        "start",
        "First answer and memory",
        "Four workers, a FastAPI app. Seconds from exec to the first 200; then every worker"
        " answers, and memory (PSS, MiB) is read at rest: of all processes, and of those that serve"
        " nobody. At rest is a second later, or seven with servd, whose template ends meanwhile.",
        (
            Column("first", "first answer, s"),
            Column("memory", "memory, MiB", 1),
            Column("supervisor", "of the supervisor, MiB", 1),
        ),
    )

    def once(server: Server) -> Mapping[str, float]:
        with running(server, Setting(FASTAPI, workers=4)) as one:
            first = one.first_answer()
            one.all_workers(4)
            time.sleep(_TEMPLATE_SECONDS if server.is_servd else 1.0)
            others = one.others()
            alone = proc.pss_mib(others)
            everything = alone + proc.pss_mib(one.workers)
            return {"first": first, "memory": everything, "supervisor": alone}

    interleaved(result, {server.name: server for server in servers}, plan.starts, once)
    return [result]


def kill(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """What the end of the only worker costs."""
    result = Result(
        "kill",
        "A killed worker",
        "`kill -9` of the only worker, while a client asks 100 times a second on new connections."
        " Seconds until another worker has answered, and the requests that were refused or reset,"
        " or had no answer after 10 s. `uvicorn` with one worker has no supervisor.",
        (Column("again", "next answer, s"), Column("lost", "lost requests", 0)),
    )

    def once(server: Server) -> Mapping[str, float]:
        with ready(server, Setting(FASTAPI, workers=1)) as one:
            return asyncio.run(killed(one))

    interleaved(result, {server.name: server for server in servers}, plan.kills, once)
    return [result]


async def killed(one: Running) -> Mapping[str, float]:
    """Kills the worker; asks until 0.5 s after the next answer."""
    (victim,) = one.workers
    lost = 0
    again = asyncio.get_running_loop().create_future()

    async def client() -> None:
        nonlocal lost
        try:
            pid = await ask(one.port, 10)
        except (OSError, EOFError, ValueError):
            lost += 1
        else:
            if pid != victim and not again.done():
                again.set_result(time.monotonic())

    asked: list[asyncio.Task[None]] = []
    began = last = time.monotonic()
    struck = 0.0
    while time.monotonic() < last + 0.5:
        if not struck and time.monotonic() > began + 0.3:
            os.kill(victim, signal.SIGKILL)
            struck = time.monotonic()
        asked.append(asyncio.create_task(client()))
        await asyncio.sleep(0.01)
        if not again.done():
            last = time.monotonic()
            if struck and (one.process.poll() is not None or last > struck + KILL_SECONDS):
                break
    await asyncio.gather(*asked)
    if not again.done():
        raise MeasurementError("no worker comes after it")
    return {"again": again.result() - struck, "lost": lost}


def bursts(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """How evenly new connections are spread."""
    results = []
    for workers in (2, 4):
        patterns = {f"{n}-{gap}": (n, gap) for n, gap in BURSTS}
        result = Result(
            f"bursts-{workers}",
            f"Bursts on {workers} workers",
            "Connections that arrive at once or 5 ms apart, each of which asks once and stays open:"
            " the load of the busiest worker divided by the mean.",
            tuple(
                Column(key, f"{n} {f'{gap * 1000:g} ms apart' if gap else 'at once'}")
                for key, (n, gap) in patterns.items()
            ),
        )

        def once(
            one: Running,
            workers: int = workers,
            patterns: Mapping[str, tuple[int, float]] = patterns,
        ) -> Mapping[str, float]:
            return {
                key: asyncio.run(asyncio.wait_for(burst(one.port, workers, n, gap), 30))
                for key, (n, gap) in patterns.items()
            }

        with contextlib.ExitStack() as stack:
            started = up(stack, [result], servers, Setting(RAW, workers))
            interleaved(result, started, plan.bursts, once)
        results.append(result)
    return results


def throughput(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """Requests per second and the CPU time that they take."""
    results = []
    for access_log in (False, True):
        named = "with access log" if access_log else "without access log"
        result = Result(
            "throughput-log" if access_log else "throughput",
            f"Throughput, {named}",
            f"Two workers, a FastAPI app, `wrk -c32` on the same machine, {named}"
            f"{' (to /dev/null)' if access_log else ''}. CPU time (µs) for each request, of the"
            " workers and of all other processes of the server.",
            (
                Column("per_second", "requests/s", 0),
                Column("cpu", "CPU of workers, µs", 1),
                Column("cpu", "CPU over uvicorn", 3, over=UVICORN),
                Column("supervisor", "CPU of the supervisor, µs", 1),
                Column("errors", "errors", 0),
            ),
        )
        with contextlib.ExitStack() as stack:
            what = Setting(FASTAPI, workers=2, access_log=access_log)
            started = up(stack, [result], servers, what)
            loaded(result, started, plan.loads, plan, 32)
        results.append(result)
    return results


def loaded(
    result: Result, started: Mapping[str, Running], rounds: int, plan: Plan, connections: int
) -> None:
    """wrk asks all that are up."""
    if plan.pin and len(CPUS) > 1:
        for one in started.values():
            for pid in one.workers:
                os.sched_setaffinity(pid, CPUS[:1])
    cpus = CPUS[1:] if plan.pin else []

    def once(one: Running) -> Mapping[str, float]:
        url, others = f"http://127.0.0.1:{one.port}/ping", one.others()
        before = proc.cpu_seconds(one.workers), proc.cpu_of_each(others)
        load = wrk.load(url, plan.seconds, connections, cpus)
        spent = proc.cpu_seconds(one.workers) - before[0]
        after = proc.cpu_of_each(others)  # one that is not needed any more may have ended
        beside = sum(after.get(pid, seconds) - seconds for pid, seconds in before[1].items())
        return {
            "per_second": load.per_second,
            "cpu": spent / load.requests * 1e6,
            "supervisor": beside / load.requests * 1e6,
            "errors": load.errors,
        }

    warm = Result(result.name, "", "", ())
    interleaved(warm, started, 1, once)
    result.failed |= warm.failed
    interleaved(result, started, rounds, once)


def overhead(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """What servd adds to a request of an app that does nothing."""
    results = []
    chosen = [server for server in servers if server.is_servd or server.name == UVICORN]
    lines = tuple(line for line in PARTS[EVERYTHING] if not line.startswith("log"))
    for name, logs in (("overhead", "no access log"), ("overhead-log", "an access log")):
        result = Result(
            name,
            f"CPU per request without a framework, {logs}",
            f"One worker, an ASGI app that does nothing, `wrk -c32`; servd with {logs}, with"
            " metrics, deadlines and a limit of concurrency, uvicorn with nothing.",
            (
                Column("cpu", "CPU of workers, µs", 1),
                Column("cpu", "CPU over uvicorn", 3, over=UVICORN),
                Column("per_second", "requests/s", 0),
            ),
        )
        with contextlib.ExitStack() as stack:
            started: dict[str, Running] = {}
            for server in chosen:
                logged = server.is_servd and name == "overhead-log"
                what = Setting(RAW, 1, access_log=logged, lines=lines)
                started |= up(stack, [result], [server], what)
            loaded(result, started, plan.overhead, plan, 32)
        results.append(result)
    return results


def one_place(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """Whether requests wait for a busy worker beside an idle one."""
    results = []
    for workers in (2, 3):
        result = Result(
            f"places-{workers}",
            f"{workers} workers with one place each",
            f"servd with `limits.concurrency = 1` and {workers} workers; as many clients, each of"
            " which asks for 50 ms of work on a new connection, pauses, and asks again. Percent of"
            " the requests that were refused, or reached the app after more than 10 ms, though a"
            " worker was idle.",
            (
                Column("refused", "refused, %"),
                Column("waited", "waited, %"),
                Column("asked", "requests", 0),
            ),
        )

        def once(one: Running, workers: int = workers) -> Mapping[str, float]:
            return asyncio.run(places.asked(one.port, workers, plan.seconds * 3))

        chosen = [server for server in servers if server.is_servd]
        with contextlib.ExitStack() as stack:
            what = Setting(places.APP, workers, lines=("limits = { concurrency = 1 }",))
            started = up(stack, [result], chosen, what)
            interleaved(result, started, plan.places, once)
        results.append(result)
    return results


def many(servers: Sequence[Server], plan: Plan) -> list[Result]:
    """How long many services take to be ready."""
    result = Result(
        "many",
        "Many services",
        "100 services with 200 workers, in chains of four, an app without a framework: seconds"
        " until all are ready, and until all have ended.",
        (Column("ready", "ready, s", 1), Column("stopped", "stopped, s", 1)),
    )

    def once(server: Server) -> Mapping[str, float]:
        with tempfile.TemporaryDirectory(prefix="sm", dir="/tmp") as folder:
            daemon = Daemon(Path(folder), 100, 2, str(server.python))
            try:
                ready_after = daemon.until_ready()
                return {"ready": ready_after, "stopped": daemon.stop()}
            finally:
                if daemon.process.poll() is None:
                    daemon.process.kill()
                    daemon.process.wait()

    chosen = {server.name: server for server in servers if server.name in (SERVD, BEFORE)}
    interleaved(result, chosen, plan.many, once, back=plan.many_back)
    return [result]


MEASUREMENTS: dict[str, Callable[[Sequence[Server], Plan], list[Result]]] = {
    "kill": kill,  # first: every server has been started before its start is measured
    "start": start,
    "bursts": bursts,
    "throughput": throughput,
    "overhead": overhead,
    "places": one_place,
    "many": many,
}
