"""Watches the pipe to the process that started the daemon from Python (see `servd.serve`)."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, MutableMapping

from servd.wire.names import LIFELINE


class ParentWatch:
    """Removes the pipe from the environment, so that no child holds it. `held`: there is one."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        text = environ.pop(LIFELINE, "")
        self._descriptor = int(text) if text.isdecimal() else -1
        self.held = self._descriptor >= 0
        if self.held:
            os.set_inheritable(self._descriptor, False)

    def hold(self, on_cut: Callable[[], None]) -> None:
        """Calls `on_cut`, in the running loop, once the other end is closed."""
        if not self.held:
            return
        loop = asyncio.get_running_loop()

        def cut() -> None:
            loop.remove_reader(self._descriptor)
            on_cut()

        loop.add_reader(self._descriptor, cut)
