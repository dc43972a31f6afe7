"""Exceptions after which a worker cannot use its GPU: what they are, and what comes of them."""

from __future__ import annotations

import sys
from typing import Any, cast

import pytest

import servd
from servd.wire.shm_counters import Counters
from servd.worker.asgi.request import Request, current
from servd.worker.gpu_errors import GpuErrors, kind_of
from servd.worker.reporter import Reporter

from support.harness import Servd, wait_until

OOM = "CUDA out of memory. Tried to allocate 20.00 MiB. GPU 0 has a total capacity of 79.11 GiB"
ORT = "RUNTIME_EXCEPTION : while running Conv node. CUDA failure 2: out of memory ; GPU=0"
STICKY = (
    "CUDA error: device-side assert triggered\nCUDA kernel errors might be asynchronously "
    "reported at some other API call, so the stacktrace below might be incorrect."
)


def torch_oom() -> Exception:
    kind = type("OutOfMemoryError", (RuntimeError,), {"__module__": "torch"})
    return cast("Exception", kind("no room"))


def of_library(module: str, text: str) -> Exception:
    return cast("Exception", type("AnyError", (Exception,), {"__module__": module})(text))


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ValueError("no")


def raised_from(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def while_handling(error: Exception, other: Exception, *, hidden: bool = False) -> Exception:
    error.__context__ = other
    error.__suppress_context__ = hidden
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (RuntimeError(STICKY), "cuda"),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), "cuda"),
        (RuntimeError("CUDA error: unspecified launch failure"), "cuda"),
        (RuntimeError("CUDA error: uncorrectable ECC error encountered"), "cuda"),
        (RuntimeError("cudaErrorIllegalAddress: an illegal memory access"), "cuda"),
        (RuntimeError("cuCtxSynchronize failed: CUDA_ERROR_LAUNCH_FAILED"), "cuda"),
        (RuntimeError("HIP error: unspecified launch failure"), "cuda"),
        (RuntimeError(OOM), "gpu_oom"),
        (torch_oom(), "gpu_oom"),
        (RuntimeError("CUDA error: out of memory"), "gpu_oom"),
        (RuntimeError("CUDA failure 2: out of memory ; GPU=0"), "gpu_oom"),
        (raised_from(ValueError("prediction failed"), RuntimeError(OOM)), "gpu_oom"),
        (raised_from(torch_oom(), RuntimeError(STICKY)), "cuda"),
        (RuntimeError("CUDA error: invalid device ordinal"), ""),
        (RuntimeError("an illegal memory access was simulated"), ""),
        (MemoryError("out of memory"), ""),
        (RuntimeError("docs of cudaErrorIllegalAddressRange"), ""),
        (RuntimeError("Triton Error [CUDA]: an illegal memory access was encountered"), "cuda"),
        (RuntimeError(f"unknown model: {STICKY}"), ""),
        (RuntimeError(f"'{OOM}' is no number"), ""),
        (ValueError("cudaErrorAssert"), ""),
        (ValueError(STICKY), ""),
        (KeyError("cudaErrorAssert"), ""),
        (LookupError(OOM), ""),
        (of_library("onnxruntime.capi", f"[ONNXRuntimeError] : 6 : {ORT}"), "gpu_oom"),
        (of_library("cupy_backends.cuda", "cudaErrorIllegalAddress: an illegal"), "cuda"),
        (of_library("app", "cudaErrorIllegalAddress: an illegal"), ""),
        (ExceptionGroup("two", [KeyError("x"), RuntimeError(OOM)]), "gpu_oom"),
        (ExceptionGroup("", [ExceptionGroup("", [RuntimeError(STICKY)])]), "cuda"),
        (while_handling(KeyError("x"), RuntimeError(STICKY)), "cuda"),
        (while_handling(KeyError("x"), RuntimeError(STICKY), hidden=True), ""),
        (UnprintableError(), ""),
        (KeyError("x"), ""),
    ],
)
def test_what_an_exception_means_for_the_gpu(error: Exception, kind: str) -> None:
    assert kind_of(error) == kind


