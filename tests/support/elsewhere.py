"""A server of another machine, in small: it can be taken down and come back on its port."""

from __future__ import annotations

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType


class Elsewhere:
    """Answers every path with 200 and its `text`, but for those in `broken`: 500."""

    def __init__(self, context: ssl.SSLContext | None = None, text: str = "from elsewhere") -> None:
        self.context = context
        self.text = text
        self.broken: set[str] = set()
        self.hosts: set[str] = set()
        self.port = 0
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> Elsewhere:
        """Listens; on the same port as before."""
        place = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                place.hosts.add(self.headers["Host"])
                self.send_response(500 if self.path in place.broken else 200)
                body = place.text.encode()
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", self.port), Handler)
        if self.context is not None:
            server.socket = self.context.wrap_socket(
                server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = server.server_address[1]
        self._server = server
        threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
        return self

    def stop(self) -> None:
        """Refuses connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None

    def __enter__(self) -> Elsewhere:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
