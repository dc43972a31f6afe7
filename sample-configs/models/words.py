"""A BentoML service."""

from __future__ import annotations

import bentoml


@bentoml.service(traffic={"timeout": 30})
class Words:
    """Counts words."""

    @bentoml.api
    def count(self, text: str) -> dict[str, int]:
        """How often each word is there."""
        words = text.lower().split()
        return {word: words.count(word) for word in words}