class Channel:
    """Notes what is sent to the daemon."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, **message: Any) -> None:
        self.sent.append(message)


def judge(limit: int = 3, *, has_gpus: bool = True) -> tuple[GpuErrors, Counters, Channel]:
    channel, counters = Channel(), Counters()
    nothing = cast("Any", None)
    reporter = Reporter(nothing, counters, cast("Any", channel), nothing)
    return GpuErrors(reporter, limit, has_gpus=has_gpus), counters, channel


def count(counters: Counters, status: int) -> None:
    counters.worked(0.1, 0.0, 1.0)
    counters.answered("POST", status, 0.1)


def test_a_lack_of_memory_counts_in_a_row() -> None:
    errors, counters, channel = judge()
    for status in (500, 500, 200, 500, 500):
        count(counters, status)
        if status == 500:
            errors.saw(RuntimeError(OOM))
    assert not channel.sent
    counters.rejected("concurrency")  # its 503 is no answer of the app
    counters.answered("POST", 503, 0.0)
    errors.saw(RuntimeError(OOM))
    (sent,) = channel.sent
    assert sent["recycle"] == "gpu_oom"
    assert sent["error"].startswith("RuntimeError: CUDA out of memory.")


def test_one_exception_counts_once_however_often_it_is_seen() -> None:
    errors, _, channel = judge()
    for _ in range(2):
        error = RuntimeError(OOM)
        for _ in range(3):
            errors.saw(error)
    assert not channel.sent


def test_what_wraps_an_exception_counts_with_it() -> None:
    errors, _, channel = judge()
    for _ in range(2):
        error = RuntimeError(OOM)
        errors.logged(error)
        errors.saw(raised_from(RuntimeError("prediction failed"), error))
        errors.saw(ExceptionGroup("", [error]))
    assert not channel.sent
    errors.saw(RuntimeError(OOM))
    assert channel.sent


def request_of(counters: Counters) -> Request:
    return Request({}, cast("Any", None), cast("Any", counters))


def test_a_request_counts_once_whatever_it_tries() -> None:
    errors, counters, channel = judge()
    for number in range(3):
        assert not channel.sent, number
        request = request_of(counters)
        token = current.set(request)
        for _ in range(3):
            errors.logged(RuntimeError(OOM))
        if number == 2:
            errors.failed(request)
        else:
            request.over = True
            errors.saw(RuntimeError(OOM))
        errors.failed(request)
        current.reset(token)
    assert channel.sent


def test_tries_within_requests_that_go_well_do_not_count() -> None:
    errors, counters, channel = judge()
    for _ in range(5):
        token = current.set(request_of(counters))
        for _ in range(3):
            errors.logged(RuntimeError(OOM))
        current.reset(token)
    assert not channel.sent


def test_without_gpus_only_loaded_libraries_make_errors_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    errors, _, channel = judge(has_gpus=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    errors.saw(RuntimeError(STICKY))
    monkeypatch.setitem(sys.modules, "cupy", sys)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    errors.saw(RuntimeError(STICKY))
    assert not channel.sent
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    errors.saw(RuntimeError(STICKY))
    assert channel.sent


def test_without_gpus_an_app_says_so_itself() -> None:
    errors, _, channel = judge(has_gpus=False)
    errors.unwell("it is the end")
    assert channel.sent


def test_an_error_that_stays_is_said_once() -> None:
    errors, _, channel = judge()
    errors.saw(KeyError("x"))
    errors.saw(RuntimeError(STICKY))
    errors.saw(RuntimeError(STICKY))
    errors.unwell("it is the end")
    (sent,) = channel.sent
    assert sent["recycle"] == "cuda"
    assert sent["error"].startswith("RuntimeError: CUDA error: device-side assert triggered CUDA ")
    assert len(sent["error"]) <= 300


def test_outside_of_a_worker_nothing_happens() -> None:
    servd.unwell("no one hears it")


APP = f"""
    import asyncio, os, servd

    OOM, STICKY = {OOM!r}, {STICKY!r}
    tasks = []

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        path = scope["path"]
        if path == "/oom":
            raise RuntimeError(OOM)
        if path == "/sticky":
            raise RuntimeError(STICKY)
        if path == "/number":
            int(scope["query_string"])
        if path == "/swallowed":
            import logging
            try:
                raise RuntimeError(STICKY)
            except RuntimeError:
                logging.getLogger("framework").exception("handled")
        if path == "/unwell":
            servd.unwell("the device\\nis lost")
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": str(os.getpid()).encode()}})
"""
SERVICE = """
    [services.web]
    app = "main:app"
    listen = "127.0.0.1:0"
    health = false
"""
CONFIG = f"daemon.gpus = 1\n{SERVICE}    gpus = 1\n"


@pytest.mark.parametrize(
    ("paths", "reason", "error"),
    [
        (["/oom", "/oom", "/", "/oom", "/oom", "/oom"], "gpu_oom", "CUDA out of memory. Tried"),
        (["/", "/sticky"], "cuda", "CUDA error: device-side assert triggered"),
        (["/swallowed"], "cuda", "CUDA error: device-side assert triggered"),
        (["/unwell"], "unwell", "the device is lost"),
    ],
)
def test_a_worker_that_cannot_use_its_gpu_is_replaced(
    servd: Servd, paths: list[str], reason: str, error: str
) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    (before,) = daemon.pids("web")
    for path in paths:
        assert not daemon.find("worker recycle requested")
        answer = daemon.get("web", path)
        assert answer.status_code == (500 if path in ("/oom", "/sticky") else 200)
    found = daemon.wait_for("worker recycle requested", reason=reason, pid=before)
    assert error in found["error"]
    daemon.wait_for("worker recycled", reason=reason, pid=before)
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
    assert daemon.get("web", "/").text != str(before)
    labels = {"service": "web", "reason": reason}
    assert daemon.metric("servd_worker_restarts_total", **labels) == 1
    assert len(daemon.find("worker recycled")) == 1


def test_a_client_cannot_have_workers_replaced(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=APP).ready()
    pids = daemon.pids("web")
    for text in ("cudaErrorAssert", "CUDA out of memory"):
        assert daemon.get("web", f"/number?{text}").status_code == 500
    assert daemon.get("web", "/").text == str(*pids)
    assert not daemon.find("worker recycle requested")


def test_without_gpus_no_error_replaces_a_worker(servd: Servd) -> None:
    daemon = servd(SERVICE, main_py=APP).ready()
    pids = daemon.pids("web")
    assert daemon.get("web", "/sticky").status_code == 500
    assert daemon.get("web", "/").text == str(*pids)
    assert not daemon.find("worker recycle requested")


WSGI = """
    import os

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/sticky":
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        start_response("200 OK", [])
        return [str(os.getpid()).encode()]
"""


def test_a_wsgi_app_is_seen_too(servd: Servd) -> None:
    daemon = servd(CONFIG, main_py=WSGI).ready()
    (before,) = daemon.pids("web")
    assert daemon.get("web", "/sticky").status_code == 500
    daemon.wait_for("worker recycled", reason="cuda", pid=before)
    wait_until(lambda: daemon.pids("web") not in ([], [before]), "another worker")
