"""Three services: one that clients see, and two that it depends on."""

from __future__ import annotations

import os

import bentoml


@bentoml.service(workers=2, envs=[{"name": "SHADE", "value": "blue"}])
class Tokenizer:
    @bentoml.api
    def tokens(self, text: str) -> list[str]:
        return text.split()

    @bentoml.api
    def about(self) -> dict[str, str]:
        return {
            "shade": os.environ.get("SHADE", ""),
            "worker": str(bentoml.server_context.worker_index),
            "service": os.environ.get("SERVD_SERVICE", ""),
        }


@bentoml.service(traffic={"max_concurrency": 8})
class Scorer:
    tokenizer = bentoml.depends(Tokenizer)

    @bentoml.api
    async def score(self, text: str) -> float:
        words = await self.tokenizer.to_async.tokens(text)
        return sum(map(len, words)) / max(1, len(words))


@bentoml.service
class Gateway:
    tokenizer = bentoml.depends(Tokenizer)
    scorer = bentoml.depends(Scorer)

    @bentoml.api
    async def rate(self, text: str) -> dict[str, float]:
        words = await self.tokenizer.to_async.tokens(text)
        return {"words": float(len(words)), "score": await self.scorer.score(text)}

    @bentoml.api
    def about(self) -> dict[str, str]:
        return self.tokenizer.about()
