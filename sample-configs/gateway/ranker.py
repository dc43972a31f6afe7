"""Scores the documents of corpus.txt against search terms: TF-IDF where scikit-learn is
installed, BM25 otherwise.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import words
from fastapi import FastAPI, Request
from models import Document, Process, RankAnswer, RankRequest

CORPUS = Path(__file__).with_name("corpus.txt")


class Ranker(Protocol):
    method: str

    def scores(self, terms: Sequence[str]) -> Sequence[float]:
        """A score for every document of the corpus, 0 where nothing fits."""


class Tfidf:
    method = "tfidf"

    def __init__(self, corpus: Sequence[Sequence[str]]) -> None:
        from sklearn.feature_extraction.text import TfidfVectorizer

        self._vectorizer: Any = TfidfVectorizer(analyzer=list, sublinear_tf=True)
        self._documents: Any = self._vectorizer.fit_transform(corpus)

    def scores(self, terms: Sequence[str]) -> Sequence[float]:
        query = self._vectorizer.transform([terms])
        return (self._documents @ query.T).toarray().ravel().tolist()


class Bm25:
    method = "bm25"

    def __init__(self, corpus: Sequence[Sequence[str]], k1: float = 1.5, b: float = 0.75) -> None:
        self._counts = [Counter(document) for document in corpus]
        average = sum(map(len, corpus)) / len(corpus)
        self._weights = [k1 * (1 - b + b * len(document) / average) for document in corpus]
        self._k1 = k1
        documents_with = Counter(term for counts in self._counts for term in counts)
        self._idf = {
            term: math.log(1 + (len(corpus) - n + 0.5) / (n + 0.5))
            for term, n in documents_with.items()
        }

    def scores(self, terms: Sequence[str]) -> Sequence[float]:
        return [
            sum(
                self._idf[term] * counts[term] * (self._k1 + 1) / (counts[term] + weight)
                for term in terms
                if term in counts
            )
            for counts, weight in zip(self._counts, self._weights, strict=True)
        ]


def trained(documents: Sequence[str]) -> Ranker:
    corpus = [words.terms(document) for document in documents]
    try:
        return Tfidf(corpus)
    except ImportError:
        return Bm25(corpus)


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    # Here rather than at import, so that a ready worker is a trained one.
    app.state.documents = CORPUS.read_text(encoding="utf-8").splitlines()
    app.state.ranker = trained(app.state.documents)
    yield


app = FastAPI(title="ranker", lifespan=lifespan)


@app.post("/rank")
def rank(body: RankRequest, request: Request) -> RankAnswer:
    documents: list[str] = request.app.state.documents
    ranker: Ranker = request.app.state.ranker
    scored = sorted(enumerate(ranker.scores(body.terms)), key=lambda pair: (-pair[1], pair[0]))
    return RankAnswer(
        method=ranker.method,
        documents=[
            Document(id=index, score=round(score, 4), text=documents[index])
            for index, score in scored[: body.limit]
            if score > 0
        ],
        process=Process.this("ranker"),
    )


@app.get("/healthz")
async def healthz() -> dict[str, str]:
    return {"status": "ok"}
