"""Imports modules of the standard library without OpenSSL, which they load whether it is used or
not. It is an eighth of a daemon's memory that serves no TLS.
"""

from __future__ import annotations

import importlib

from servd.core.lean_import import LateModule, late_ssl, stand_ins

_OTHER_DIGESTS = ("_blake2", "_md5", "_sha1", "_sha3")
"""Modules of the interpreter with digests that are not OpenSSL's. Some systems build it without."""


def import_without_openssl() -> None:
    """Imports asyncio, which can still do TLS, and hashlib with the interpreter's own digests; and
    shutil, which packs no archives here, without the compression that it would do.
    """
    protocol = LateModule("asyncio.sslproto")
    with stand_ins({"ssl": late_ssl(), protocol.__name__: protocol}):
        package = importlib.import_module("asyncio")
    if not hasattr(package, "sslproto"):
        package.sslproto = protocol  # type: ignore[attr-defined]  # as its import would
    with stand_ins({"bz2": None, "lzma": None}):
        importlib.import_module("shutil")
    if _has_other_digests():
        with stand_ins({"_hashlib": None}):
            importlib.import_module("hashlib")
            importlib.import_module("hmac")


def _has_other_digests() -> bool:
    try:
        for name in _OTHER_DIGESTS:
            importlib.import_module(name)
    except ImportError:
        return False
    return True
