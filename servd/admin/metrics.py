"""`/metrics`: for the admin API, and alone at an address of its own."""

from __future__ import annotations

import asyncio
import importlib
from typing import TYPE_CHECKING, Any

from servd.admin.plain import answer_plainly

if TYPE_CHECKING:
    from servd.daemon.daemon import Daemon

_NOT_FOUND = b"there is /metrics here, and nothing else\n"


class Metrics:
    """Answers with the metrics of everything. What renders them is imported by the first request,
    in a thread.
    """

    def __init__(self, daemon: Daemon) -> None:
        self.daemon = daemon
        self._rendering = asyncio.Lock()
        self._exposition: Any = None

    async def render(self, accept: str) -> tuple[bytes, str]:
        """The text and its content type."""
        async with self._rendering:
            return await asyncio.to_thread(self._render, self.daemon.snapshot(), accept)

    def _render(self, taken: Any, accept: str) -> tuple[bytes, str]:
        if self._exposition is None:
            module = importlib.import_module("servd.daemon.metrics.prometheus")
            self._exposition = module.PrometheusRenderer(self.daemon.sweeper.app_metrics)
        found: tuple[bytes, str] = self._exposition.render(taken, accept)
        return found

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application for an address that has nothing else."""
        if scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            await answer_plainly(send, 404, "text/plain; charset=utf-8", _NOT_FOUND)
            return
        accept = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"accept"), "")
        body, content_type = await self.render(accept)
        await answer_plainly(send, 200, content_type, body)
