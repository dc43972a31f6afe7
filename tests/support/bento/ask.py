"""What a client gets of the three services, as one JSON document: `python ask.py SHAPE URL`. Runs
where BentoML is, and calls with BentoML's own client beside plain HTTP.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Callable
from typing import Any

import bentoml
import httpx
import numpy as np
import websockets

DIFFERENT_EACH_TIME = ("date", "x-bentoml-request-id", "content-length")


def seen(answer: httpx.Response) -> dict[str, Any]:
    """An answer without what is never the same twice."""
    headers = {k: v for k, v in answer.headers.items() if k not in DIFFERENT_EACH_TIME}
    return {
        "status": answer.status_code,
        "headers": headers,
        "has_request_id": "x-bentoml-request-id" in answer.headers,
        "body": answer.text,
    }


def tried(call: Callable[[], Any]) -> Any:
    """What a call of BentoML's client returns, or raises."""
    try:
        found = call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return found.tolist() if isinstance(found, np.ndarray) else found


def single(url: str, raw: httpx.Client) -> dict[str, Any]:
    with bentoml.SyncHTTPClient(url) as client:
        called = {
            "summarise": tried(lambda: client.summarise(text="why does bread rise")),
            "mean": tried(lambda: client.mean(values=np.array([1.0, 2.0, 6.0]))),
            "square": tried(lambda: client.square(np.array([1.0, 2.0, 3.0]))),
            "find": tried(lambda: client.find(name="it")),
            "fail": tried(client.fail),
        }
    plain = {
        "invalid": raw.post("/summarise", json={"text": 3}),
        "missing": raw.post("/nowhere", json={}),
        "marked": raw.post("/marked", json={}),
        "wrong method": raw.get("/summarise"),
        "too slow": raw.post("/slow", json={}),
        "pickle": raw.post(
            "/find", content=b"x", headers={"content-type": "application/vnd.bentoml+pickle"}
        ),
        "cors": raw.post(
            "/summarise", json={"text": "a b"}, headers={"origin": "https://example.org"}
        ),
        "beside": raw.get("/beside/hello"),
        "livez": raw.get("/livez"),
        "readyz": raw.get("/readyz"),
        "healthz": raw.get("/healthz"),
        "docs": raw.get("/docs.json"),
        "schema": raw.get("/schema.json"),
        "page": raw.get("/"),
    }
    socket = asyncio.run(shouted(url.replace("http", "ws") + "/beside/shout"))
    metrics = {
        line.partition("{")[0]
        for line in raw.get("/metrics").text.splitlines()
        if line.startswith("bentoml_")
    }
    return {
        "called": called,
        "plain": {name: seen(answer) for name, answer in plain.items()},
        "socket": socket,
        "metrics": sorted(metrics),
    }


async def shouted(url: str) -> list[str]:
    async with websockets.connect(url) as socket:
        await socket.send("one")
        await socket.send("two")
        return [str(await socket.recv()), str(await socket.recv())]


def graph(url: str, raw: httpx.Client) -> dict[str, Any]:
    with bentoml.SyncHTTPClient(url) as client:
        rated = [client.rate(text="why does bread rise" + " x" * n) for n in range(5)]
        about = client.about()
    shown = raw.get("/metrics").text
    return {
        "rated": rated,
        "shade": about["shade"],
        "readyz": seen(raw.get("/readyz")),
        "counts inner services": 'service_name="Tokenizer"' in shown,
    }


def streaming(url: str, raw: httpx.Client) -> dict[str, Any]:
    with bentoml.SyncHTTPClient(url) as client:
        counted, spelled = list(client.count(upto=4)), list(client.spell(word="bread"))
    # the task's routes as they are: submitting by BentoML 1.4.39's client fails in the client
    submitted = raw.post("/reverse/submit", json={"text": "bread"})
    task = {"task_id": submitted.json()["task_id"]}
    end = time.monotonic() + 90
    while (status := raw.get("/reverse/status", params=task).json())["status"] == "in_progress":
        assert time.monotonic() < end
        time.sleep(0.02)
    result = raw.get("/reverse/get", params=task)
    again = raw.post("/reverse/retry", params=task)
    with raw.stream("POST", "/count", json={"upto": 2}) as answer:
        answer.read()
        streamed = seen(answer)
    unknown = raw.get("/reverse/get", params={"task_id": "nobody"})
    return {
        "counted": "".join(counted),
        "spelled": "".join(spelled),
        "task": [status["status"], seen(result), submitted.status_code, again.status_code],
        "streamed": streamed,
        "unknown": seen(unknown),
    }


def main() -> None:
    shape, url = sys.argv[1:]
    with httpx.Client(base_url=url, timeout=90) as raw:
        found = {"single": single, "graph": graph, "streaming": streaming}[shape](url, raw)
    json.dump(found, sys.stdout, default=lambda value: value.model_dump())


if __name__ == "__main__":
    main()
