"""TLS as a service is configured to have it, spoken by real clients."""

from __future__ import annotations

import json
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import psutil
import pytest
import trustme
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from websockets.sync.client import connect

from servd.worker.client_certificate import distinguished_name

from support.harness import DEADLINE, Servd, ServdProcess, command

APP = """
    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["scheme"].encode()})
"""


@pytest.fixture
def authority(tmp_path: Path) -> trustme.CA:
    """A certificate authority, with a server's certificate and its own in the test's folder."""
    authority = trustme.CA()
    server = authority.issue_cert("localhost", "127.0.0.1")
    server.private_key_pem.write_to_path(str(tmp_path / "key.pem"))
    (tmp_path / "cert.pem").write_bytes(b"".join(b.bytes() for b in server.cert_chain_pems))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return authority


def config(**tls: str) -> str:
    settings = {"certfile": "cert.pem", "keyfile": "key.pem", **tls}
    lines = "\n".join(f'{key} = "{value}"' for key, value in settings.items())
    return f"""
[services.web]
app = "main:app"
listen = "127.0.0.1:0"
[services.web.tls]
{lines}
"""


def client_context(authority: trustme.CA, identity: str | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    if identity is not None:
        authority.issue_cert(identity).configure_cert(context)
    return context


def address(daemon: ServdProcess) -> tuple[str, int]:
    host, port = daemon.url("web").removeprefix("https://").split(":")
    return host, int(port)


def handshake(daemon: ServdProcess, context: ssl.SSLContext) -> str | None:
    with (
        socket.create_connection(address(daemon), DEADLINE) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secured,
    ):
        secured.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = b""
        while chunk := secured.recv(65536):
            answer += chunk
        assert answer.endswith(b"https\r\n0\r\n\r\n"), answer
        return secured.version()


def test_tls_1_3_with_a_client_certificate(servd: Servd, authority: trustme.CA) -> None:
    daemon = servd(config(ca_certs="ca.pem", client_auth="required"), main_py=APP).ready()
    assert handshake(daemon, client_context(authority, "me@example.org")) == "TLSv1.3"


def test_a_client_without_a_certificate_is_refused_where_one_is_required(
    servd: Servd, authority: trustme.CA
) -> None:
    daemon = servd(config(ca_certs="ca.pem", client_auth="required"), main_py=APP).ready()
    with pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"):
        handshake(daemon, client_context(authority))


def test_an_optional_certificate_may_be_left_out(servd: Servd, authority: trustme.CA) -> None:
    daemon = servd(config(ca_certs="ca.pem", client_auth="optional"), main_py=APP).ready()
    assert handshake(daemon, client_context(authority)) == "TLSv1.3"


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_a_tls_1_1_client_is_refused_by_the_servers_alert(
    servd: Servd, authority: trustme.CA, loop: str
) -> None:
    """Offered for real: OpenSSL speaks TLS 1.1 at security level 0 only."""
    daemon = servd(f'[defaults]\nuvicorn = {{ loop = "{loop}" }}\n{config()}', main_py=APP).ready()
    context = client_context(authority)
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        handshake(daemon, context)


def test_min_version_and_ciphers_bind_the_client(servd: Servd, authority: trustme.CA) -> None:
    daemon = servd(config(min_version="TLSv1.3"), main_py=APP).ready()
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError, match=r"(?i)alert.protocol.version"):
        handshake(daemon, context)


def test_ciphers_of_tls_1_2_are_those_configured(servd: Servd, authority: trustme.CA) -> None:
    daemon = servd(config(ciphers="ECDHE-ECDSA-AES256-GCM-SHA384"), main_py=APP).ready()
    context = client_context(authority)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    assert handshake(daemon, context) == "TLSv1.2"
    context.set_ciphers("ECDHE-ECDSA-AES128-GCM-SHA256")
    with pytest.raises(ssl.SSLError, match=r"(?i)handshake.failure"):
        handshake(daemon, context)


def test_an_encrypted_key_opens_with_its_password_from_a_file(
    servd: Servd, authority: trustme.CA, tmp_path: Path
) -> None:
    from cryptography.hazmat.primitives import serialization as s

    key = s.load_pem_private_key((tmp_path / "key.pem").read_bytes(), None)
    encrypted = key.private_bytes(
        s.Encoding.PEM, s.PrivateFormat.PKCS8, s.BestAvailableEncryption(b"open sesame")
    )
    (tmp_path / "key.pem").write_bytes(encrypted)
    (tmp_path / "password").write_text("open sesame\n")
    daemon = servd(config(keyfile_password="${file:password}"), main_py=APP).ready()
    assert handshake(daemon, client_context(authority)) == "TLSv1.3"
    assert "open sesame" not in daemon.output
    for process in [psutil.Process(daemon.pid), *daemon.descendants()]:
        known = " ".join([*process.cmdline(), *process.environ().values()])
        assert "open sesame" not in known
        assert "PRIVATE KEY" not in known


