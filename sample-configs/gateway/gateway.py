"""The public side: a search that asks the tokenizer first and the ranker then."""

from __future__ import annotations

from typing import Annotated, TypeVar

import httpx
from fastapi import FastAPI, Query, Request
from fastapi.responses import JSONResponse
from models import (
    Limit,
    Process,
    RankAnswer,
    RankRequest,
    SearchAnswer,
    SearchRequest,
    Text,
    TokensAnswer,
    TokensRequest,
)
from pydantic import BaseModel

import servd

Answer = TypeVar("Answer", bound=BaseModel)

tokenizer = servd.depends("tokenizer")
ranker = servd.depends("ranker")

app = FastAPI(title="gateway")


@app.post("/search")
async def search(request: SearchRequest) -> SearchAnswer:
    text = TokensRequest(text=request.query)
    found = await ask(tokenizer, "/tokens", text, TokensAnswer)
    terms = RankRequest(terms=found.terms, limit=request.limit)
    ranked = await ask(ranker, "/rank", terms, RankAnswer)
    return SearchAnswer(
        query=request.query,
        tokens=found.tokens,
        terms=found.terms,
        method=ranked.method,
        documents=ranked.documents,
        answered_by=[Process.this("gateway"), found.process, ranked.process],
    )


@app.get("/search")
async def search_by_url(q: Annotated[Text, Query()], limit: Limit = 3) -> SearchAnswer:
    return await search(SearchRequest(query=q, limit=limit))


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}


async def ask(
    service: httpx.AsyncClient, path: str, body: BaseModel, answer: type[Answer]
) -> Answer:
    response = await service.post(path, json=body.model_dump())
    response.raise_for_status()
    return answer.model_validate_json(response.content)


@app.exception_handler(httpx.HTTPError)
async def upstream_failed(_: Request, error: httpx.HTTPError) -> JSONResponse:
    detail = f"{type(error).__name__}: {error}"
    return JSONResponse({"detail": detail}, status_code=502)
