"""A client of language servers (LSP 3.17, over stdio): what an editor shows of a file."""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from support.harness import DEADLINE


class Complaint(NamedTuple):
    """A diagnostic; line and column count from 1."""

    line: int
    column: int
    message: str


class LanguageServer:
    """A server that runs, with one folder. `settings` answer its questions about its settings."""

    def __init__(self, argv: Sequence[str], folder: Path, settings: dict[str, Any]) -> None:
        self.folder, self._settings = folder, settings
        self._process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            cwd=folder,
        )  # fmt: skip
        self._heard: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._last = 0
        self._published: dict[str, list[Complaint]] = {}
        """What was said last about each file, by URI."""
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> LanguageServer:
        capabilities = {
            "workspace": {"configuration": True, "didChangeConfiguration": {}},
            "textDocument": {
                "hover": {"contentFormat": ["plaintext", "markdown"]},
                "completion": {"completionItem": {"snippetSupport": False}},
                "publishDiagnostics": {},
            },
        }
        root = self.folder.as_uri()
        folders = [{"uri": root, "name": "tests"}]
        self.ask(
            "initialize", processId=None, rootUri=root, capabilities=capabilities,
            workspaceFolders=folders,
        )  # fmt: skip
        self.tell("initialized")
        self.tell("workspace/didChangeConfiguration", settings=self._settings)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def tell(self, method: str, **params: Any) -> None:
        """Sends a notification."""
        self._send({"method": method, "params": params})

    def ask(self, method: str, **params: Any) -> Any:
        """Sends a request and returns the result."""
        self._last += 1
        number = self._last
        self._send({"id": number, "method": method, "params": params})
        return self._until(lambda message: message.get("id") == number and "method" not in message)[
            "result"
        ]

    def open(self, name: str, text: str) -> str:
        """Opens a file of the folder; returns its URI."""
        path = self.folder / name
        path.write_text(text)
        document = {"uri": path.as_uri(), "version": 1, "text": text}
        self.tell("textDocument/didOpen", textDocument={**document, "languageId": path.suffix[1:]})
        return path.as_uri()

    def complaints(self, suffix: str, text: str) -> list[Complaint]:
        """Opens a new file and returns what is published about it."""
        self._last += 1
        uri = self.open(f"{self._last}{suffix}", text)
        self._until(lambda message: uri in self._published)
        self.tell("textDocument/didClose", textDocument={"uri": uri})
        return self._published[uri]

    def completions(self, uri: str, line: int, character: int) -> list[dict[str, Any]]:
        """Returns the proposals at a position, which counts from 0."""
        found = self.ask(
            "textDocument/completion", textDocument={"uri": uri},
            position={"line": line, "character": character},
        )  # fmt: skip
        items: list[dict[str, Any]] = found["items"] if isinstance(found, dict) else found or []
        return items

    def hover(self, uri: str, line: int, character: int) -> str:
        """Returns what is shown for a position, which counts from 0."""
        found = self.ask(
            "textDocument/hover", textDocument={"uri": uri},
            position={"line": line, "character": character},
        )  # fmt: skip
        return str(found["contents"]["value"]) if found else ""

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%s" % (len(body), body))
        self._process.stdin.flush()

    def _listen(self) -> None:
        stream = self._process.stdout
        assert stream is not None
        while True:
            size = 0
            while line := stream.readline().strip():
                name, _, value = line.partition(b":")
                size = int(value) if name.lower() == b"content-length" else size
            if not size:
                return
            self._heard.put(json.loads(stream.read(size)))

    def _until(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Returns the message that is waited for; others are answered."""
        while True:
            message = self._heard.get(timeout=DEADLINE)
            if "method" in message:
                self._take(message)
            if wanted(message):
                return message

    def _take(self, message: dict[str, Any]) -> None:
        params: dict[str, Any] = message.get("params") or {}
        if message["method"] == "textDocument/publishDiagnostics":
            self._published[params["uri"]] = [
                Complaint(
                    each["range"]["start"]["line"] + 1,
                    each["range"]["start"]["character"] + 1,
                    each["message"],
                )
                for each in params["diagnostics"]
            ]
        elif message["method"] == "workspace/configuration":
            answers = [self._settings.get(item.get("section", "")) for item in params["items"]]
            self._send({"id": message["id"], "result": answers})
        elif "id" in message:
            self._send({"id": message["id"], "result": None})
