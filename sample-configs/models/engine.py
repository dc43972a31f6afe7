"""In place of an inference server such as vLLM: a front that speaks HTTP, and an engine, which is a
process of its own and holds the model. Standard library only.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from threading import Lock, Thread
from typing import Any

WORDS = ["a", "server", "that", "loses", "no", "request", "answers", "every", "one", "of", "them"]


def run_engine(requests: Connection) -> None:
    """Loads the model, then answers: a prompt and a number of words, the words, None at the end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(0.2)  # the weights
    requests.send("loaded")
    while True:
        try:
            prompt, count = requests.recv()
        except EOFError:  # the front has ended
            return
        for number in range(count):
            time.sleep(0.005)
            requests.send(WORDS[(len(prompt) + number) % len(WORDS)])
        requests.send(None)


class Front(BaseHTTPRequestHandler):
    """Takes requests as OpenAI's API has them."""

    protocol_version = "HTTP/1.1"
    engine: Connection
    turn = Lock()

    def do_GET(self) -> None:
        """Answers `/health`, as fronts do: also when the engine behind them is gone."""
        self.answer(200 if self.path == "/health" else 404, {})

    def do_POST(self) -> None:
        """Answers `/v1/completions`, as a stream if that is asked for."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "{}")
        if self.path != "/v1/completions" or "prompt" not in body:
            return self.answer(404 if "prompt" in body else 400, {"error": "a prompt, please"})
        try:
            words = self.words(body["prompt"], int(body.get("max_tokens", 8)))
            if body.get("stream"):
                return self.stream(words)
            return self.answer(200, {"choices": [{"text": " ".join(words)}]})
        except (EOFError, OSError):
            return self.answer(500, {"error": "the engine is gone"})

    def words(self, prompt: str, count: int) -> Any:
        """Yields what the engine makes of a prompt."""
        with self.turn:
            self.engine.send((prompt, count))
            while (word := self.engine.recv()) is not None:
                yield word

    def answer(self, status: int, document: dict[str, Any]) -> None:
        """Sends an answer."""
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def stream(self, words: Any) -> None:
        """Sends each word as an event."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        for word in words:
            event = json.dumps({"choices": [{"text": word}]})
            self.wfile.write(f"data: {event}\n\n".encode())
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def log_message(self, form: str, *values: Any) -> None:
        """Logs nothing for each request."""


def main() -> None:
    """Runs until SIGTERM, then ends what is being answered."""
    parser = argparse.ArgumentParser(description="An inference server that makes up its answers")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    Front.engine, theirs = multiprocessing.Pipe()
    engine = multiprocessing.Process(target=run_engine, args=[theirs], daemon=True)
    engine.start()
    theirs.close()
    Front.engine.recv()
    server = ThreadingHTTPServer(("127.0.0.1", port), Front)
    server.daemon_threads = False  # the end waits for answers
    signal.signal(signal.SIGTERM, lambda *_: Thread(target=server.shutdown).start())
    print(f"ready on port {port}", flush=True)
    server.serve_forever(poll_interval=0.1)
    server.server_close()
    sys.exit()


if __name__ == "__main__":
    main()
