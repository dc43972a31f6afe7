"""The TLS context of a worker, from PEM that the daemon read."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from servd.wire.worker_spec import TlsSpec

_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class AlertingSSLObject(ssl.SSLObject):
    """A TLS connection whose refusal the client gets to know.

    asyncio and uvloop drop a connection whose handshake fails without sending what OpenSSL wrote
    for the client: the alert that says why. They do send it where a handshake merely wants more,
    so the failure is reported as that the first time, and as itself once the client has answered
    or gone (or the handshake's timeout is over). OpenSSL has nothing to say to some: to a client
    that speaks plain HTTP, for one, whose connection ends at once.
    """

    _failure: ssl.SSLError | None = None
    _outgoing: ssl.MemoryBIO | None = None

    @classmethod
    def _create(cls, incoming: Any, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> Any:
        """What `SSLContext.wrap_bio` calls."""
        made = super()._create(incoming, outgoing, *args, **options)  # type: ignore[misc]
        made._outgoing = outgoing
        return made

    def do_handshake(self) -> None:
        """As in the base class, with the failure one step later."""
        if self._failure is not None:
            raise self._failure
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as failure:
            if self._outgoing is None or not self._outgoing.pending:
                raise
            self._failure = failure
            raise ssl.SSLWantReadError from failure


def tls_context(spec: TlsSpec) -> ssl.SSLContext:
    """A server's context.

    Raises ssl.SSLError or ValueError when the material does not fit together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = AlertingSSLObject
    context.minimum_version = (
        ssl.TLSVersion.TLSv1_3 if spec.min_version == "TLSv1.3" else ssl.TLSVersion.TLSv1_2
    )
    if spec.ciphers:
        context.set_ciphers(spec.ciphers)
    context.set_alpn_protocols(["http/1.1"])
    with _as_file(spec.certificate) as certificate, _as_file(spec.key) as key:
        context.load_cert_chain(certificate, key, lambda: spec.password)
    context.verify_mode = _VERIFY[spec.client_auth]
    if spec.authorities:
        context.load_verify_locations(cadata=spec.authorities)
    return context


def load_pair(context: ssl.SSLContext, spec: TlsSpec) -> None:
    """New handshakes of `context` show the certificate of `spec` from now on.

    The pair is tried in a context of its own first: one that does not fit together would leave a
    live context broken (OpenSSL replaces the certificate before it looks at the key). Raises
    ssl.SSLError or ValueError, and `context` stays as it is.
    """
    tls_context(spec)
    with _as_file(spec.certificate) as certificate, _as_file(spec.key) as key:
        context.load_cert_chain(certificate, key, lambda: spec.password)


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """A name under which `text` can be opened: load_cert_chain takes files only.

    In memory on Linux (memfd_create(2)), so that no key is written to a disk.
    """
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("servd-tls")
        try:
            os.write(descriptor, text.encode())
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        import tempfile

        with tempfile.NamedTemporaryFile("w") as file:
            file.write(text)
            file.flush()
            yield file.name
