"""The client of the admin API: over a unix socket, or over TCP with a token."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import field
from typing import Any, ClassVar
from urllib.parse import urlsplit

from servd.core.errors import Exit, ServdError
from servd.core.quick_dataclass import dataclass

TOKEN_VARIABLE = "SERVD_ADMIN_TOKEN"  # noqa: S105  # a name, not a secret


_PEER = struct.Struct("3i")
"""SO_PEERCRED (unix(7)): pid, uid, gid."""


class NoDaemonError(ServdError):
    """No daemon listens at the admin address."""

    exit_status: ClassVar[Exit] = Exit.NO_DAEMON


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer of the daemon: HTTP status and JSON."""

    status: int
    body: Any

    @property
    def good(self) -> bool:
        """Whether the request succeeded."""
        return self.status < 400


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, *, own: bool) -> None:
        super().__init__("localhost")
        self.path = path
        self.own = own

    def connect(self) -> None:
        """Connects to the path. Raises `ServdError` if `own`, and another user listens there."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(self.path)
        if self.own and hasattr(socket, "SO_PEERCRED"):
            found = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
            _, uid, _ = _PEER.unpack(found)
            if uid not in (os.geteuid(), 0):
                self.sock.close()
                raise ServdError(f"user {uid} listens on {self.path}: expected you or root")


@dataclass(frozen=True, slots=True)
class AdminClient:
    """One daemon, at the path of a unix socket or at a URL with `token`. `own`: it must belong to
    this user or root.
    """

    endpoint: str
    token: str = field(default="", repr=False)
    own: bool = False

    def get(self, route: str) -> Answer:
        """Sends a GET request. Raises `NoDaemonError`."""
        return self.ask("GET", route)

    def status(self) -> dict[str, Any]:
        """Returns the status. Raises `NoDaemonError`; `ServdError` if another program answers."""
        answer = self.get("/v1/status")
        body = answer.body if isinstance(answer.body, dict) else {}
        if answer.good and "services" in body and "config" in body:
            return body
        raise self.unexpected(answer)

    def services(self, names: Sequence[str] = ()) -> list[dict[str, Any]]:
        """Returns the status of these services, or of all. Raises as `status`."""
        known = {service["name"]: service for service in self.status()["services"]}
        for name in names:
            if name not in known:
                raise ServdError(f'unknown service "{name}". Services: {", ".join(known)}')
        return [known[name] for name in names or known]

    def unexpected(self, answer: Answer) -> ServdError:
        """Returns the error for an answer that the command line cannot use."""
        body = answer.body if isinstance(answer.body, dict) else {}
        said = body.get("detail") or body.get("title")
        if not answer.good and said:
            return ServdError(f"servd at {self.endpoint} answered: {said} ({answer.status})")
        return ServdError(
            f"unexpected answer from {self.endpoint}: not servd, or another version of it"
        )

    def post(self, route: str, *, expect: str = "", **body: Any) -> Answer:
        """Sends a POST request and waits for its completion. With the ETag `expect`, the daemon
        acts only in that state. Raises `NoDaemonError`.
        """
        only = {"If-Match": f'"{expect}"'} if expect else None
        return self.ask("POST", route, json.dumps(body), only)

    def ask(
        self,
        method: str,
        route: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """Sends one request and returns any answer. Raises `NoDaemonError`."""
        with self._answer(method, route, body, headers) as answer:
            return Answer(answer.status, _json(answer.read()))

    def follow(self, route: str) -> Iterator[str]:
        """Yields "" when the daemon accepts the request, then the data of server-sent events until
        the stream ends. Raises `NoDaemonError`, and `ServdError` if the daemon refuses the request.
        """
        with self._answer("GET", route) as answer:
            if answer.status >= 400:
                raise self.unexpected(Answer(answer.status, _json(answer.read())))
            if not answer.headers.get_content_type() == "text/event-stream":
                raise self.unexpected(Answer(answer.status, None))
            yield ""
            for line in answer:
                if line.startswith(b"data: "):
                    yield line[6:].decode(errors="replace").rstrip("\n")

    def connection(self) -> http.client.HTTPConnection:
        """Returns an unopened connection."""
        if "://" not in self.endpoint:
            return _UnixConnection(self.endpoint, own=self.own)
        url = urlsplit(self.endpoint)
        kind = http.client.HTTPSConnection if url.scheme == "https" else http.client.HTTPConnection
        return kind(url.hostname or "", url.port)

    @property
    def headers(self) -> dict[str, str]:
        """The headers of every request."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        route: str,
        body: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """Yields the answer before its body is read. Raises `ServdError` for a refused token."""
        kind = {"Content-Type": "application/json"} if body is not None else {}
        connection = self.connection()
        try:
            connection.request(method, route, body, {**self.headers, **kind, **(headers or {})})
            answer = connection.getresponse()
            if answer.status == 401:
                hint = (
                    "rejected the token" if self.token else f"needs a token: set {TOKEN_VARIABLE}"
                )
                raise ServdError(f"servd at {self.endpoint} {hint}")
            yield answer
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from None
        finally:
            connection.close()

    def _gone(self, error: Exception) -> ServdError:
        if isinstance(error, PermissionError):
            return ServdError(
                f"no permission to use {self.endpoint}: it belongs to the user that runs servd"
                " (admin.group allows a group)"
            )
        if isinstance(error, (FileNotFoundError, ConnectionRefusedError, socket.gaierror)):
            return NoDaemonError(
                f"servd is not running (no answer at {self.endpoint}). Start it with `servd`."
            )
        return NoDaemonError(
            f"lost the connection to servd at {self.endpoint}: {error or 'no answer'}"
        )


def _json(content: bytes) -> Any:
    """Returns the JSON body of an answer; other text becomes the title of a problem."""
    try:
        return json.loads(content or b"null")
    except ValueError:
        return {"title": content.decode(errors="replace").strip()[:200]}
