"""Gathers the facts of the machine for planning into a frozen value. Impure."""

from __future__ import annotations

import contextlib
import io
import math
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from servd.config.check_runners import binds_itself
from servd.config.env_file import read_env_file
from servd.config.http_file import RequestFile, RequestFileError, read_request_file
from servd.config.model import Config
from servd.config.request_files import request_files_of
from servd.core.errors import StartError
from servd.core.exhaustion import is_exhaustion
from servd.core.regular_file import open_regular
from servd.host.identity import account, group_id
from servd.host.inputs import states_of
from servd.plan.host import Host


def inspect_host(
    config: Config,
    environ: Mapping[str, str],
    *,
    ports: bool = False,
    known_ports: Mapping[str, int] | None = None,
) -> Host:
    """Returns the facts that planning `config` needs. `ports` asks the system for free ports, for a
    real start; `known_ports` are those of running services. Missing users and files are left out.
    """
    import sys

    cpus = usable_ids()
    services = config.services.values()
    users = {user for s in services for user in (s.user, s.socket.owner)}
    groups = {group for s in services for group in (s.group, s.socket.group)}
    tables = (config.defaults, *services)
    files = {file.path for table in tables for file in table.env_file}
    with_tls = [s.tls for s in services if s.tls is not None]
    pem_files = {file for tls in with_tls for file in (tls.certfile, tls.keyfile, tls.ca_certs)}
    return Host(
        cpus=cpus,
        usable_cpus=usable_cpus(cpus, read_quota()),
        is_root=os.geteuid() == 0,
        environ=dict(environ),
        accounts={name: user for name in users - {""} if (user := account(name))},
        groups={name: found for name in groups - {""} if (found := group_id(name)) is not None},
        env_files={file: _variables(file) for file in files},
        ports=_free_ports(config, known_ports or {}) if ports else {},
        pem_files=read_texts(pem_files),
        inputs=states_of({path for service in services for path in service.inputs}),
        requests=_requests(config),
        python=sys.executable,
    )


def usable_ids() -> tuple[int, ...]:
    """Returns the CPUs that this process may run on (sched_getaffinity(2))."""
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def usable_cpus(cpus: tuple[int, ...], quota: float | None) -> int:
    """Returns the number of CPUs within the affinity and the cgroup's quota."""
    return max(1, min(len(cpus), math.ceil(quota) if quota else len(cpus)))


def read_quota(root: str = "/sys/fs/cgroup", membership: str = "/proc/self/cgroup") -> float | None:
    """Returns the CPU quota of the tightest enclosing cgroup (cpu.max or cfs_quota_us), or None."""
    folders = _cgroup_folders(root, membership)
    quotas = [quota(folder) for folder in folders for quota in (_quota_v2, _quota_v1)]
    return min((quota for quota in quotas if quota is not None), default=None)


def _cgroup_folders(root: str, membership: str) -> list[Path]:
    try:
        lines = Path(membership).read_text().splitlines()
    except OSError:
        return []
    folders: list[Path] = []
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        top = Path(root, "cpu") if controllers else Path(root)
        own = top / path.lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(top))]
    return folders


def _quota_v2(folder: Path) -> float | None:
    try:
        quota, period = (folder / "cpu.max").read_text().split()[:2]
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None


def _quota_v1(folder: Path) -> float | None:
    try:
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = (int((folder / name).read_text()) for name in names)
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 and period > 0 else None


def read_texts(files: Iterable[str]) -> dict[str, str]:
    """Returns the text of the readable `files`. Raises `StartError` on resource exhaustion."""
    texts: dict[str, str] = {}
    for path in set(files) - {""}:
        try:
            opened = open_regular(path)
            with io.TextIOWrapper(opened, encoding="utf-8", errors="replace") as file:
                texts[path] = file.read()  # comments in any encoding
        except OSError as error:
            _raise_exhaustion(path, error)
    return texts


def _raise_exhaustion(path: str, error: OSError) -> None:
    if is_exhaustion(error):
        raise StartError(f"cannot read {path}: {error.strerror}") from None


def _variables(file: str) -> Mapping[str, str]:
    try:
        return read_env_file(file)
    except OSError as error:
        _raise_exhaustion(file, error)
        return {}
    except ValueError:
        return {}


def _requests(config: Config) -> dict[str, RequestFile]:
    """Returns what the readable request files contain. Raises `StartError` on exhaustion."""
    found: dict[str, RequestFile] = {}
    for path in request_files_of(config):
        try:
            found[path] = read_request_file(path)
        except OSError as error:
            _raise_exhaustion(path, error)
        except RequestFileError:
            continue
    return found


def _free_ports(config: Config, known: Mapping[str, int]) -> dict[str, int]:
    """Returns the `known` or a free port for each command that needs one and has none."""
    ports: dict[str, int] = {}
    with contextlib.ExitStack() as held:
        for name, service in sorted(config.services.items()):
            wants = any("{port}" in argument for argument in service.command)
            has = any(a.kind == "tcp" and a.port for a in service.listen)
            if not (binds_itself(service) and wants and not has):
                continue
            if name in known:
                ports[name] = known[name]
            else:
                probe = held.enter_context(socket.socket())
                probe.bind(("127.0.0.1", 0))
                ports[name] = probe.getsockname()[1]
    return ports
