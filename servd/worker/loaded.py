"""An app that a template has loaded, for the workers that are forked from it (`preload`)."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import sys
import threading
from typing import Any

from servd.wire.worker_spec import AppSpec
from servd.worker.load_app import AppLoadError, load


class LoadedApp:
    """What became of loading an app: the app, or the error that each worker reports."""

    def __init__(self, app: Any = None, error: AppLoadError | None = None) -> None:
        self.error = error
        self._app = app

    @property
    def app(self) -> Any:
        """The app. Raises `AppLoadError`."""
        if self.error is not None:
            raise self.error
        return self._app


def load_once(spec: AppSpec) -> LoadedApp:
    """Loads the app, and exempts it from the garbage collector: a collection would write to its
    pages, which the workers share. Nor is there one before: the holes that it leaves in these pages
    would be filled in each worker. An app that has started threads cannot be forked.
    """
    try:
        loaded = LoadedApp(load(spec, 0))
    except AppLoadError as error:
        loaded = LoadedApp(error=error)
    else:
        if names := _threads():
            reason = f"{spec.app} has started threads ({', '.join(names)}), which a fork would lose"
            advice = "start them in the lifespan of the app, or write preload = false"
            loaded = LoadedApp(error=AppLoadError(f"preload: {reason}: {advice}"))
    if "anyio" in sys.modules:
        with contextlib.suppress(ImportError):  # each worker would import it, in its own memory
            importlib.import_module("anyio._backends._asyncio")
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    gc.freeze()
    return loaded


def _threads() -> list[str]:
    main = threading.main_thread()
    return sorted(thread.name for thread in threading.enumerate() if thread is not main)


def native_threads() -> int:
    """Returns how many threads this process has that Python does not know: of libraries, which have
    to restart them in a fork.
    """
    try:
        return len(os.listdir("/proc/self/task")) - len(threading.enumerate())
    except OSError:
        return 0
