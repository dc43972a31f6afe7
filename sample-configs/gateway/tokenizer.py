"""Tokens, sentences and search terms of a text."""

from __future__ import annotations

import words
from fastapi import FastAPI
from models import Process, TokenOut, TokensAnswer, TokensRequest

app = FastAPI(title="tokenizer")


@app.post("/tokens")
async def tokens(request: TokensRequest) -> TokensAnswer:
    return TokensAnswer(
        tokens=[TokenOut(**token._asdict()) for token in words.tokens(request.text)],
        sentences=words.sentences(request.text),
        terms=words.terms(request.text),
        process=Process.this("tokenizer"),
    )


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}
