"""A model, as far as this sample needs one: it counts letters, slowly."""

from __future__ import annotations

import asyncio
import os

from fastapi import FastAPI

app = FastAPI()


@app.get("/healthz")
async def healthz() -> str:
    """Answers as soon as the model is there."""
    return "ok"


@app.get("/score")
async def score(text: str) -> dict[str, object]:
    """Returns the score of `text`, and where it was made."""
    await asyncio.sleep(0.02)
    return {"score": sum(map(str.isalpha, text)), "model": os.environ.get("ADDRESS", "")}
