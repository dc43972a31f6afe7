"""OpenSSL is loaded once something needs it. Each case is an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

LEAN = """
import sys
from servd.core.lean_stdlib import import_without_openssl
import_without_openssl()
"""


def run(code: str) -> None:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_digests_are_those_of_the_interpreter() -> None:
    run(
        f"""{LEAN}
import hashlib, hmac, shutil
assert not sys.modules.keys() & {{"ssl", "_ssl", "_hashlib", "bz2"}}
abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
assert hashlib.sha256(b"abc").hexdigest() == abc
assert hashlib.blake2b(b"abc", digest_size=8).digest() and hashlib.md5(b"").hexdigest()
assert hmac.new(b"key", b"abc", "sha256").hexdigest() and hmac.compare_digest("a", "a")
"""
    )


def test_an_interpreter_without_digests_has_those_of_openssl() -> None:
    run(
        f"""
import sys
sys.modules["_md5"] = None
{LEAN}
import hashlib
assert "_hashlib" in sys.modules
assert hashlib.md5(b"").hexdigest() == "d41d8cd98f00b204e9800998ecf8427e"
"""
    )


def test_asyncio_speaks_tls_when_it_has_to() -> None:
    run(
        f"""{LEAN}
import asyncio, socket
assert "ssl" not in sys.modules
assert asyncio.sslproto.__name__ == "asyncio.sslproto"
assert "ssl" not in sys.modules

async def main():
    loop = asyncio.get_running_loop()
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await reader.read() == b""
    sock = socket.create_connection(("127.0.0.1", port))
    await loop.connect_accepted_socket(asyncio.Protocol, sock)
    assert "ssl" not in sys.modules, "an ordinary connection needs none"
    import ssl
    try:
        context = ssl.create_default_context()
        await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="localhost")
    except (ssl.SSLError, ConnectionError) as error:
        print(type(error).__name__)
    else:
        raise AssertionError("the server speaks no TLS")
    assert asyncio.sslproto.SSLAgainErrors[0] is ssl.SSLWantReadError
    assert asyncio.base_events.ssl.SSLSocket is ssl.SSLSocket
    server.close()

asyncio.run(main())
"""
    )


def test_the_runtime_of_a_worker_can_be_imported_first() -> None:
    run("import servd.worker.runtime; servd.worker.runtime.import_runtime()")
    run("import servd.http.lean_uvicorn, ssl; assert ssl.CERT_NONE is ssl.VerifyMode.CERT_NONE")
