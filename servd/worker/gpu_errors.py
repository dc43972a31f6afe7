"""Recognizes exceptions after which only a new process can use its GPU, or may have the memory for
it. Nothing is looked at while no exception is raised, and nothing of CUDA or torch is imported.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from servd.worker.asgi.request import Request, current
from servd.worker.reporter import Reporter

_BEGIN = (
    r"(?:[A-Z_]+: |\w+ failed: |\[\d+\] Call to \w+ results in |\[ONNXRuntimeError\].{0,2000}?)?"
)
_OF_CUDA = (
    r"(?:(?:CUDA|HIP)(?: runtime| driver)? (?:error|failure)(?: ?\(?\d+\)?)? ?: ?"
    r"|Triton Error \[(?:CUDA|HIP)\]: |cu\w+ failed: )"
)
_STICKY = re.compile(
    rf"{_BEGIN}{_OF_CUDA}(?:an )?(?:device-side assert|illegal memory access|unspecified launch"
    r" failure|uncorrectable ECC|misaligned address|illegal instruction"
    r"|hardware stack error|invalid program counter|the launch timed out)"
    rf"|{_BEGIN}{_OF_CUDA}?"
    r"(?:(?:cuda|hip)Error(?:Assert|IllegalAddress|LaunchFailure|ECCUncorrectable"
    r"|MisalignedAddress|IllegalInstruction|HardwareStackError|InvalidPc|LaunchTimeout"
    r"|ContextIsDestroyed)"
    r"|(?:CUDA|HIP)_ERROR_(?:ASSERT|ILLEGAL_ADDRESS|LAUNCH_FAILED|ECC_UNCORRECTABLE"
    r"|MISALIGNED_ADDRESS|ILLEGAL_INSTRUCTION|HARDWARE_STACK_ERROR|INVALID_PC|LAUNCH_TIMEOUT"
    r"|CONTEXT_IS_DESTROYED))\b",
    re.DOTALL,
)
"""Errors after which every call fails in this process (CUDA Runtime API, "Error types"), at the
start of a text: further on, it may be a client's.
"""

_OUT_OF_MEMORY = re.compile(
    rf"{_BEGIN}(?:(?:CUDA|HIP) out of memory|{_OF_CUDA}(?:out of memory|CUBLAS_STATUS_ALLOC_FAILED)"
    rf"|{_OF_CUDA}?(?:(?:cuda|hip)ErrorMemoryAllocation|(?:CUDA|HIP)_ERROR_OUT_OF_MEMORY"
    r"|CUBLAS_STATUS_ALLOC_FAILED)\b)",
    re.DOTALL,
)
_LIBRARIES = frozenset(
    {"torch", "cupy", "cupy_backends", "jax", "jaxlib", "pycuda", "tensorflow", "numba"}
    | {"onnxruntime"}
)
"""Packages that use GPUs. Their exceptions tell of these, and plain `RuntimeError`s do."""
_MOST_CHARACTERS = 4000
_SHOWN_CHARACTERS = 300
_MOST_RELATED = 24
_SEEN = "__seen_by_servd__"


def kind_of(error: BaseException) -> str:
    """Returns "cuda" for an error that leaves a process unable to use its GPU, "gpu_oom" for a lack
    of memory, and "" for any other. Reads what caused it, too.
    """
    kinds = [_own_kind(each) for each in _chain(error)]
    return "cuda" if "cuda" in kinds else next(filter(None, kinds), "")


def _own_kind(error: BaseException) -> str:
    is_library = _package_of(error) in _LIBRARIES
    if not (is_library or isinstance(error, RuntimeError)):
        return ""
    text = _text_of(error)
    if _STICKY.match(text):
        return "cuda"
    named = is_library and type(error).__name__ == "OutOfMemoryError"
    return "gpu_oom" if named or _OUT_OF_MEMORY.match(text) else ""


def _package_of(error: BaseException) -> str:
    module = type(error).__module__
    return module.partition(".")[0] if isinstance(module, str) else ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception, what caused it, and those of a group: not all of very many."""
    waiting = [error]
    for _ in range(_MOST_RELATED):
        if not waiting:
            return
        one = waiting.pop(0)
        yield one
        if one.__cause__ is not None:
            waiting.append(one.__cause__)
        elif one.__context__ is not None and not one.__suppress_context__:
            waiting.append(one.__context__)
        if isinstance(one, BaseExceptionGroup):
            waiting += one.exceptions[:_MOST_RELATED]


def _text_of(error: BaseException) -> str:
    try:
        return str(error)[:_MOST_CHARACTERS]
    except Exception:  # the class is the app's
        return ""


class GpuErrors:
    """Has this worker replaced: at once after an error that stays, and after `limit` requests in a
    row that lacked memory. Without `has_gpus` (the plan gives it none), errors count only once a
    library that uses GPUs is loaded, and GPUs are not hidden.
    """

    def __init__(self, reporter: Reporter, limit: int, *, has_gpus: bool) -> None:
        self.limit = limit
        self._reporter = reporter
        self._has_gpus = has_gpus
        self._lacked = 0
        self._good = 0.0
        self._asked = False
        self._error = ""

    def saw(self, error: BaseException) -> None:
        """Judges an exception that the app raised, once: it may come by more than one way."""
        if self._is_new_lack(error):
            self._lacks(current.get())

    def logged(self, error: BaseException) -> None:
        """Judges an exception that the app handled and logged: a lack of memory counts if the
        request fails that it belongs to.
        """
        if not self._is_new_lack(error):
            return
        request = current.get()
        if request is None or request.over:
            self._lacks(request)
        else:
            request.lacked = request.lacked or "logged"

    def failed(self, request: Request) -> None:
        """A request that logged an error ends with a 5xx."""
        if request.lacked == "logged":
            self._lacks(request)

    def unwell(self, reason: str) -> None:
        """The app's own code says that this process has to be replaced."""
        if not self._asked:
            self._ask("unwell", str(reason))

    def _is_new_lack(self, error: BaseException) -> bool:
        """Whether nothing of an exception was seen before, and it is a lack of memory. Asks for a
        replacement if it is worse.
        """
        if self._asked or not self._uses_gpus():
            return False
        kind = kind_of(error)
        if kind == "cuda":
            self._ask(kind, _shown(error))
        if kind != "gpu_oom":
            return False
        related = list(_chain(error))
        is_new = not any(getattr(each, _SEEN, False) for each in related)
        for each in related:
            with contextlib.suppress(Exception):  # no reference is kept: it would keep GPU memory
                setattr(each, _SEEN, True)
        self._error = _shown(error)
        return is_new

    def _uses_gpus(self) -> bool:
        if self._has_gpus:
            return True
        hidden = os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1")
        return not hidden and not _LIBRARIES.isdisjoint(sys.modules)

    def _lacks(self, request: Request | None) -> None:
        """Counts a request that lacked memory, or work outside of any, once."""
        if request is not None:
            if request.lacked == "counted":
                return
            request.lacked = "counted"
        good = self._reporter.counters.good
        self._lacked = self._lacked + 1 if good == self._good else 1
        self._good = good
        if self._lacked >= self.limit:
            self._ask("gpu_oom", self._error)

    def _ask(self, kind: str, text: str) -> None:
        self._asked = True
        self._reporter.recycle(kind, " ".join(text.split())[:_SHOWN_CHARACTERS])


def _shown(error: BaseException) -> str:
    return f"{type(error).__name__}: {_text_of(error)}"
