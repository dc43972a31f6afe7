"""Asks the daemon for its status, again and again."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import datetime
from typing import Any

from servd.cli.render.service_facts import completed
from servd.control.client import AdminClient
from servd.core.errors import ServdError
from servd.core.printable import visible


def printable_status(client: AdminClient) -> dict[str, Any]:
    """Returns the status as a terminal may have it. Raises as `AdminClient.status`."""
    status: dict[str, Any] = completed(visible(client.status()))
    return status


def now() -> datetime:
    """Returns the local time."""
    return datetime.now().astimezone()


class StatusFeed:
    """The last status of a daemon, asked for by a thread: of the time `at`. `error` says why there
    is no newer one. Raises as `AdminClient.status` if the first one fails.
    """

    def __init__(self, client: AdminClient, interval: float) -> None:
        self.status = printable_status(client)
        self.at = now()
        self.error = ""
        self._client = client
        self._interval = interval
        self._over = threading.Event()

    def start(self, changed: Callable[[], None]) -> None:
        """Starts to ask; `changed` is called after every answer."""
        threading.Thread(target=self._ask, args=(changed,), daemon=True).start()

    def stop(self) -> None:
        """Asks no more."""
        self._over.set()

    def _ask(self, changed: Callable[[], None]) -> None:
        while not self._over.wait(self._interval):
            try:
                self.status, self.at, self.error = printable_status(self._client), now(), ""
            except ServdError as error:
                # the time first: the line may be cut
                self.error = f"status of {self.at:%H:%M:%S}: {visible(str(error))}"
            changed()
