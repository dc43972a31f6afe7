"""Answers in pieces, and tasks whose results are fetched later."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator

import bentoml


@bentoml.service(threads=2)
class Writer:
    @bentoml.api
    async def count(self, upto: int = 3) -> AsyncGenerator[str, None]:
        for number in range(upto):
            yield f"{number} "

    @bentoml.api
    def spell(self, word: str) -> Generator[str, None, None]:
        yield from word

    @bentoml.task
    def reverse(self, text: str) -> str:
        return text[::-1]
