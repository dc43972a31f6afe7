"""Applications and configurations that the tests of reloading share."""

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
