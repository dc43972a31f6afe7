"""A service of BentoML 1.1: an API server with two runners, one of them inside it."""

from __future__ import annotations

import os
import time
import typing as t

import bentoml
from bentoml.io import JSON, Text

SHADE = os.environ.get("SHADE", "none")  # at import: a strategy's variables are there before


class TwoShades(bentoml.legacy.Strategy):
    """Two workers, each with variables of its own."""

    @classmethod
    def get_worker_count(cls, *_: t.Any) -> int:
        return 2

    @classmethod
    def get_worker_env(cls, *given: t.Any) -> dict[str, t.Any]:
        return {"SHADE": f"shade-{given[-1]}", "CUDA_VISIBLE_DEVICES": str(given[-1])}


class Doubler(bentoml.legacy.Runnable):
    SUPPORTED_RESOURCES = ("cpu",)
    SUPPORTS_CPU_MULTI_THREADING = True

    @bentoml.legacy.Runnable.method(batchable=True)
    def double(self, numbers: list[int]) -> list[list[int]]:
        time.sleep(0.02)
        return [[2 * number, len(numbers)] for number in numbers]

    @bentoml.legacy.Runnable.method(batchable=False)
    def about(self, name: str) -> dict[str, t.Any]:
        return {"pid": os.getpid(), "shade": SHADE, "gpu": os.environ.get("CUDA_VISIBLE_DEVICES")}

    @bentoml.legacy.Runnable.method()
    async def count(self, upto: int) -> t.AsyncGenerator[str, None]:
        for number in range(upto):
            yield f"{number} "


class Echo(bentoml.legacy.Runnable):
    SUPPORTED_RESOURCES = ("cpu",)
    SUPPORTS_CPU_MULTI_THREADING = True

    @bentoml.legacy.Runnable.method(batchable=False)
    def echo(self, text: str) -> str:
        return f"{text} {os.getpid()}"


doubler = bentoml.legacy.Runner(Doubler, name="doubler", scheduling_strategy=TwoShades)
echo = bentoml.legacy.Runner(Echo, name="echo", embedded=True)
svc = bentoml.legacy.Service("old-one", runners=[doubler, echo])


@svc.api(input=JSON(), output=JSON())
async def double(number: int) -> list[int]:
    return (await doubler.double.async_run([number]))[0]


@svc.api(input=JSON(), output=JSON())
async def about(_: t.Any) -> dict[str, t.Any]:
    return {**await doubler.about.async_run(""), "server": os.getpid()}


@svc.api(input=JSON(), output=Text())
async def count(upto: int) -> t.AsyncGenerator[str, None]:
    return doubler.count.async_stream(upto)


@svc.api(input=Text(), output=Text())
async def repeat(text: str) -> str:
    return await echo.echo.async_run(text)


def note(word: str) -> None:
    with open("hooks", "a") as file:
        file.write(f"{word}\n")


@svc.on_deployment
def deployed() -> None:
    note("deployed")


@svc.on_startup
def started(_: bentoml.Context) -> None:
    note("started")


@svc.on_shutdown
def stopped(_: bentoml.Context) -> None:
    note("stopped")
