"""The ASGI TLS extension (version 0.2): what an app is told of a connection's certificates."""

from __future__ import annotations

from typing import Any

_VERSIONS = {"TLSv1.2": 0x0303, "TLSv1.3": 0x0304}
_SHORT_NAMES = {
    "commonName": "CN", "countryName": "C", "domainComponent": "DC", "localityName": "L",
    "organizationName": "O", "organizationalUnitName": "OU", "stateOrProvinceName": "ST",
    "streetAddress": "STREET", "userId": "UID",
}  # fmt: skip
"""Names of attributes in RFC 4514, 3; others keep OpenSSL's."""

_SPECIAL = frozenset('",+;<>\\')


def tls_extension(transport: Any) -> dict[str, Any] | None:
    """Returns the extension for a connection; None if it is not TLS. Python tells the client's own
    certificate alone, and not the server's.
    """
    connection = transport.get_extra_info("ssl_object")
    if connection is None:
        return None
    from ssl import DER_cert_to_PEM_cert

    found = connection.getpeercert(binary_form=True)
    name, _, _ = connection.cipher() or ("", "", 0)
    suites = {suite["name"]: suite["id"] & 0xFFFF for suite in connection.context.get_ciphers()}
    return {
        "server_cert": None,
        "client_cert_chain": [DER_cert_to_PEM_cert(found)] if found else [],
        "client_cert_name": distinguished_name(connection.getpeercert() or {}),
        "client_cert_error": None,
        "tls_version": _VERSIONS.get(connection.version()),
        "cipher_suite": suites.get(name),
    }


def distinguished_name(certificate: Any) -> str | None:
    """Returns the subject of `ssl.SSLSocket.getpeercert` as RFC 4514 writes it: the last part
    first. None without a certificate.
    """
    parts = certificate.get("subject")
    if not parts:
        return None
    return ",".join(
        "+".join(f"{_SHORT_NAMES.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(parts)
    )


def _escaped(value: str) -> str:
    text = "".join(f"\\{sign}" if sign in _SPECIAL else sign for sign in value)
    if text.startswith(("#", " ")):
        text = f"\\{text}"
    return f"{text[:-1]}\\ " if text.endswith(" ") and len(text) > 1 else text
