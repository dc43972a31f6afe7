"""The daemon's threads, for long or blocking work."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ResilientThreadPool(ThreadPoolExecutor):
    """Starts one thread immediately. When the system refuses more, work waits for a running one."""

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="servd-thread")
        self.submit(int)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()  # not a public method
        except RuntimeError:
            if not self._threads:
                raise
