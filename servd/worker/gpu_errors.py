"""Recognizes exceptions after which only a new process can use its GPU, or may have the memory for
it. Nothing is looked at while no exception is raised, and nothing of CUDA or torch is imported.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

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
_LONGEST_CHAIN = 8
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
