"""Imports what every worker needs besides its app."""

from __future__ import annotations

from typing import Any

import uvicorn

from servd.wire.worker_spec import UvicornSpec


def import_runtime(chosen: UvicornSpec | None = None) -> None:
    """Imports all that a worker needs before the app's folder comes first on the path: a `queue.py`
    or `email.py` there would be taken for the standard library's. `chosen` names the parts of
    Uvicorn; without it, those that it takes by itself.
    """
    import concurrent.futures.thread  # noqa: F401

    import servd.worker.application
    import servd.worker.control
    import servd.worker.server
    import servd.worker.wsgi

    if chosen is None:
        config = uvicorn.Config(_nothing, log_config=None)
    else:
        config = uvicorn.Config(
            _nothing, http=chosen.http, loop=chosen.loop, ws=chosen.ws, log_config=None
        )
    config.load()
    config.get_loop_factory()
    http: Any = config.http_protocol_class  # another environment may lack httptools
    if http.__module__.endswith(".httptools_impl"):
        import servd.worker.keep_alive
    else:
        import servd.worker.h11_protocol  # noqa: F401


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Stands for an app."""
