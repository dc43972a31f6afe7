"""The daemon's threads, for what takes long or may block."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor


class ResilientThreadPool(ThreadPoolExecutor):
    """Has a thread from the beginning, and goes on with those that it has where the system lets no
    other one start: then work waits for its turn, instead of failing.
    """

    def __init__(self) -> None:
        super().__init__(thread_name_prefix="servd-thread")
        self.submit(int)

    def _adjust_thread_count(self) -> None:
        try:
            super()._adjust_thread_count()  # no part of its interface
        except RuntimeError:
            if not self._threads:
                raise
