"""Certificates and keys as the daemon reads them, before any worker has dropped its rights."""

from __future__ import annotations

from servd.config.service import Tls
from servd.errors import StartError
from servd.wire.worker_spec import TlsSpec


def read_tls(tls: Tls) -> TlsSpec:
    """The material that `tls` names.

    Raises `StartError` when a file cannot be read.
    """
    return TlsSpec(
        certificate=_read(tls.certfile),
        key=_read(tls.keyfile),
        password=tls.keyfile_password,
        authorities=_read(tls.ca_certs) if tls.ca_certs else "",
        client_auth=tls.client_auth,
        min_version=tls.min_version,
        ciphers=tls.ciphers,
    )


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not PEM"
        raise StartError(f"cannot read {path}: {reason}") from None
