"""Certificates and keys are looked at before anything is started with them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import trustme
from cryptography.hazmat.primitives import serialization as s

from servd.config.load import load
from servd.core.diagnostics import Diagnostic


def found(folder: Path, **tls: str) -> list[Diagnostic]:
    settings = {"certfile": "cert.pem", "keyfile": "key.pem", **tls}
    inner = "\n".join(f'{key} = "{value}"' for key, value in settings.items())
    (folder / "main.py").touch()
    (folder / "servd.toml").write_text(
        f'[services.web]\napp = "main:app"\n[services.web.tls]\n{inner}\n'
    )
    return list(load(str(folder / "servd.toml"), {}).diagnostics)


def issue(folder: Path, not_after: datetime | None = None) -> None:
    certificate = trustme.CA().issue_cert("localhost", not_after=not_after)
    certificate.private_key_pem.write_to_path(str(folder / "key.pem"))
    certificate.cert_chain_pems[0].write_to_path(str(folder / "cert.pem"))


def test_a_pair_that_fits_is_fine(tmp_path: Path) -> None:
    issue(tmp_path, datetime.now(UTC) + timedelta(days=90))
    assert found(tmp_path) == []


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    issue(tmp_path)
    trustme.CA().issue_cert("x").private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (mistake,) = found(tmp_path)
    assert mistake.path == "services.web.tls.keyfile"
    assert "the key does not match" in mistake.message


@pytest.mark.parametrize(("days", "words"), [(-1, "expired on"), (3, "expires on")])
def test_the_end_of_a_certificate_is_a_warning(tmp_path: Path, days: int, words: str) -> None:
    issue(tmp_path, datetime.now(UTC) + timedelta(days=days))
    (warning,) = found(tmp_path)
    assert warning.severity == "warning"
    assert words in warning.message


def test_an_encrypted_key_needs_its_password(tmp_path: Path) -> None:
    issue(tmp_path)
    key = s.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    pem = key.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"pw"))
    (tmp_path / "key.pem").write_bytes(pem)
    assert found(tmp_path)[0].hint == "set keyfile_password"
    assert found(tmp_path, keyfile_password="wrong")[0].hint == "check keyfile_password"
    assert found(tmp_path, keyfile_password="pw") == []


def test_files_that_hold_something_else_are_named(tmp_path: Path) -> None:
    issue(tmp_path)
    (tmp_path / "ca.pem").write_text("nothing")
    (mistake,) = found(tmp_path, ca_certs="ca.pem")
    assert "contains no PEM certificates" in mistake.message
    (mistake,) = found(tmp_path, ciphers="NO-SUCH-CIPHER")
    assert "OpenSSL supports none of these ciphers" in mistake.message
    (tmp_path / "cert.pem").write_text("nothing")
    (mistake,) = found(tmp_path)
    assert "contains no PEM certificate" in mistake.message


def test_client_certificates_need_something_to_be_checked_by(tmp_path: Path) -> None:
    issue(tmp_path)
    (mistake,) = found(tmp_path, client_auth="required")
    assert mistake.path == "services.web.tls.client_auth"


@pytest.mark.parametrize("key", ["certfile", "keyfile", "ca_certs"])
def test_files_that_are_not_there_are_named(tmp_path: Path, key: str) -> None:
    issue(tmp_path)
    (mistake,) = found(tmp_path, **{key: "gone.pem"})
    assert mistake.path == f"services.web.tls.{key}"
    assert "No such file" in mistake.message
