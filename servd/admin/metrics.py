"""`/metrics`, in the admin API and at its own address."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from servd.admin.plain import answer_plainly

if TYPE_CHECKING:
    from servd.daemon.metrics.prometheus import PrometheusRenderer
    from servd.daemon.metrics.snapshot import Snapshot
    from servd.daemon.view import DaemonView

_NOT_FOUND = b"there are /metrics, /livez and /readyz here, and nothing else\n"


class Metrics:
    """Answers with all metrics. The first request imports the renderer, in a thread."""

    def __init__(self, daemon: DaemonView) -> None:
        self.daemon = daemon
        self._rendering = asyncio.Lock()
        self._renderer: PrometheusRenderer | None = None

    async def render(self, accept: str) -> tuple[bytes, str]:
        """Returns the text and its content type, for the value of an Accept header."""
        async with self._rendering:
            return await asyncio.to_thread(self._render, self.daemon.snapshot(), accept)

    def _render(self, snapshot: Snapshot, accept: str) -> tuple[bytes, str]:
        if self._renderer is None:
            from servd.daemon.metrics.prometheus import PrometheusRenderer

            self._renderer = PrometheusRenderer(self.daemon.app_metrics())
        return self._renderer.render(snapshot, accept)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """The ASGI application for the address of `/metrics` alone."""
        if scope["path"] != "/metrics" or scope["method"] not in ("GET", "HEAD"):
            await answer_plainly(send, 404, "text/plain; charset=utf-8", _NOT_FOUND)
            return
        accept = next((v.decode("latin-1") for k, v in scope["headers"] if k == b"accept"), "")
        body, content_type = await self.render(accept)
        await answer_plainly(send, 200, content_type, body)
