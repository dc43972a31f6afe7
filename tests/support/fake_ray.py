"""A dashboard of Ray for tests: a real HTTP server that deploys nothing."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_ADDED = "external_scaler_enabled"
"""A key that Ray adds to what was deployed."""


class FakeRay:
    """What the cluster runs, what it was told, and how it behaves. An application whose
    configuration `fails` gives a reason for never runs; each takes `steps` looks to run.
    """

    def __init__(self) -> None:
        self.version = "2.60.0"
        self.token = ""
        self.steps = 1
        self.fails: Callable[[dict[str, Any]], str] = lambda config: ""
        self.puts: list[dict[str, Any]] = []
        self.packages: dict[str, bytes] = {}
        self.http_options: dict[str, Any] | None = None
        self.url = ""
        self._running: dict[str, tuple[dict[str, Any], int]] = {}

    @property
    def configs(self) -> dict[str, dict[str, Any]]:
        """The configuration of every application."""
        return {name: config for name, (config, _) in self._running.items()}

    def put(self, document: dict[str, Any]) -> bool:
        """Takes applications over, as Ray does: those that are not named are removed. Returns
        whether their routes are unique.
        """
        routes = [route for c in document["applications"] if (route := c["route_prefix"])]
        if len(set(routes)) < len(routes):
            return False
        self.puts.append(document)
        self.http_options = self.http_options or document.get("http_options")
        before = self._running
        self._running = {}
        for given in document["applications"]:
            config = {key: value for key, value in given.items() if key != _ADDED}
            same = before.get(config["name"], ({}, 0))
            looks = same[1] if same[0] == config else 0
            self._running[config["name"]] = (config, looks)
        return True

    def details(self) -> dict[str, Any]:
        """What the dashboard shows; every look lets time pass."""
        shown = {name: self._application(*each) for name, each in self._running.items()}
        self._running = {name: (config, n + 1) for name, (config, n) in self._running.items()}
        return {
            "applications": shown,
            "http_options": self.http_options,
            "proxies": {"node": {"status": "HEALTHY"}} if self._running else {},
        }

    def _application(self, config: dict[str, Any], looks: int) -> dict[str, Any]:
        (deployment,) = config["deployments"]
        wanted = deployment.get("num_replicas", 1)
        message = self.fails(config)
        is_up = looks >= self.steps
        status = "DEPLOYING" if not is_up else "DEPLOY_FAILED" if message else "RUNNING"
        ready = wanted if status == "RUNNING" else 0
        replicas = [
            {"replica_id": str(n), "state": "RUNNING", "pid": 100 + n, "start_time_s": 1.0}
            for n in range(ready)
        ]
        return {
            "name": config["name"],
            "route_prefix": config["route_prefix"],
            "status": status,
            "message": message if status == "DEPLOY_FAILED" else "",
            "last_deployed_time_s": 1.0,
            "deployed_app_config": {**config, _ADDED: False},
            "deployments": {
                config["name"]: {
                    "status": "HEALTHY",
                    "message": "",
                    "target_num_replicas": wanted,
                    "replicas": replicas,
                }
            },
        }


@contextlib.contextmanager
def fake_ray() -> Iterator[FakeRay]:
    """A dashboard that answers at `url`."""
    ray = FakeRay()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args: Any) -> None:
            pass

        def do_GET(self) -> None:
            if self._is_allowed():
                self._get()

        def do_PUT(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if not self._is_allowed():
                return
            if self.path.startswith("/api/packages/gcs/"):
                ray.packages[self.path.rpartition("/")[2]] = content
            elif not ray.put(json.loads(content)):
                self._answer(400, b"Found duplicate applications for route prefix")
                return
            self._answer(200, b"")

        def _get(self) -> None:
            if self.path == "/api/version":
                self._answer(200, json.dumps({"ray_version": ray.version}).encode())
            elif self.path == "/api/serve/applications/":
                self._answer(200, json.dumps(ray.details()).encode())
            else:
                found = self.path.rpartition("/")[2] in ray.packages
                self._answer(200 if found else 404, b"")

        def _is_allowed(self) -> bool:
            given = self.headers.get("Authorization", "")
            if ray.token and not given:
                self._answer(401, b"Unauthorized: Missing authentication token")
            elif ray.token and given != f"Bearer {ray.token}":
                self._answer(403, b"Forbidden: Invalid authentication token")
            else:
                return True
            return False

        def _answer(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    ray.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield ray
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
