"""In place of vLLM: a front that speaks HTTP, and an engine process that holds the model."""

from __future__ import annotations

import argparse
import multiprocessing
import time
from multiprocessing.connection import Connection
from threading import Lock

import uvicorn
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

WORDS = ("a", "server", "that", "loses", "no", "request", "answers", "every", "one")

app = FastAPI()
turn = Lock()


class Completion(BaseModel):
    """What OpenAI's API takes, as far as it is needed here."""

    prompt: str
    max_tokens: int = 8


def run_engine(requests: Connection) -> None:
    """Loads the model, then makes words of prompts."""
    time.sleep(0.2)  # the weights
    requests.send("loaded")
    while True:
        prompt, count = requests.recv()  # EOFError when the front has ended
        words = (WORDS[(len(prompt) + number) % len(WORDS)] for number in range(count))
        requests.send(" ".join(words))


@app.get("/health")
def health() -> dict[str, str]:
    """Answers as fronts do: also when the engine behind them is gone."""
    return {}


@app.post("/v1/completions")
def complete(asked: Completion) -> dict[str, object]:
    """Answers with what the engine makes of the prompt."""
    try:
        with turn:
            app.state.engine.send((asked.prompt, asked.max_tokens))
            return {"choices": [{"text": app.state.engine.recv()}]}
    except (EOFError, OSError):
        raise HTTPException(500, "the engine is gone") from None


def main() -> None:
    """Starts the engine, then the front."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    app.state.engine, theirs = multiprocessing.Pipe()
    multiprocessing.Process(target=run_engine, args=[theirs], daemon=True).start()
    theirs.close()
    app.state.engine.recv()
    uvicorn.run(app, port=parser.parse_args().port, log_level="warning")


if __name__ == "__main__":
    main()
