"""An app with a model of PyTorch. Without PyTorch it counts words, so that it can be tried."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel

try:
    import torch
except ImportError:
    torch = None

GOOD = ("good", "great", "fast", "love", "nice")
BAD = ("bad", "slow", "hate", "broken", "lost")


class Text(BaseModel):
    """What is judged."""

    text: str


class Model:
    """Counts good and bad words by a product of matrices on the GPU that this worker was given."""

    def __init__(self) -> None:
        self.weights = [1.0] * len(GOOD) + [-1.0] * len(BAD)
        self.device = "none"
        if torch is not None:
            self.device = "cuda" if torch.cuda.is_available() else "cpu"
            self.tensor = torch.tensor(self.weights, device=self.device)

    def predict(self, text: str) -> float:
        """Returns a score."""
        words = text.lower().split()
        counts = [float(words.count(word)) for word in GOOD + BAD]
        if torch is None:
            return sum(map(float.__mul__, counts, self.weights))
        with torch.inference_mode():
            return float(torch.tensor(counts, device=self.device) @ self.tensor)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Loads the model: the worker is ready afterwards."""
    app.state.model = Model()
    yield


app = FastAPI(lifespan=lifespan)


@app.post("/predict")
def predict(given: Text) -> dict[str, object]:
    """Judges a text: in a thread, so that the event loop goes on."""
    return {
        "score": app.state.model.predict(given.text),
        "worker": os.environ["SERVD_WORKER"],
        "gpu": os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    }
