from __future__ import annotations

import os

from fastapi import FastAPI, Request

app = FastAPI(title="api")


@app.get("/hello")
async def hello(request: Request, name: str = "world") -> dict[str, str | int | None]:
    client = request.client.host if request.client else None
    return {"hello": name, "client": client, "pid": os.getpid()}
