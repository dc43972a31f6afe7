"""The process that has described the code of a BentoML service, as the source of its first worker:
the code, which may load models, is imported once on the way to the first answer.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from servd.plan.environment import is_own
from servd.plan.model import ServicePlan
from servd.supervisor.templates.forked import ForkedProcess
from servd.supervisor.templates.template import TemplateError, ask
from servd.wire.fork_request import ForkRequest
from servd.wire.names import DESCRIBE_MODULE, PROMETHEUS_FOLDER


class Describing(Protocol):
    """The process (`servd.bento.describe_client`): what it was started with, and its socket."""

    socket: socket.socket | None
    is_current: Callable[[], bool]

    @property
    def pid(self) -> int:
        """The pid."""

    @property
    def about(self) -> tuple[tuple[str, ...], str, str]:
        """Its command line, folder, and arguments of the code."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Its environment."""

    @property
    def identity(self) -> Mapping[str, Any]:
        """The options of Popen for its user."""

    @property
    def printed(self) -> bytes:
        """What the import printed."""

    def hand_over(self) -> None:
        """It is a worker now."""

    def drop(self) -> None:
        """It is not needed: ends it."""


class DescribedCode:
    """Becomes one worker. That is no fork: threads, locks and devices of the import stay whole."""

    def __init__(self, process: Describing) -> None:
        self._process = process

    @property
    def is_there(self) -> bool:
        """Whether it has not become a worker yet."""
        return self._process.socket is not None

    def fits(self, plan: ServicePlan) -> bool:
        """Whether a worker would have imported the code in the same way, with the same rights."""
        process, given = self._process, plan.definition
        if plan.app is None or (bento := plan.app.bento) is None or plan.preloads or plan.gpus:
            return False
        if bento.unknown or bento.environments or process.identity or _is_confined(plan):
            return False
        argv = (*plan.argv_of(DESCRIBE_MODULE), given.bento, plan.directory)
        return (
            self.is_there
            and process.about == (argv, plan.directory, given.bento_arguments)
            and (PROMETHEUS_FOLDER in process.environment)
            == (PROMETHEUS_FOLDER in plan.environment)
            and _of_code(process.environment) == _of_code(plan.environment)
            and process.is_current()
        )

    def fork(self, request: ForkRequest, descriptors: Sequence[int]) -> ForkedProcess:
        """Becomes the process of `request`. Raises `TemplateError`, or an OSError of its start."""
        process = self._process
        if process.socket is None:
            raise TemplateError(0, "the process is a worker already")
        _, stderr, *_ = descriptors
        os.set_blocking(stderr, False)  # the kernel may have made a small pipe
        with contextlib.suppress(OSError):
            os.write(stderr, process.printed)
        os.set_blocking(stderr, True)
        try:
            ask(process.socket, request, descriptors)
        except OSError:
            self.end()
            raise
        process.hand_over()
        return ForkedProcess(process.pid)  # whatever its code has answered

    def end(self) -> None:
        """Ends it, if it has not become a worker."""
        if self.is_there:
            self._process.drop()


def _is_confined(plan: ServicePlan) -> bool:
    """Whether a worker has fewer rights, which the threads of the import would not lose."""
    identity = plan.identity
    return bool(
        identity.account is not None
        or identity.gid is not None
        or identity.rlimits
        or identity.affinity
    )


def _of_code(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the variables that the import of code may see, without those of one process."""
    return {
        name: value
        for name, value in environment.items()
        if not is_own(name) and name != PROMETHEUS_FOLDER
    }
