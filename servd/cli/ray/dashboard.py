"""The client of the dashboard of a Ray cluster: plain HTTP, without Ray."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import httpx

from servd.core.errors import Exit, ServdError

OLDEST = (2, 60)
"""The first version of Ray that has all that an exported configuration says. Older ones ignore
what they do not know, in silence.
"""

_APPLICATIONS = "/api/serve/applications/"
_TOKEN_FILE = "~/.ray/auth_token"  # noqa: S105  # a path, not a secret
_TIMEOUT = httpx.Timeout(120.0, connect=10.0)
_MESSAGE_CHARACTERS = 2000


class DashboardError(ServdError):
    """The dashboard refuses a request."""


class NoDashboardError(ServdError):
    """Nothing answers at the address."""

    exit_status: ClassVar[Exit] = Exit.NO_DAEMON


def token_of(environ: Mapping[str, str]) -> str:
    """Returns the token as Ray finds it: in RAY_AUTH_TOKEN, in the file RAY_AUTH_TOKEN_PATH, or in
    ~/.ray/auth_token. "": none.
    """
    if token := environ.get("RAY_AUTH_TOKEN", "").strip():
        return token
    named = environ.get("RAY_AUTH_TOKEN_PATH")
    path = named or os.path.join(environ.get("HOME", os.path.expanduser("~")), ".ray", "auth_token")
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().strip()
    except OSError as error:
        if named:
            raise DashboardError(f"RAY_AUTH_TOKEN_PATH: {path}: {error.strerror}") from None
        return ""


class Dashboard:
    """The dashboard at an address."""

    def __init__(self, address: str, token: str = "") -> None:
        self.address = address.rstrip("/")
        self._token = token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._client = httpx.Client(base_url=self.address, headers=headers, timeout=_TIMEOUT)

    def version(self) -> str:
        """Returns the version of Ray."""
        found = self._json(self._ask("GET", "/api/version"))
        return str(found.get("ray_version", ""))

    def require_version(self) -> str:
        """Returns the version of Ray. Raises `DashboardError` if it is too old."""
        version = self.version()
        numbers = re.match(r"(\d+)\.(\d+)", version)
        if numbers is None or (int(numbers[1]), int(numbers[2])) < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise DashboardError(
                f"Ray {version or '(unknown)'} runs at {self.address}: servd needs {oldest} or"
                " newer, since older ones ignore what keeps requests from being lost"
            )
        return version

    def details(self) -> dict[str, Any]:
        """Returns what Ray Serve runs (`ServeInstanceDetails` in Ray's documentation)."""
        found = self._json(self._ask("GET", _APPLICATIONS))
        if not isinstance(found.get("applications"), dict):
            raise DashboardError(f"unexpected answer from {self.address}: not a dashboard of Ray")
        return found

    def put(self, document: Mapping[str, Any]) -> None:
        """Has Ray Serve run these applications, and no others that were deployed like this."""
        self._ask("PUT", _APPLICATIONS, json=document)

    def has_package(self, name: str) -> bool:
        """Returns whether the cluster has a package of code; it keeps it for some minutes then."""
        return self._ask("GET", f"/api/packages/gcs/{name}", allowed=(404,)).status_code == 200

    def upload(self, name: str, content: bytes) -> None:
        """Gives the cluster a package of code."""
        self._ask("PUT", f"/api/packages/gcs/{name}", content=content)

    def _ask(
        self, method: str, path: str, *, allowed: tuple[int, ...] = (), **given: Any
    ) -> httpx.Response:
        """Raises `NoDashboardError`, and `DashboardError` for an answer that is an error."""
        try:
            answer = self._client.request(method, path, **given)
        except httpx.TransportError as error:
            raise NoDashboardError(
                f"no dashboard of Ray answers at {self.address} ({error or type(error).__name__}):"
                " start a cluster with `ray start --head`, or name it with --address"
            ) from None
        except httpx.InvalidURL as error:
            raise DashboardError(f"--address {self.address}: {error}") from None
        if answer.status_code in (401, 403):
            raise DashboardError(f"Ray at {self.address} {self._refusal()}")
        if answer.is_error and answer.status_code not in allowed:
            text = answer.text.strip()[:_MESSAGE_CHARACTERS]
            raise DashboardError(
                f"Ray at {self.address} answered {answer.status_code} to {method} {path}: {text}"
            )
        return answer

    def _refusal(self) -> str:
        if self._token:
            return "rejected the token"
        return f"needs a token: set RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH, or write {_TOKEN_FILE}"

    def _json(self, answer: httpx.Response) -> dict[str, Any]:
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise DashboardError(f"unexpected answer from {self.address}: not a dashboard of Ray")
        return found
