"""Asks for the GPUs once, within a time limit: a driver that hangs holds up nothing. Impure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Mapping

from servd.core.quick_dataclass import dataclass
from servd.host.gpu_helper import (
    NO_PYNVML,
    StartedHelper,
    end_helper,
    is_one_ending,
    may_have_gpus,
    start_helper,
)
from servd.wire.gpu_messages import GpuLines, line_of, report_of
from servd.wire.gpus import GpuSnapshot

QUERY_SECONDS = 10.0
"""A driver of many GPUs takes seconds for its first answer."""

FIRST_SECONDS = 30.0
"""What a daemon waits that knows nothing yet: a driver that nobody uses wakes its GPUs."""

_INTERVAL_SECONDS = 3600.0
_END_SECONDS = 1.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, slots=True)
class GpuAnswer:
    """The GPUs, or why they are not known (`error`). `is_absent`: there is no driver, so there are
    no GPUs that it could tell of.
    """

    snapshot: GpuSnapshot | None = None
    error: str = ""
    is_absent: bool = False

    @property
    def is_unknown(self) -> bool:
        """Whether there may be GPUs: the driver does not answer, or its answer is no use."""
        return self.snapshot is None and not self.is_absent


def query_gpus(environ: Mapping[str, str], seconds: float = QUERY_SECONDS) -> GpuSnapshot | None:
    """Returns the GPUs; None when there is no driver, no pynvml, or no answer in `seconds`."""
    return ask_gpus(environ, seconds).snapshot


def ask_gpus(environ: Mapping[str, str], seconds: float = QUERY_SECONDS) -> GpuAnswer:
    """As `query_gpus`, with the reason where there is no answer."""
    if not may_have_gpus(environ):
        return GpuAnswer(error=NO_PYNVML, is_absent=True)
    _wait_for_end()
    try:
        helper = start_helper(environ, _INTERVAL_SECONDS)
    except OSError as error:
        return GpuAnswer(error=f"cannot start the GPU helper: {error.strerror}")
    try:
        return _answer(helper, seconds)
    except TimeoutError:
        return GpuAnswer(error=f"the GPU driver does not answer within {seconds:g} s")
    except (OSError, ValueError) as error:
        return GpuAnswer(error=f"the GPU helper failed: {error}")
    finally:
        _end(helper)


def _answer(helper: StartedHelper, seconds: float) -> GpuAnswer:
    """Waits for the first message. Raises TimeoutError, OSError and ValueError."""
    channel, lines = helper.channel, GpuLines()
    end = time.monotonic() + seconds
    channel.settimeout(seconds)
    with contextlib.suppress(BrokenPipeError):  # it says why, or ends without a word
        channel.sendall(line_of({"look": 1}))
    while True:
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        channel.settimeout(left)
        data = channel.recv(65536)
        if not data:
            raise ConnectionResetError("it ended without an answer")
        for line in lines.feed(data):
            report = report_of(line)
            if report.snapshot is not None or report.failure:
                return GpuAnswer(report.snapshot, report.failure, report.is_absent)


def _end(helper: StartedHelper) -> None:
    """Ends the helper without waiting: what hangs in the kernel ends later."""
    helper.channel.close()
    end_helper(helper.process)
    threading.Thread(target=helper.process.wait, daemon=True).start()


def _wait_for_end() -> None:
    """Waits for the helper that was killed last, but not for long: it may never end."""
    end = time.monotonic() + _END_SECONDS
    while is_one_ending() and time.monotonic() < end:
        time.sleep(_POLL_SECONDS)
