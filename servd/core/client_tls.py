"""TLS of a client: what verifies a server, and what the client shows of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ssl import SSLContext


def client_context(ca_certs: str = "", certfile: str = "", keyfile: str = "") -> SSLContext:
    """Returns a context that verifies servers by the certificates in the file `ca_certs` ("": those
    that the system trusts), with a certificate of the client's own if `certfile` names one. Raises
    OSError, and ValueError for a key with a password.
    """
    import ssl

    context = ssl.create_default_context(cafile=ca_certs or None)
    if certfile:
        context.load_cert_chain(certfile, keyfile or None, _no_password)
    return context


def _no_password() -> str:
    """Keeps OpenSSL from asking the terminal."""
    raise ValueError("the key has a password, which a client cannot be given")
