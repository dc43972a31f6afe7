"""Checks the files, users and programs that a configuration names. Impure."""

from __future__ import annotations

import contextlib
import dataclasses
import grp
import os
import pwd
import re
import shutil
import stat
import warnings
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from servd.config.connections import Tls
from servd.config.env_file import EnvFileError, read_env_file
from servd.config.http_file import RequestFileError, read_request_file
from servd.config.merge import is_file_target
from servd.config.request_files import request_files_of_service
from servd.config.service import EnvFile, Service
from servd.config.tree import Path
from servd.config.validation_context import ValidationContext
from servd.core.diagnostics import Diagnostic, Place
from servd.core.regular_file import open_regular

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
    from cryptography.x509 import Certificate

EXPIRES_SOON_DAYS = 14


def check_files(checked: ValidationContext, now: datetime | None = None) -> list[Diagnostic]:
    """Returns the mistakes in what the configuration refers to, as of `now`."""
    config = checked.config
    found = check_files_of(config.services, checked, now)
    found += _env_files(checked, ("defaults", "env_file"), config.defaults.env_file)
    found += _account(checked, ("admin", "group"), config.admin.group)
    if config.admin.token_file:
        found += _token_file(checked, ("admin", "token_file"), config.admin.token_file)
    for index, hook in enumerate(config.hooks):
        if hook.command and shutil.which(hook.command[0]) is None:
            message = f"program not found or not executable: {hook.command[0]}"
            found.append(checked.problem(("hooks", index, "command"), message, code="file"))
    return found


def check_files_of(
    names: Iterable[str], checked: ValidationContext, now: datetime | None = None
) -> list[Diagnostic]:
    """Returns the mistakes in what these services refer to, as of `now`."""
    now = now or datetime.now(UTC)
    found: list[Diagnostic] = []
    for name in names:
        service = checked.config.services[name]
        path: Path = ("services", name)
        found += _directory(checked, path, service)
        found += _target(checked, path, service)
        found += _interpreter(checked, path, service)
        found += _env_files(checked, (*path, "env_file"), service.env_file)
        found += _accounts(checked, path, service)
        found += _cpus(checked, (*path, "cpu_affinity"), service)
        found += _inputs(checked, (*path, "inputs"), service.inputs)
        found += _request_files(checked, path, service)
        found += _log_file(checked, (*path, "log", "file"), service.log.file)
        if service.tls is not None:
            found += _tls(checked, (*path, "tls"), service.tls, now)
    return found


def _token_file(checked: ValidationContext, path: Path, file: str) -> Iterator[Diagnostic]:
    """The file contains a token and is not readable by all users."""
    unreadable = list(_readable(checked, path, file))
    yield from unreadable
    if unreadable:
        return
    with open_regular(file) as opened:
        if not opened.read(65536).strip():
            yield checked.problem(path, f"{file} contains no token", code="file")
        elif os.fstat(opened.fileno()).st_mode & stat.S_IROTH:
            yield checked.problem(
                path, f"{file} is readable by all users", f"chmod o-r {file}", severity="warning"
            )


def _readable(checked: ValidationContext, path: Path, file: str) -> Iterator[Diagnostic]:
    try:
        with open_regular(file):
            return
    except OSError as error:
        yield checked.problem(path, f"cannot read {file}: {error.strerror}", code="file")


def _log_file(checked: ValidationContext, path: Path, file: str) -> Iterator[Diagnostic]:
    """The folder of a log exists, and the log is not a folder."""
    folder = os.path.dirname(file)
    if not file:
        return
    if not os.path.isdir(folder):
        yield checked.problem(path, _no_folder(folder), code="file")
    elif os.path.isdir(file):
        yield checked.problem(path, f"{file} is a folder", "name a file", code="file")


