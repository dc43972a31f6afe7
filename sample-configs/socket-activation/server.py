"""An HTTP server in the standard library that takes its socket from whoever started it
(LISTEN_FDS), says when it is ready (NOTIFY_SOCKET), and on SIGTERM finishes what it has begun.

It runs the same under systemd: systemd-socket-activate -l 8090 python3 server.py
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

FIRST_FD = 3


def inherited_socket() -> socket.socket:
    """The one listening socket that was passed to this very process."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        sys.exit("no sockets were passed to this process: LISTEN_PID does not name it")
    if os.environ.get("LISTEN_FDS") != "1":
        sys.exit(f"expected one socket, got LISTEN_FDS={os.environ.get('LISTEN_FDS')}")
    listener = socket.socket(fileno=FIRST_FD)
    listener.set_inheritable(False)
    listener.setblocking(False)  # another worker may be faster at accepting a connection
    return listener


def notify(state: str) -> None:
    """sd_notify(3)."""
    if address := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.connect("\0" + address[1:] if address.startswith("@") else address)
            channel.sendall(state.encode())


class Handler(BaseHTTPRequestHandler):
    timeout = 20

    def do_GET(self) -> None:
        """GET /?seconds=2 answers after two seconds, to try out a graceful stop."""
        query = parse_qs(urlsplit(self.path).query)
        try:
            time.sleep(min(60.0, max(0.0, float(query.get("seconds", ["0"])[0]))))
        except ValueError:
            self.send_error(400, "seconds is not a number")
            return
        body = json.dumps(
            {
                "pid": os.getpid(),
                "service": os.environ.get("SERVD_SERVICE"),
                "worker": os.environ.get("SERVD_WORKER"),
                "socket": os.environ.get("LISTEN_FDNAMES"),
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def address_string(self) -> str:
        return self.client_address[0] if self.client_address else "unix"


class Server(ThreadingHTTPServer):
    daemon_threads = False  # so that server_close() waits for the requests in flight

    def __init__(self, listener: socket.socket) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


def main() -> None:
    server = Server(inherited_socket())

    def stop(*_: object) -> None:
        threading.Thread(target=server.shutdown).start()  # it waits for serve_forever to return

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    notify("READY=1")
    server.serve_forever(poll_interval=0.1)
    notify("STOPPING=1")
    server.server_close()


if __name__ == "__main__":
    main()
