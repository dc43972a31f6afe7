"""Configurations and apps for tests on Ray."""

from __future__ import annotations

ROLLING = """
    [services.web]
    app = "counted:app"
    listen = "127.0.0.1:{port}"
    workers = 2
    env = { VERSION = "VALUE" }
    health = { path = "/healthz", interval = "1s", timeout = "TIMEOUT" }
    timeouts = { drain = "20s" }
"""

COUNTED = """
import os

async def app(scope, receive, send):
    body = os.environ["VERSION"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})
"""

FEATURES = """
    [services.features]
    app = "features:app"
    listen = "127.0.0.1:{port}"
    depends_on = ["inner", "limited", "wsgi"]
    timeouts = { request = "5s" }
    env_passthrough = ["FROM_THE_NODE"]

    [services.inner]
    app = "inner:app"

    [services.limited]
    app = "inner:app"
    limits = { concurrency = 1 }
    health = { path = "/healthz" }

    [services.wsgi]
    app = "wsgi:create"
    factory = true
"""

FEATURES_APP = """
import asyncio
import contextlib
import os

import httpx
from fastapi import FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse

import servd


@contextlib.asynccontextmanager
async def lifespan(app):
    yield {"model": "loaded"}


app = FastAPI(lifespan=lifespan)
released = asyncio.Event()
cancelled = asyncio.Event()
inner, limited, wsgi = map(servd.depends, ("inner", "limited", "wsgi"))


@app.get("/state")
async def state(request: Request):
    return {
        "state": request.state.model, "service": os.environ["SERVD_SERVICE"],
        "node": os.environ.get("FROM_THE_NODE"),
    }


async def events():
    yield "data: one\\n\\n"
    await released.wait()
    yield "data: two\\n\\n"


@app.get("/events")
async def sse():
    return StreamingResponse(events(), media_type="text/event-stream")


@app.get("/events/inner")
async def sse_of_inner():
    async def through():
        async with inner.stream("GET", "/events") as answer:
            async for line in answer.aiter_lines():
                yield line + "\\n"

    return StreamingResponse(through(), media_type="text/event-stream")


@app.post("/release")
async def release():
    released.set()
    return (await inner.post("/release")).json()


@app.get("/never")
async def never():
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


@app.get("/cancelled")
async def was_cancelled():
    return cancelled.is_set()


@app.get("/late")
async def late():
    try:
        await inner.get("/never", timeout=0.5)
    except httpx.ReadTimeout as error:
        return {"error": str(error), "cancelled": (await inner.get("/cancelled")).json()}


@app.get("/ids")
async def ids(request: Request):
    there = await inner.get("/ids")
    return {"here": request.headers["x-request-id"], "there": there.json()}


@app.get("/sync")
def in_a_thread():
    client = servd.depends_sync("inner")
    with client.stream("GET", "/pieces") as answer:
        pieces = list(answer.iter_text())
    return {"ids": client.get("/ids").json()["id"], "pieces": "".join(pieces)}


@app.get("/wsgi")
async def through_wsgi():
    return (await wsgi.get("/a/b?c=d")).json()


@app.get("/limits")
async def limits():
    holding = asyncio.create_task(limited.get("/hold"))
    while not (await limited.get("/healthz")).json()["held"]:
        await asyncio.sleep(0.05)
    refused = await limited.get("/ids")
    holding.cancel()
    return {"status": refused.status_code, "retry_after": refused.headers.get("retry-after")}


@app.post("/size")
async def size(request: Request):
    return (await inner.post("/size", content=await request.body())).json()


@app.websocket("/ws")
async def echo(socket: WebSocket):
    await socket.accept()
    while True:
        await socket.send_text("echo " + await socket.receive_text())


@app.exception_handler(httpx.HTTPError)
async def failed(request, error):
    return JSONResponse({"error": str(error)}, 502)
"""

INNER_APP = """
import asyncio

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

app = FastAPI()
released = asyncio.Event()
cancelled = asyncio.Event()
held = asyncio.Event()


@app.get("/events")
async def sse():
    async def events():
        yield "data: one\\n\\n"
        await released.wait()
        yield "data: two\\n\\n"

    return StreamingResponse(events(), media_type="text/event-stream")


@app.post("/release")
async def release():
    released.set()
    return "released"


@app.get("/never")
async def never():
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.set()


@app.get("/hold")
async def hold():
    held.set()
    await asyncio.Event().wait()


@app.get("/healthz")
async def healthz():
    return {"held": held.is_set()}


@app.get("/cancelled")
async def was_cancelled():
    return cancelled.is_set()


@app.get("/ids")
async def ids(request: Request):
    return {"id": request.headers["x-request-id"], "trace": request.headers["traceparent"]}


@app.get("/pieces")
async def pieces():
    return StreamingResponse((str(n) for n in range(5)), media_type="text/plain")


@app.post("/size")
async def size(request: Request):
    return len(await request.body())
"""

WSGI_APP = """
import json

def create():
    def app(environ, start):
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps([environ["PATH_INFO"], environ["QUERY_STRING"]]).encode()]
    return app
"""

SCALED = """
    [services.web]
    app = "held:app"
    listen = "127.0.0.1:{port}"
    autoscale = { min = 1, max = 3, target_in_flight = 2, up_after = "2s", down_after = "5s" }
"""

HELD = """
import asyncio

async def app(scope, receive, send):
    await asyncio.sleep(2)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"held"})
"""
