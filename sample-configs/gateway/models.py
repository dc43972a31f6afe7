"""What the three services say to each other."""

from __future__ import annotations

import os
from typing import Annotated

from pydantic import BaseModel, Field
from words import Kind

Text = Annotated[str, Field(min_length=1, max_length=10_000)]
Limit = Annotated[int, Field(ge=1, le=50)]


class Process(BaseModel):
    """Who answered."""

    service: str
    worker: int
    pid: int

    @classmethod
    def this(cls, service: str) -> Process:
        """This process; the name is for runs without servd."""
        return cls(
            service=os.environ.get("SERVD_SERVICE", service),
            worker=int(os.environ.get("SERVD_WORKER", "0")),
            pid=os.getpid(),
        )


class TokensRequest(BaseModel):
    text: Text


class TokenOut(BaseModel):
    text: str
    kind: Kind
    start: int
    end: int


class TokensAnswer(BaseModel):
    tokens: list[TokenOut]
    sentences: list[str]
    terms: list[str]
    process: Process


class RankRequest(BaseModel):
    terms: Annotated[list[str], Field(max_length=5_000)]
    limit: Limit = 3


class Document(BaseModel):
    id: int
    score: float
    text: str


class RankAnswer(BaseModel):
    method: str
    documents: list[Document]
    process: Process


class SearchRequest(BaseModel):
    query: Text
    limit: Limit = 3


class SearchAnswer(BaseModel):
    query: str
    tokens: list[TokenOut]
    terms: list[str]
    method: str
    documents: list[Document]
    answered_by: list[Process]
