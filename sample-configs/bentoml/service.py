"""A BentoML service as its users write it: one that clients call, and one that it depends on."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import bentoml


@bentoml.service(workers=2)
class Tokenizer:
    """Splits text; its two workers are reached by `MyService` alone."""

    @bentoml.api
    def tokens(self, text: str) -> list[str]:
        """The words of a text."""
        return text.lower().split()


@bentoml.service(traffic={"timeout": 30})
class MyService:
    """What clients call."""

    tokenizer = bentoml.depends(Tokenizer)

    @bentoml.api
    async def count(self, text: str) -> dict[str, int]:
        """How often each word is there."""
        words = await self.tokenizer.to_async.tokens(text)
        return {word: words.count(word) for word in words}

    @bentoml.api
    async def stream(self, text: str) -> AsyncGenerator[str, None]:
        """The words, one after the other."""
        for word in await self.tokenizer.to_async.tokens(text):
            yield f"{word}\n"
