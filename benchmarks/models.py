"""A model that takes 20 ms and does one thing at a time: servd beside LitServe and `bentoml serve`.

    python benchmarks/models.py [--rounds 4] [--seconds 4] [--lit VENV/bin/python]
        [--bentoml .venv-bentoml/bin/python]

Two workers each, which take one request at a time (`limits.concurrency = 1`, `max_concurrency` of
BentoML), or as many as come, in the order of arrival. The model waits 20 ms without the processor,
as one does that waits for a GPU. Clients ask on new connections, one request after the other: as
many clients as workers, so that a free worker is there for each, and four times as many. Servers
run in turn, forwards and backwards. Shown are requests per second, the median and the 99th
percentile of the time of an answer, and what was refused; `waited`, with as many clients as
workers, is the share that took longer than 1.5 times the model.

What is not installed is left out: `pip install litserve` somewhere, and `.ci/setup bentoml`.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from harness.running import MeasurementError, Running, running
from harness.servers import Place, Server, Setting, servd_toml

ROOT = Path(__file__).parent.parent
WORKERS = 2
MODEL_SECONDS = 0.02
LATE = 1.5
"""An answer that took this many times the model had to wait."""

FASTAPI = f"""
import threading
import time

from fastapi import FastAPI

app = FastAPI()
model = threading.Lock()


@app.post("/predict")
def predict(given: dict) -> dict:
    with model:
        time.sleep({MODEL_SECONDS})
    return {{"output": given["input"]}}
"""

BENTO = """
import time

import bentoml


@bentoml.service(workers={workers}, traffic={traffic})
class Model:
    @bentoml.api
    def predict(self, input: int) -> dict:
        time.sleep({seconds})
        return {{"output": input}}
"""

LIT = f"""
import sys
import time

import litserve


class Model(litserve.LitAPI):
    def setup(self, device):
        pass

    def decode_request(self, request):
        return request["input"]

    def predict(self, given):
        time.sleep({MODEL_SECONDS})
        return given

    def encode_response(self, output):
        return {{"output": output}}


if __name__ == "__main__":
    server = litserve.LitServer(Model(), accelerator="cpu", workers_per_device={WORKERS})
    server.run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
"""

BODY = b'{"input": 7}'


@dataclass
class Answers:
    """What clients got: the seconds of each answer, and how many were none."""

    seconds: list[float] = field(default_factory=list)
    refused: int = 0


async def ask(port: int, answers: Answers) -> None:
    """One request on a new connection."""
    began = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n"
    head += "Content-Type: application/json\r\nConnection: close\r\n\r\n"
    writer.write(head.encode() + BODY)
    status = (await reader.read()).partition(b"\r\n")[0].split(b" ")[1:2]
    writer.close()
    if status == [b"200"]:
        answers.seconds.append(time.perf_counter() - began)
    else:
        answers.refused += 1


async def load(port: int, clients: int, seconds: float, answers: Answers) -> None:
    """So many clients, each of which asks without a pause."""
    end = time.monotonic() + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await ask(port, answers)

    await asyncio.gather(*(client() for _ in range(clients)))


async def until_it_answers(one: Running) -> None:
    """Returns when the model has answered a hundred times: all workers are there."""
    answers, end = Answers(), time.monotonic() + 120
    while len(answers.seconds) < 100:
        one.check()
        if time.monotonic() > end:
            raise MeasurementError("no answer")
        try:
            await ask(one.port, answers)
        except OSError:
            await asyncio.sleep(0.05)


def servd(python: Path, runs: str, limits: str) -> Server:
    """servd with workers of one place each."""

    def command(_: Setting, place: Place) -> list[str]:
        places = f"limits = {{ concurrency = 1, {limits} }}"
        lines = [f"workers = {WORKERS}", "log = { access = false }", places]
        config = place.folder / "servd.toml"
        text = servd_toml(place.folder / "run", f"127.0.0.1:{place.port}", lines)
        config.write_text(text.replace('app = "main:app"', runs))
        return [str(python), "-m", "servd", "--config", str(config)]

    kind = "servd, BentoML" if runs.startswith("bento") else "servd"
    return Server(f"{kind}, {limits}", python, command)


def bentoml_serve(python: Path, name: str) -> Server:
    """BentoML's own server."""

    def command(_: Setting, place: Place) -> list[str]:
        where = ["--host", "127.0.0.1", "--port", str(place.port)]
        return [str(python), "-m", "bentoml", "serve", "main:Model", *where]

    return Server(name, python, command)


def contenders(options: argparse.Namespace) -> Iterator[tuple[Server, str]]:
    """The servers, with the app of each."""
    own, bento, lit = Path(sys.executable), options.bentoml.absolute(), options.lit
    yield servd(own, 'app = "main:app"', "queue = 64"), FASTAPI
    yield servd(own, 'app = "main:app"', "queue = 0"), FASTAPI
    if bento.exists():
        form = {"workers": WORKERS, "seconds": MODEL_SECONDS}
        one = BENTO.format(traffic={"max_concurrency": 1}, **form)
        yield servd(bento, 'bento = "main:Model"', "queue = 64"), one
        yield bentoml_serve(bento, "bentoml serve"), BENTO.format(traffic={}, **form)
        yield bentoml_serve(bento, "bentoml serve, max_concurrency = 1"), one
    else:
        print(f"left out: BentoML (there is no {bento})")
    if lit is not None:
        yield Server("LitServe", lit, lambda _, p: [str(lit), "main.py", str(p.port)]), LIT
    else:
        print("left out: LitServe (name an interpreter with --lit)")


def row(name: str, clients: int, answers: Answers, seconds: float) -> str:
    found = sorted(answers.seconds)
    p99 = found[int(len(found) * 0.99)] if found else 0.0
    waited = ""
    if clients == WORKERS:
        late = sum(each > LATE * MODEL_SECONDS for each in found)
        waited = f"{100 * late / max(1, len(found)):.1f} %"
    return (
        f"| {name} | {clients} | {len(found) / seconds:.0f} | {1000 * statistics.median(found):.1f}"
        f" | {1000 * p99:.1f} | {answers.refused} of {len(found) + answers.refused} | {waited} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--lit", type=Path)
    parser.add_argument("--bentoml", type=Path, default=ROOT / ".venv-bentoml/bin/python")
    options = parser.parse_args()
    os.environ["BENTOML_DO_NOT_TRACK"] = "true"
    servers = list(contenders(options))
    found: dict[tuple[str, int], Answers] = defaultdict(Answers)
    for number in range(options.rounds):
        for server, app in servers if number % 2 == 0 else reversed(servers):
            with running(server, Setting(app, WORKERS)) as one:
                asyncio.run(until_it_answers(one))
                for clients in (WORKERS, 4 * WORKERS):
                    answers = found[server.name, clients]
                    asyncio.run(load(one.port, clients, options.seconds, answers))
    print("| | clients | requests/s | median, ms | p99, ms | refused | waited beside an idle one |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    for clients in (WORKERS, 4 * WORKERS):
        for server, _ in servers:
            seconds = options.rounds * options.seconds
            print(row(server.name, clients, found[server.name, clients], seconds))
    if options.lit is not None:
        code = "import litserve; print('LitServe', litserve.__version__)"
        subprocess.run([str(options.lit), "-c", code], check=False)


if __name__ == "__main__":
    main()
