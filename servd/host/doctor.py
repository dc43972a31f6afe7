"""Checks this machine and installation for problems. Impure, read-only."""

from __future__ import annotations

import importlib.util
import os
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from typing import Literal

from servd.config.model import Config
from servd.core.quick_dataclass import dataclass
from servd.host.facts import read_quota, usable_cpus, usable_ids
from servd.host.other_servd import advice, other_servd
from servd.wire.gpus import GpuSnapshot

Level = Literal["ok", "warning", "problem"]

_MIN_UVICORN_VERSION = (0, 51)
_MIN_OPEN_FILES = 4096
_MIN_WATCHES = 8192
_CAP_NET_BIND_SERVICE = 10
_GIB = 1 << 30
_GPU_ADVICE = "pip install nvidia-ml-py, or set daemon.gpus = N"
_DRIVER_ADVICE = "run nvidia-smi and look at the kernel log, or set daemon.gpus = N"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check; `advice` says how to fix a problem."""

    level: Level
    what: str
    advice: str = ""


def examine(config: Config | None, environ: Mapping[str, str]) -> list[Finding]:
    """Returns all findings; with a `config`, also those about its requirements."""
    findings = [found for check in CHECKS for found in check()]
    if config is not None:
        findings += _low_ports(config)
        findings += _gpus(config, environ)
    return findings


def _python() -> Iterator[Finding]:
    yield Finding("ok", f"Python {sys.version.split()[0]} ({sys.executable})")
    if sys.platform != "linux":
        yield Finding("warning", f"{sys.platform} is supported for development only", "use Linux")


def _name() -> Iterator[Finding]:
    if version := other_servd():
        yield Finding("problem", f"another project's servd {version} is installed", advice(version))


def _circus() -> Iterator[Finding]:
    """Finds the distribution of the package circus: BentoML's fork has the same file names."""
    both = _version("circus"), _version("kantoku")
    if importlib.util.find_spec("circus") is None:
        advice = f"{sys.executable} -m pip install --force-reinstall --no-deps circus"
        yield Finding("problem", "files of the package circus are missing", advice)
    elif all(both):
        what = f"circus {both[0]} and kantoku {both[1]} share their files: servd runs with either"
        yield Finding("ok", f"{what} (after uninstalling kantoku, reinstall circus)")
    else:
        yield Finding("ok", f"circus {both[0] or both[1]}")


def _uvicorn() -> Iterator[Finding]:
    version = _version("uvicorn")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < _MIN_UVICORN_VERSION:
        what = f"uvicorn {version} is too old" if version else "uvicorn is missing"
        yield Finding("problem", what, "pip install 'uvicorn>=0.51'")
        return
    missing = [name for name in ("uvloop", "httptools") if importlib.util.find_spec(name) is None]
    if missing:
        what = f"uvicorn {version} without {' and '.join(missing)} is several times slower"
        yield Finding("warning", what, "pip install 'uvicorn[standard]'")
    else:
        yield Finding("ok", f"uvicorn {version} with uvloop and httptools")


def _extras() -> Iterator[Finding]:
    bentoml = _version("bentoml")
    if bentoml.startswith("1.4."):
        yield Finding("ok", f"bentoml {bentoml}")
    elif bentoml:
        yield Finding("warning", f"bentoml {bentoml} is not supported", "use bentoml 1.4")


def _limits() -> Iterator[Finding]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = soft == resource.RLIM_INFINITY
    if not unlimited and soft < _MIN_OPEN_FILES:
        advice = f"ulimit -n {min(65536, hard)}, or LimitNOFILE= in the systemd unit"
        yield Finding("warning", f"limit of {soft} open files: each connection uses one", advice)
    else:
        yield Finding("ok", f"open files: {'unlimited' if unlimited else soft}")
    usable = usable_cpus(usable_ids(), read_quota())
    yield Finding("ok", f'CPUs: {usable} of {os.cpu_count()} (used by workers = "auto")')


def _watches() -> Iterator[Finding]:
    """Checks the kernel's limit of file watches (inotify(7))."""
    watches = _number("/proc/sys/fs/inotify/max_user_watches")
    if watches is not None and watches < _MIN_WATCHES:
        what = f"limit of {watches} file watches: edits may be detected late"
        yield Finding("warning", what, "sysctl fs.inotify.max_user_watches=65536")


def _low_ports(config: Config) -> Iterator[Finding]:
    addresses = [a for s in config.services.values() for a in s.listen if a.kind == "tcp"]
    least = _number("/proc/sys/net/ipv4/ip_unprivileged_port_start") or 0
    low = sorted({a.port for a in addresses if 0 < a.port < least})
    if low and not _may_bind_low_ports():
        what = f"this user cannot bind ports below {least}: {', '.join(map(str, low))}"
        advice = "grant CAP_NET_BIND_SERVICE in the systemd unit, or use higher ports"
        yield Finding("problem", what, advice)


def _gpus(config: Config, environ: Mapping[str, str]) -> Iterator[Finding]:
    from servd.host.gpu_helper import NO_PYNVML
    from servd.host.gpu_query import ask_gpus
    from servd.host.gpus import usable_gpus

    if not any(service.gpus for service in config.services.values()):
        return
    answer = ask_gpus(environ)
    there = usable_gpus(config.daemon.gpus, environ, answer.snapshot).ids
    if not there:
        advice = _GPU_ADVICE if answer.error == NO_PYNVML else _DRIVER_ADVICE
        why = f" ({answer.error})" if answer.error else ""
        yield Finding("problem", f"GPUs: {'unknown' if answer.is_unknown else 'none'}{why}", advice)
        return
    shown = ", ".join(_gpu_text(name, answer.snapshot) for name in there)
    yield Finding("ok", f"GPUs: {len(there)} ({shown})")
    if answer.snapshot is None:
        yield Finding("warning", f"memory of GPUs is not measured: {answer.error}")
    elif not answer.snapshot.names_processes:
        what = "memory of GPUs is measured per GPU, not per worker: the driver's pids are others"
        yield Finding("warning", what, "run the container with the host's pid namespace")


def _gpu_text(name: str, snapshot: GpuSnapshot | None) -> str:
    gpu = snapshot.find(name) if snapshot is not None else None
    return f"{gpu.name} {gpu.visible}, {gpu.total / _GIB:.1f} GiB" if gpu is not None else name


def _may_bind_low_ports() -> bool:
    try:
        with open("/proc/self/status", encoding="ascii") as file:
            fields = dict(line.split(":", 1) for line in file if ":" in line)
        return bool(int(fields["CapEff"], 16) >> _CAP_NET_BIND_SERVICE & 1)
    except (OSError, KeyError, ValueError):
        return os.geteuid() == 0


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return ""


def _number(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read())
    except (OSError, ValueError):
        return None


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python, _name, _circus, _uvicorn, _extras, _limits, _watches,
)  # fmt: skip
