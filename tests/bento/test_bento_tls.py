"""TLS of BentoML services: on the command line, in a file and in the code."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx
import pytest
import trustme
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)

from support.harness import DEADLINE, Servd, free_port, wait_until
from support.with_bentoml import PYTHON, bentoml_serve, environ

PLAIN = """
    import bentoml

    @bentoml.service
    class Plain:
        @bentoml.api
        def hello(self) -> str:
            return "hello"
"""
PASSWORD = "hunter2"


@pytest.fixture
def authority(servd: Servd) -> trustme.CA:
    """Its certificate is `ca.pem`; `both.pem` and `reverse.pem` have a certificate and its key."""
    found = trustme.CA()
    found.cert_pem.write_to_path(str(servd.folder / "ca.pem"))
    issued(found, servd.folder)
    return found


def issued(authority: trustme.CA, folder: Path) -> None:
    """Writes a new certificate into the files."""
    made = authority.issue_cert("localhost", "127.0.0.1")
    certificate, key = made.cert_chain_pems[0].bytes(), made.private_key_pem.bytes()
    locked = load_pem_private_key(key, None).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(PASSWORD.encode())
    )
    (folder / "both.pem").write_bytes(certificate + key)
    (folder / "reverse.pem").write_bytes(key + certificate)
    (folder / "locked.pem").write_bytes(locked + certificate)
    (folder / "certificate.pem").write_bytes(certificate)


def hello(folder: Path, url: str) -> str:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    answer = httpx.post(f"{url}/hello", json={}, verify=context, timeout=DEADLINE)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.usefixtures("authority")
def test_serve_takes_a_certificate_and_its_key_from_one_file_as_bentoml_does(servd: Servd) -> None:
    servd.write(service_py=PLAIN)
    for options in (
        ["--ssl-certfile=both.pem"],
        ["--ssl-certfile=reverse.pem"],
        ["--ssl-certfile=locked.pem", f"--ssl-keyfile-password={PASSWORD}"],
    ):
        with bentoml_serve("service:Plain", servd.folder, *options, scheme="https") as url:
            assert hello(servd.folder, url) == "hello"
        port = free_port()
        argv = ["serve", "service:Plain", "--host=127.0.0.1", f"--port={port}", *options]
        daemon = servd.run(*argv, interpreter=PYTHON, environ=environ(servd.folder)).ready()
        assert hello(servd.folder, f"https://127.0.0.1:{port}") == "hello"
        assert daemon.stop() == 0


@pytest.mark.usefixtures("authority")
def test_a_file_without_the_key_is_refused_with_a_hint(servd: Servd) -> None:
    servd.write(service_py=PLAIN)
    argv = ["serve", "service:Plain", "--ssl-certfile=certificate.pem"]
    daemon = servd.run(*argv, interpreter=PYTHON, environ=environ(servd.folder))
    assert daemon.wait() == 78
    assert "certificate.pem contains no readable PEM private key" in daemon.output
    assert "set keyfile" in daemon.output


def test_one_file_in_a_configuration_and_in_the_code_is_served_and_renewed(
    servd: Servd, authority: trustme.CA
) -> None:
    coded = PLAIN.replace("Plain", "Coded").replace(
        "@bentoml.service", '@bentoml.service(ssl={"enabled": True, "certfile": "both.pem"})'
    )
    config = f"""
        [defaults]
        python = "{PYTHON}"
        [services.plain]
        bento = "service:Plain"
        listen = "127.0.0.1:0"
        tls = {{ certfile = "both.pem" }}
        [services.coded]
        bento = "coded:Coded"
        listen = "127.0.0.1:0"
    """
    daemon = servd(config, service_py=PLAIN, coded_py=coded, environ=environ(servd.folder)).ready()
    for name in ("plain", "coded"):
        assert hello(servd.folder, daemon.url(name)) == "hello"
    pids = [daemon.pids(name) for name in ("plain", "coded")]
    before = [shown(daemon.url(name)) for name in ("plain", "coded")]
    issued(authority, servd.folder)
    daemon.reload()
    urls = [daemon.url(name) for name in ("plain", "coded")]
    wait_until(
        lambda: not set(map(shown, urls)) & set(before), "new connections have the new certificate"
    )
    for name in ("plain", "coded"):
        assert hello(servd.folder, daemon.url(name)) == "hello"
    assert [daemon.pids(name) for name in ("plain", "coded")] == pids


def shown(url: str) -> str:
    """The certificate that a server shows."""
    host, port = url.removeprefix("https://").split(":")
    return ssl.get_server_certificate((host, int(port)))