def _directory(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    if not os.path.isdir(service.directory):
        yield checked.problem((*path, "directory"), _no_folder(service.directory), code="file")


def _no_folder(path: str) -> str:
    return f"{path} is not a folder" if os.path.exists(path) else f"folder not found: {path}"


def _target(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    if service.app and is_file_target(service.app):
        yield from _readable(checked, (*path, "app"), service.app.rpartition(":")[0])
    elif service.command and service.command[0] and os.path.isdir(service.directory):
        program = service.command[0]
        search = service.env.get("PATH", checked.config.defaults.env.get("PATH"))
        local = os.path.join(service.directory, program)
        if checked.which(local if "/" in program else program, search) is None:
            is_there = "/" in program and os.path.exists(local)
            reason = "not executable" if is_there else "not found"
            searched = "" if "/" in program else " (searched PATH)"
            message = f"program {reason}: {program}{searched}"
            yield checked.problem((*path, "command"), message, code="file")


def _interpreter(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    """The interpreter is executable; its packages are checked at start."""
    if service.python and shutil.which(service.python) is None:
        reason = "not executable" if os.path.exists(service.python) else "not found"
        message = f"interpreter {reason}: {service.python}"
        hint = "write the path of an interpreter, such as venv/bin/python"
        yield checked.problem((*path, "python"), message, hint, code="file")


def _env_files(
    checked: ValidationContext, path: Path, files: Iterable[EnvFile]
) -> Iterator[Diagnostic]:
    for index, file in enumerate(files):
        item = (*path, index)
        try:
            read_env_file(file.path)
        except FileNotFoundError as error:
            if file.required:
                message = f"cannot read {file.path}: {error.strerror}"
                hint = "write { path = ..., required = false } for an optional file"
                yield checked.problem(item, message, hint, code="file")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8"
            yield checked.problem(item, f"cannot read {file.path}: {reason}", code="file")
        except EnvFileError as error:
            yield checked.problem(item, str(error), code="file")


def _inputs(checked: ValidationContext, path: Path, inputs: Iterable[str]) -> Iterator[Diagnostic]:
    """What is missing may come later: that is a change."""
    for index, each in enumerate(inputs):
        if not os.path.lexists(each):
            message = f"file not found: {each}"
            yield checked.problem((*path, index), message, severity="warning", code="file")


def _request_files(
    checked: ValidationContext, path: Path, service: Service
) -> Iterator[Diagnostic]:
    """What a file contains is a request; a mistake in it has its place there."""
    for table, file in request_files_of_service(service).items():
        item = (*path, table, "request")
        unreadable = list(_readable(checked, item, file))
        yield from unreadable
        if unreadable:
            continue
        try:
            read_request_file(file)
        except RequestFileError as error:
            there = Place(file, error.line, 1)
            named = checked.problem(item, str(error), error.hint, code="request_file")
            yield dataclasses.replace(named, place=there, related=named.place)


def _account(checked: ValidationContext, path: Path, name: str) -> Iterator[Diagnostic]:
    """The user exists, or the group if the last key is `group`."""
    kind = "group" if path[-1] == "group" else "user"
    try:
        if name:
            (grp.getgrnam if kind == "group" else pwd.getpwnam)(name)
    except KeyError:
        yield checked.problem(path, f'unknown {kind} "{name}"', code="user")


def _accounts(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    unknown = list(_account(checked, (*path, "user"), service.user))
    yield from unknown
    yield from _account(checked, (*path, "group"), service.group)
    yield from _account(checked, (*path, "socket", "group"), service.socket.group)
    yield from _account(checked, (*path, "socket", "owner"), service.socket.owner)
    if service.user and not unknown and os.geteuid() not in (0, pwd.getpwnam(service.user).pw_uid):
        message = f'only root can run a service as user "{service.user}"'
        yield checked.problem((*path, "user"), message, code="user")


def _cpus(checked: ValidationContext, path: Path, service: Service) -> Iterator[Diagnostic]:
    """The CPUs that workers are bound to exist."""
    if isinstance(service.cpu_affinity, str) or not service.cpu_affinity:
        return
    last = _last_cpu()
    for index, cpu in enumerate(service.cpu_affinity):
        if cpu > last:
            message = f"unknown CPU {cpu}: this machine has CPUs 0 to {last}"
            yield checked.problem((*path, index), message)


def _last_cpu() -> int:
    """Returns the highest id of an online CPU, as the kernel counts them."""
    try:
        with open("/sys/devices/system/cpu/online", encoding="ascii") as file:
            return int(re.split("[-,]", file.read().strip())[-1])
    except (OSError, ValueError):
        return (os.cpu_count() or 1) - 1


def _tls(checked: ValidationContext, path: Path, tls: Tls, now: datetime) -> Iterator[Diagnostic]:
    unreadable = [
        problem
        for key in ("certfile", "keyfile", "ca_certs")
        if getattr(tls, key)
        for problem in _readable(checked, (*path, key), getattr(tls, key))
    ]
    yield from unreadable
    if unreadable:
        return
    pair = _pair(checked, path, tls, now) if tls.certfile else ()
    found = [*pair, *_openssl_reads(checked, path, tls)]
    yield from found
    if tls.certfile and not any(problem.severity == "error" for problem in found):
        yield from _openssl_takes(checked, path, tls)


def _openssl_takes(checked: ValidationContext, path: Path, tls: Tls) -> Iterator[Diagnostic]:
    """A worker can use the pair: OpenSSL refuses short keys and weak signatures, for example."""
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.certfile, tls.key_source, lambda: tls.keyfile_password)
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or str(error)
        message = f"OpenSSL rejects the certificate: {reason.lower().replace('_', ' ')}"
        yield checked.problem((*path, "certfile"), message, code="tls")


class _PemError(Exception):
    """The file of the key `key` of `tls` is unusable."""

    def __init__(self, key: str, message: str, hint: str = "") -> None:
        self.key, self.hint = key, hint
        super().__init__(message)


def _pair(checked: ValidationContext, path: Path, tls: Tls, now: datetime) -> Iterator[Diagnostic]:
    """The certificate can be read, matches its key, and is valid at `now`."""
    try:
        certificate, certified = _certificate(tls)
        belongs = _private_key(tls).public_key() == certified
    except _PemError as error:
        yield checked.problem((*path, error.key), str(error), error.hint, code="tls")
        return
    if not belongs:
        yield checked.problem(
            (*path, "keyfile" if tls.keyfile else "certfile"),
            f"the key does not match {tls.certfile}",
            code="tls",
        )
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if end < now:
        message, code = f"the certificate expired on {end:%Y-%m-%d}", "expired"
    elif (end - now).days < EXPIRES_SOON_DAYS:
        message, code = f"the certificate expires on {end:%Y-%m-%d}", "expires_soon"
    elif begin > now:
        message, code = f"the certificate is not valid before {begin:%Y-%m-%d}", "not_yet_valid"
    else:
        return
    yield checked.problem((*path, "certfile"), message, severity="warning", code=code)


def _certificate(tls: Tls) -> tuple[Certificate, object]:
    """Returns the certificate and its public key. Raises `_PemError`."""
    from cryptography import x509

    with open_regular(tls.certfile) as file:
        pem = file.read()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            certificate = x509.load_pem_x509_certificate(pem)
            return certificate, certificate.public_key()
    except Exception:  # cryptography raises many kinds for bad input
        raise _PemError("certfile", f"{tls.certfile} contains no PEM certificate") from None


def _private_key(tls: Tls) -> PrivateKeyTypes:
    """Returns the private key; ignores a needless password. Raises `_PemError`."""
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    file_name, key = tls.key_source, "keyfile" if tls.keyfile else "certfile"
    with open_regular(file_name) as file:
        pem = file.read()
    password = tls.keyfile_password.encode() or None
    try:
        with contextlib.suppress(TypeError):
            return load_pem_private_key(pem, password)
        if password is not None:
            return load_pem_private_key(pem, None)
    except Exception:
        message = f"{file_name} contains no readable PEM private key"
        hint = "check keyfile_password" if password is not None else ""
        raise _PemError(key, message, hint or ("" if tls.keyfile else "set keyfile")) from None
    raise _PemError(key, f"{file_name} is encrypted", "set keyfile_password")


def _openssl_reads(checked: ValidationContext, path: Path, tls: Tls) -> Iterator[Diagnostic]:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    for key, read, message in (
        ("ca_certs", context.load_verify_locations, f"{tls.ca_certs} contains no PEM certificates"),
        ("ciphers", context.set_ciphers, "OpenSSL supports none of these ciphers"),
    ):
        try:
            if getattr(tls, key):
                read(getattr(tls, key))
        except (OSError, ValueError):
            yield checked.problem((*path, key), message, code="tls")
