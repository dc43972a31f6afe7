"""Applications, programs and configurations that tests share."""

from __future__ import annotations

PLAIN = """
    import asyncio, os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        if scope["path"] == "/held":
            print("held", flush=True)
            while not os.path.exists("go"):
                await asyncio.sleep(0.01)
        body = os.environ.get("V", "").encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""

HOLD = "while os.path.exists('hold'): time.sleep(0.01)"
"""A statement for `plain` that lasts as long as there is a file `hold`."""

OK = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
"""
"""As little as an app can do: it says "ok"."""

PID = """
    import asyncio, os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        if scope["path"] == "/slow":
            await asyncio.sleep(2)
        body = str(os.getpid()).encode()
        await send({"type": "http.response.start", "status": 200,
                    "headers": [(b"content-length", str(len(body)).encode())]})
        await send({"type": "http.response.body", "body": body})
"""
"""Says which worker answers."""

PID_IN_A_CHUNK = """
    import os

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""

LASTING = """
    import asyncio, hashlib, os
    from fastapi import FastAPI, Request, WebSocket
    from fastapi.responses import StreamingResponse

    app = FastAPI()

    @app.websocket("/echo")
    async def echo(socket: WebSocket):
        await socket.accept()
        async for text in socket.iter_text():
            await socket.send_text(text)

    @app.get("/stream")
    async def stream(count: int):
        async def lines():
            for number in range(count):
                yield f"data: {number}\\n\\n"
                await asyncio.sleep(0.1)
        return StreamingResponse(lines(), media_type="text/event-stream")

    @app.get("/ticks")
    async def ticks(media: str = "text/event-stream"):
        async def lines():
            try:
                while True:
                    yield "data: tick\\n\\n"
                    await asyncio.sleep(0.05)
            finally:
                print("stream ended")
        return StreamingResponse(lines(), media_type=media)

    @app.post("/upload")
    async def upload(request: Request):
        digest = hashlib.sha256()
        async for chunk in request.stream():
            digest.update(chunk)
        return digest.hexdigest()

    @app.get("/")
    async def value():
        return os.environ["V"]

    @app.get("/slow")
    async def slow(seconds: float):
        print("slow begins")
        await asyncio.sleep(seconds)
        return os.environ["V"]
"""
"""What lasts: WebSockets, event streams with and without an end, uploads, and slow requests."""

CALLER = """
    import servd

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        answer = await servd.depends("backend").get(scope["path"])
        body = answer.content
        status, headers = answer.status_code, [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


SLEEP = 'command = ["sleep", "1000"]'

BINDS_ITSELF = (
    "import http.server, sys, time; time.sleep(float(sys.argv[2]));"
    "http.server.ThreadingHTTPServer(('127.0.0.1', int(sys.argv[1])),"
    " http.server.SimpleHTTPRequestHandler).serve_forever()"
)
"""Python code of a server: its arguments are a port, and the seconds that it takes to start."""


def plain(at_import: str) -> str:
    """`PLAIN` that runs a statement when it is imported."""
    first = "import asyncio, os"
    return PLAIN.replace(first, f"{first}, time\n    {at_import}", 1)


def web(
    value: object = 1, *, listen: str = "127.0.0.1:0", workers: int = 2, extra: str = ""
) -> str:
    """One service whose answers say `value`."""
    return f"""
        [services.web]
        app = "main:app"
        listen = "{listen}"
        workers = {workers}
        log.access = false
        env = {{ V = "{value}" }}
        {extra}
    """


def named(name: str, port: int) -> str:
    """A service at a port whose answers say its name."""
    return f"""
        [services.{name}]
        app = "main:app"
        listen = "127.0.0.1:{port}"
        log.access = false
        env = {{ V = "{name}" }}
    """
