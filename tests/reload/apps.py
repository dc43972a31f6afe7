"""Applications and configurations that the tests of reloading share."""

from __future__ import annotations

PLAIN = """
    import asyncio, os

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        if scope["path"] == "/slow":
            await asyncio.sleep(1)
        body = os.environ.get("V", "").encode()
        headers = [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""

CALLER = """
    import servd

    async def app(scope, receive, send):
        if scope["type"] == "lifespan":
            while True:
                message = await receive()
                await send({"type": message["type"] + ".complete"})
                if message["type"] == "lifespan.shutdown":
                    return
        answer = await servd.depends("backend").get(scope["path"])
        body = answer.content
        status, headers = answer.status_code, [(b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
"""


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