def test_other_services_reach_a_tls_service_without_it(servd: Servd, authority: trustme.CA) -> None:
    """Between services the unix socket is plain: nothing leaves the machine."""
    asks = """
        import servd
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/")
        async def root():
            return (await servd.depends("web").get("/")).text
    """
    front = '\n[services.front]\napp = "asks:app"\nlisten = "127.0.0.1:0"\ndepends_on = ["web"]\n'
    daemon = servd(config() + front, main_py=APP, asks_py=asks).ready()
    assert daemon.get("front").json() == "http"
    context = client_context(authority)
    assert httpx.get(f"https://localhost:{address(daemon)[1]}/", verify=context).text == "https"


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_plain_http_on_a_tls_port_is_hung_up_at_once(
    servd: Servd, authority: trustme.CA, loop: str
) -> None:
    """OpenSSL has no alert for it, so there is nothing to wait for."""
    daemon = servd(f'[defaults]\nuvicorn = {{ loop = "{loop}" }}\n{config()}', main_py=APP).ready()
    with socket.create_connection(address(daemon), DEADLINE) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            answer = plain.recv(100)
        except ConnectionResetError:
            answer = b""
    assert answer == b""


TELLS = """
    import json
    async def app(scope, receive, send):
        assert scope["type"] in ("http", "websocket")
        said = json.dumps(scope.get("extensions", {}).get("tls"))
        if scope["type"] == "websocket":
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": said})
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said.encode()})
"""


@pytest.mark.parametrize("parser", ["httptools", "h11"])
@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
def test_an_app_is_told_of_the_clients_certificate(
    servd: Servd, authority: trustme.CA, parser: str, loop: str
) -> None:
    options = f'[services.web.uvicorn]\nhttp = "{parser}"\nloop = "{loop}"\n'
    text = config(ca_certs="ca.pem", client_auth="optional") + options
    daemon = servd(text, main_py=TELLS).ready()
    context = client_context(authority, "me@example.org")
    url = daemon.url("web").replace("127.0.0.1", "localhost")
    told = httpx.get(url, verify=context, timeout=DEADLINE).json()
    assert told["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")
    assert "OU=Testing cert" in told["client_cert_name"]
    assert (told["tls_version"], told["client_cert_error"]) == (0x0304, None)
    assert isinstance(told["cipher_suite"], int)
    with connect(url.replace("https", "wss"), ssl=context, open_timeout=DEADLINE) as client:
        assert json.loads(client.recv(DEADLINE)) == told
    nobody = httpx.get(url, verify=client_context(authority), timeout=DEADLINE).json()
    assert (nobody["client_cert_chain"], nobody["client_cert_name"]) == ([], None)
    assert daemon.reload(config() + options)["outcome"] == "applied"
    assert httpx.get(url, verify=context, timeout=DEADLINE).json() is None


def test_names_are_written_as_rfc_4514_has_them() -> None:
    subject = (
        (("countryName", "CH"),),
        (("organizationName", "a, b"), ("organizationalUnitName", "x+y")),
        (("commonName", " #me "),),
    )
    assert distinguished_name({"subject": subject}) == "CN=\\ #me\\ ,O=a\\, b+OU=x\\+y,C=CH"
    assert distinguished_name({}) is None


def test_one_file_may_hold_both_with_comments_in_any_encoding(
    servd: Servd, authority: trustme.CA
) -> None:
    key, chain = servd.folder / "key.pem", servd.folder / "cert.pem"
    both = "# Schlüssel\n".encode("latin-1") + key.read_bytes() + chain.read_bytes()
    chain.write_bytes(both)
    key.unlink()
    text = config().replace('keyfile = "key.pem"', "")
    daemon = servd(text, main_py=APP).ready()
    assert handshake(daemon, client_context(authority)) == "TLSv1.3"
    assert daemon.stop() == 0


def test_what_openssl_refuses_is_a_mistake_of_the_file(servd: Servd) -> None:
    key = rsa.generate_private_key(65537, 1024)  # what is refused
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(99))
    (servd.folder / "cert.pem").write_bytes(
        made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    (servd.folder / "key.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    servd.write(servd_toml=config(), main_py=APP)
    checked = command("check", folder=servd.folder)
    assert checked.returncode == 78
    assert (
        "services.web.tls.certfile: OpenSSL rejects the certificate: ee key too small"
        in checked.stderr
    )
