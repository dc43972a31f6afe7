"""What the users of the shop reach: it asks a model, on whichever host that is."""

from __future__ import annotations

import os

from fastapi import FastAPI

import servd

app = FastAPI()


@app.get("/")
async def index(text: str = "fresh bread") -> dict[str, object]:
    """Returns the answer of a model, and where both ran."""
    answer = await servd.depends("model").get("/score", params={"text": text})
    answer.raise_for_status()
    return {**answer.json(), "web": os.environ.get("ADDRESS", "")}
