"""Recognizes exceptions after which only a new process can use its GPU, or may have the memory for
it. Nothing is looked at while no exception is raised, and nothing of CUDA or torch is imported.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from servd.worker.reporter import Reporter

_STICKY = re.compile(
    r"(?:CUDA|HIP)\b.{0,200}?(?:device-side assert|an illegal memory access|unspecified launch"
    r" failure|uncorrectable ECC|misaligned address|an illegal instruction|hardware stack error"
    r"|invalid program counter|launch timed out)"
    r"|(?:cuda|hip)Error(?:Assert|IllegalAddress|LaunchFailure|ECCUncorrectable|MisalignedAddress"
    r"|IllegalInstruction|HardwareStackError|InvalidPc|LaunchTimeout|ContextIsDestroyed)\b"
    r"|(?:CUDA|HIP)_ERROR_(?:ASSERT|ILLEGAL_ADDRESS|LAUNCH_FAILED|ECC_UNCORRECTABLE"
    r"|MISALIGNED_ADDRESS|ILLEGAL_INSTRUCTION|HARDWARE_STACK_ERROR|INVALID_PC|LAUNCH_TIMEOUT"
    r"|CONTEXT_IS_DESTROYED)\b",
    re.DOTALL,
)
"""Errors after which every call fails in this process (CUDA Runtime API, "Error types")."""

_OUT_OF_MEMORY = re.compile(
    r"(?:CUDA|HIP)(?: error| failure \d+)?:? out of memory|(?:cuda|hip)ErrorMemoryAllocation\b"
    r"|(?:CUDA|HIP)_ERROR_OUT_OF_MEMORY\b|CUBLAS_STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
_MOST_CHARACTERS = 4000
_SHOWN_CHARACTERS = 300
_LONGEST_CHAIN = 8
_SEEN = "__seen_by_servd__"


def kind_of(error: BaseException) -> str:
    """Returns "cuda" for an error that leaves a process unable to use its GPU, "gpu_oom" for a lack
    of memory, and "" for any other. Reads what caused it, too.
    """
    kinds = [_own_kind(each) for each in _chain(error)]
    return "cuda" if "cuda" in kinds else next(filter(None, kinds), "")


def _own_kind(error: BaseException) -> str:
    text = _text_of(error)
    if _STICKY.search(text):
        return "cuda"
    module = type(error).__module__
    is_torch = isinstance(module, str) and module.partition(".")[0] == "torch"
    if (is_torch and type(error).__name__ == "OutOfMemoryError") or _OUT_OF_MEMORY.search(text):
        return "gpu_oom"
    return ""


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    for _ in range(_LONGEST_CHAIN):
        if error is None:
            return
        yield error
        error = error.__cause__ or error.__context__


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:_MOST_CHARACTERS]
    except Exception:  # the class is the app's
        return ""


class GpuErrors:
    """Has this worker replaced: at once after an error that stays, and after `limit` requests in a
    row that lacked memory.
    """

    def __init__(self, reporter: Reporter, limit: int) -> None:
        self.limit = limit
        self._reporter = reporter
        self._lacked = 0
        self._good = 0.0
        self._asked = False

    def saw(self, error: BaseException) -> None:
        """Judges an exception of the app, once: it may come by more than one way."""
        if self._asked or getattr(error, _SEEN, False):
            return
        with contextlib.suppress(Exception):  # no reference is kept: it would keep GPU memory
            setattr(error, _SEEN, True)
        kind = kind_of(error)
        if kind == "gpu_oom":
            good = self._reporter.counters.good
            self._lacked = self._lacked + 1 if good == self._good else 1
            self._good = good
        if kind == "cuda" or (kind and self._lacked >= self.limit):
            self._ask(kind, f"{type(error).__name__}: {_text_of(error)}")

    def unwell(self, reason: str) -> None:
        """The app's own code says that this process has to be replaced."""
        if not self._asked:
            self._ask("unwell", str(reason))

    def _ask(self, kind: str, text: str) -> None:
        self._asked = True
        self._reporter.recycle(kind, " ".join(text.split())[:_SHOWN_CHARACTERS])
