"""TLS contexts of workers, from PEM text that the daemon read."""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from servd.wire.worker_spec import TlsSpec

_VERIFY = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


class AlertingSSLObject(ssl.SSLObject):
    """A TLS connection that sends its alert to the client when the handshake fails. asyncio and
    uvloop drop a failed connection without OpenSSL's pending alert, and send pending data only when
    a handshake wants to read. So the first failure is raised as SSLWantReadError, and as itself
    once the client has answered or gone; without a pending alert (plain HTTP), at once.
    """

    _failure: ssl.SSLError | None = None
    _outgoing: ssl.MemoryBIO | None = None

    @classmethod
    def _create(cls, incoming: Any, outgoing: ssl.MemoryBIO, *args: Any, **options: Any) -> Any:
        """Called by `SSLContext.wrap_bio`."""
        made = super()._create(incoming, outgoing, *args, **options)  # type: ignore[misc]
        made._outgoing = outgoing
        return made

    def do_handshake(self) -> None:
        """Runs the handshake; raises a failure one step later if an alert is pending."""
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
    """Returns a server context. Raises ssl.SSLError or ValueError for mismatched material."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.sslobject_class = AlertingSSLObject
    context.minimum_version = ssl.TLSVersion[spec.min_version.replace(".", "_")]
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
    """Replaces the certificate and key of `context` for new handshakes. They are loaded into a new
    context first: OpenSSL replaces the certificate before it checks the key. Raises ssl.SSLError or
    ValueError, and leaves `context` unchanged.
    """
    tls_context(spec)
    with _as_file(spec.certificate) as certificate, _as_file(spec.key) as key:
        context.load_cert_chain(certificate, key, lambda: spec.password)


@contextmanager
def _as_file(text: str) -> Iterator[str]:
    """Yields a path with `text` (load_cert_chain takes files): in memory on Linux, no disk."""
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
