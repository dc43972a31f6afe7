"""Imports what every worker needs besides its app."""

from __future__ import annotations

from typing import Any

from servd.http.lean_uvicorn import uvicorn
from servd.wire.worker_spec import UvicornSpec

_AUTO = ("auto", "auto", "auto")
_imported: set[tuple[str, ...]] = set()
"""Parts of Uvicorn that are imported with all the rest: to do it again in a fork would write to 0.7
MiB of the memory that it shares.
"""


def import_runtime(chosen: UvicornSpec | None = None) -> None:
    """Imports all that a worker needs before the app's folder comes first on the path: a `queue.py`
    or `email.py` there would be taken for the standard library's. `chosen` names the parts of
    Uvicorn; without it, those that it takes by itself.
    """
    parts = _AUTO if chosen is None else (chosen.http, chosen.loop, chosen.ws)
    if parts in _imported:
        return
    import concurrent.futures.thread  # noqa: F401

    import servd.worker.application
    import servd.worker.control
    import servd.worker.server
    import servd.worker.wsgi

    http, loop, ws = parts
    config = uvicorn.Config(_nothing, http=http, loop=loop, ws=ws, log_config=None)
    config.load()
    config.get_loop_factory()
    _imported.add(parts)
    protocol: Any = config.http_protocol_class  # another environment may lack httptools
    if protocol.__module__.endswith(".httptools_impl"):
        import servd.worker.keep_alive
    else:
        import servd.worker.h11_protocol  # noqa: F401


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    """Stands for an app."""
