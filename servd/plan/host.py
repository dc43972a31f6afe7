"""Facts of the machine for planning, as frozen values. `servd.host` gathers them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from servd.config.http_file import RequestFile
from servd.core.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Account:
    """A user of this machine, with the groups of its processes."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


@dataclass(frozen=True, slots=True)
class Host:
    """Facts about this machine and process. `cpus` are the ids that this process may run on,
    `usable_cpus` their number within the cgroup's quota. `ports` are free ones by service.
    `pem_files` is the text of certificates and keys, read before workers drop their privileges.
    `inputs` are the states of what services take in, `requests` what request files contain.
    """

    cpus: tuple[int, ...]
    usable_cpus: int
    is_root: bool = False
    environ: Mapping[str, str] = field(default_factory=dict)
    accounts: Mapping[str, Account] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)
    env_files: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    pem_files: Mapping[str, str] = field(default_factory=dict, repr=False)
    inputs: Mapping[str, str] = field(default_factory=dict)
    requests: Mapping[str, RequestFile] = field(default_factory=dict, repr=False)
    python: str = ""
