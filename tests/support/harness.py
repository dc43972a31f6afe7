"""Starts real daemons for tests, waits for what they say, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from servd.core.events import Event

DEADLINE = 90.0
"""Seconds after which a condition that has not come is taken for one that never will: no bound of
what is tested, so it costs nothing and holds on a machine that is ten times busier.
"""


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """The first true value of `condition`; fails the test, saying `what`, when none comes."""
    end = time.monotonic() + deadline
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {deadline:g} s")
        time.sleep(0.01)


Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]
"""Values of metrics by their names and labels."""


def samples_of(text: str) -> Samples:
    """Every sample of a text that Prometheus would read."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def server_sent(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    """The events of a stream; comments are left out."""
    event: dict[str, Any] = {"type": "message", "id": ""}
    for line in lines:
        name, _, value = line.partition(": ")
        if line and name:
            event["type" if name == "event" else name] = value
        elif "data" in event:
            yield {**event, "data": json.loads(event["data"])}
            event = {"type": "message", "id": ""}


def alive(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that have not ended; one that only waits to be reaped has."""
    found = []
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


_ENDS = (Event.RELOAD_FINISHED, Event.RELOAD_FAILED, Event.RELOAD_REFUSED)
"""What the daemon says at the end of whatever changes what runs."""


def is_template(process: psutil.Process) -> bool:
    """Whether workers are forked from this process, or it asks the GPUs' driver."""
    try:
        command = " ".join(process.cmdline())
    except psutil.Error:
        return False
    modules = ("servd.worker.template", "-m servd.gpu ")
    return command.startswith("servd: template") or any(module in command for module in modules)


class ServdProcess:
    """A daemon under test, with its log as it is written."""

    def __init__(
        self,
        folder: Path,
        arguments: list[str],
        environ: Mapping[str, str | None],
        runtime: Path,
        interpreter: str = sys.executable,
        user: int | None = None,
    ) -> None:
        self.folder = folder
        self.runtime = runtime
        self.log_path = runtime.with_suffix(".log")
        self.loses_lines = False
        """Set by a test where the log has no room: nothing is awaited there."""
        self._log = self.log_path.open("wb")
        self.known: dict[int, psutil.Process] = {}
        self.main: psutil.Process | None = None
        whole = {**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(runtime), **environ}
        self.process = subprocess.Popen(
            [interpreter, "-m", "servd", *arguments],
            cwd=folder,
            user=user,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            env={name: text for name, text in whole.items() if text is not None},
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self.process.pid if self.main is None else self.main.pid

    @property
    def over(self) -> bool:
        """Whether the daemon that runs now has ended."""
        if self.main is None:
            return self.process.poll() is not None
        return not alive([self.main])

    @property
    def output(self) -> str:
        """Everything that the daemon wrote."""
        return self.log_path.read_text(errors="replace")

    @property
    def events(self) -> list[dict[str, Any]]:
        """The events of its log; lines that are no events are left out."""
        found: list[dict[str, Any]] = []
        for line in self.output.splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict):
                found.append(event)
        return found

    def find(self, event: str, **fields: Any) -> list[dict[str, Any]]:
        """Events of this name with these fields. Names of events are written out where they are
        asked for, so that a test can tell those that servd has from those that it had.
        """
        return self.lines(event, **fields)

    def lines(self, text: str, **fields: Any) -> list[dict[str, Any]]:
        """As `find`, for what programs, apps and libraries say."""
        return [
            e
            for e in self.events
            if e.get("event") == text and all(e.get(k) == v for k, v in fields.items())
        ]

    def wait_for(self, event: str, **fields: Any) -> dict[str, Any]:
        """The first such event, waiting for it while the daemon lives."""
        return self.wait_for_line(event, **fields)

    def wait_for_line(self, text: str, **fields: Any) -> dict[str, Any]:
        """As `wait_for`, for what programs, apps and libraries say."""

        def look() -> dict[str, Any] | None:
            over = self.over
            found = self.lines(text, **fields)
            if found:
                return found[0]
            assert not over, f"servd ended before {text!r} {fields}:\n{self.output}"
            return None

        try:
            found: dict[str, Any] = wait_until(look, f"{text!r} {fields}")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output}") from None
        return found

    def ready(self) -> ServdProcess:
        """Waits until the first start is over."""
        self.wait_for("servd ready")
        return self

    def url(self, service: str) -> str:
        """Where a service listens."""
        return str(self.wait_for("listening", service=service)["address"])

    def get(self, service: str, path: str = "/", **options: Any) -> httpx.Response:
        """One request on a connection of its own."""
        return httpx.get(self.url(service) + path, timeout=DEADLINE, **options)

    @contextlib.contextmanager
    def asking(
        self, service: str, path: str = "/", times: int = 1
    ) -> Iterator[list[Future[httpx.Response]]]:
        """Asks meanwhile; the block is left when every answer is there, or that there is none."""
        url = self.url(service) + path
        with ThreadPoolExecutor(times) as pool:
            yield [pool.submit(httpx.get, url, timeout=DEADLINE) for _ in range(times)]

    def begun(self, service: str, requests: int = 1) -> None:
        """Waits until so many requests are in flight."""
        wait_until(
            lambda: self.metric("servd_requests_in_flight", service=service) == requests,
            f"{requests} requests have begun",
        )

    def workers(self, service: str) -> dict[int, int]:
        """Pids of the workers that are ready, by index."""
        pids: dict[int, int] = {}
        for event in self.events:
            if event.get("service") != service:
                continue
            name = event.get("event")
            if name == "worker ready":
                pids[event["worker"]] = event["pid"]
            elif name == "worker exited" and pids.get(event["worker"]) == event["pid"]:
                del pids[event["worker"]]
        return pids

    def admin(self) -> httpx.Client:
        """A client for the admin API, to be closed."""
        transport = httpx.HTTPTransport(uds=str(self.runtime / "admin.sock"))
        return httpx.Client(transport=transport, base_url="http://servd", timeout=DEADLINE)

    def ask(self, method: str, route: str, **options: Any) -> httpx.Response:
        """One request to the admin API."""
        with self.admin() as admin:
            return admin.request(method, route, **options)

    def act(self, name: str, verb: str, **body: Any) -> dict[str, Any]:
        """Does something with a service by hand; returns the answer, once the log has it too."""
        return self._told("POST", f"/v1/services/{name}/{verb}", body)

    @contextlib.contextmanager
    def follow(self, route: str, last_id: str = "") -> Iterator[Iterator[dict[str, Any]]]:
        """Server-sent events as they come: `id`, `type` and (decoded) `data` of each."""
        headers = {"last-event-id": last_id} if last_id else {}
        with self.admin() as admin, admin.stream("GET", route, headers=headers) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream"), answer.read()
            yield server_sent(answer.iter_lines())

    @property
    def environ(self) -> dict[str, str]:
        """The environment in which the command line finds it."""
        return {"SERVD_DAEMON__RUNTIME_DIR": str(self.runtime), "SERVD_DAEMON__WATCH": "false"}

    def cli(self, *arguments: str, **environ: str) -> Any:
        """Runs `servd ARGUMENTS` beside it, to its end."""
        return command(*arguments, folder=self.folder, environ={**self.environ, **environ})

    @contextlib.contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`servd ARGUMENTS` beside it, which ends with the block at the latest."""
        process = subprocess.Popen(
            [sys.executable, "-m", "servd", *arguments],
            cwd=self.folder,
            env={**os.environ, **self.environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def edit(self, config: str) -> None:
        """Writes another configuration over the old, at one stroke."""
        beside = self.folder / ".servd.toml.new"
        beside.write_text(textwrap.dedent(config))
        beside.replace(self.folder / "servd.toml")

    def reload(self, config: str | None = None, **body: Any) -> dict[str, Any]:
        """Reloads (after an edit, if there is one) and returns the answer, once the log has it."""
        if config is not None:
            self.edit(config)
        return self._told("POST", "/v1/reload", body)

    def _told(self, method: str, route: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Asks for something that the daemon logs last of all. The log is written by a thread of
        its own: whatever happened is there once the end of it is. A log that tells no ends, is
        elsewhere or `loses_lines` is not waited for.
        """
        quiet = self.loses_lines or '"servd started"' not in self.output
        before = self._ends()
        answer: dict[str, Any] = self.ask(method, route, json=body).json()
        if not quiet and "outcome" in answer:
            wait_until(lambda: self._ends() > before, f"the end is logged of {route}: {answer}")
        return answer

    def _ends(self) -> int:
        written = self.output
        return sum(written.count(f'"{end}"') for end in _ENDS)

    def upgrade(self) -> dict[str, Any]:
        """Has the daemon replaced; returns the answer. From then on the new one is meant."""
        answer: dict[str, Any] = self.ask("POST", "/v1/upgrade").json()
        if answer.get("outcome") == "replaced":
            self.is_replaced_by(answer["pid"])
        return answer

    def is_replaced_by(self, pid: int) -> None:
        """Another process is the daemon now."""
        self.main = psutil.Process(pid)
        self.known[pid] = self.main

    def status(self) -> dict[str, Any]:
        """The daemon's status."""
        answer: dict[str, Any] = self.ask("GET", "/v1/status").json()
        return answer

    def service(self, name: str) -> dict[str, Any]:
        """The status of one service."""
        return next(s for s in self.status()["services"] if s["name"] == name)

    def pids(self, name: str) -> list[int]:
        """Pids of the current generation, by index."""
        return [process["pid"] for process in self.service(name)["processes"]]

    def samples(self) -> Samples:
        """What /metrics shows."""
        return samples_of(self.ask("GET", "/metrics").text)

    def metric(self, name: str, **labels: str) -> float | None:
        """One sample; None where there is none."""
        return self.samples().get((name, frozenset(labels.items())))

    def family(self) -> list[psutil.Process]:
        """Every process that the daemon or one of its children started; none once it has ended, as
        its pid may be another's then.
        """
        if self.over:
            return []
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.NoSuchProcess:
            return []

    def descendants(self) -> list[psutil.Process]:
        """Its family without the templates that workers are forked from, and the GPU helper."""
        return [process for process in self.family() if not is_template(process)]

    def remember(self) -> None:
        """Takes note of the present processes, so that `leftovers` can look for them."""
        self.known |= {process.pid: process for process in self.family()}

    def send(self, number: int) -> None:
        os.kill(self.pid, number)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Stops the daemon and returns its exit status; nothing may be left of it."""
        self.remember()
        self.send(number)
        status = self.wait()
        assert self.leftovers() == []
        return status

    def wait(self) -> int:
        """The exit status, once the daemon has ended by itself. One that is no child of ours tells
        nobody its own: it has ended well when it said so.
        """
        if self.main is not None:
            wait_until(lambda: self.over, "servd has ended")
            return 0 if self.find("servd stopped", pid=self.pid) else 1
        try:
            return self.process.wait(DEADLINE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"servd did not end:\n{self.output}") from None

    def leftovers(self) -> list[str]:
        """What should not be there after the end: processes, and files in the runtime folder."""
        left = [f"process {process.pid}" for process in alive(self.known.values())]
        files = [str(path) for path in self.runtime.rglob("*")] if self.runtime.exists() else []
        return left + files

    def clean_up(self) -> None:
        """Ends whatever is left, however the test went."""
        self.remember()
        if self.main is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self.main.kill()
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        for process in self.known.values():
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self._log.close()


class Servd:
    """Makes daemons for one test, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.watching = False
        # short, since paths of unix sockets have 107 bytes only
        self._short = Path(tempfile.mkdtemp(prefix="sd", dir="/tmp"))
        self.started: list[ServdProcess] = []

    def write(self, **files: str) -> None:
        """Files of the folder: `main_py="..."` is main.py."""
        for name, text in files.items():
            stem, _, ending = name.rpartition("_")
            (self.folder / f"{stem}.{ending}").write_text(textwrap.dedent(text))

    def __call__(
        self, config: str, *arguments: str, environ: Mapping[str, str] | None = None, **files: str
    ) -> ServdProcess:
        """A daemon that runs `config` (TOML), beside `files`."""
        self.write(servd_toml=config, **files)
        return self.run("--config", "servd.toml", *arguments, environ=environ)

    def run(
        self,
        *arguments: str,
        environ: Mapping[str, str | None] | None = None,
        folder: Path | None = None,
        **options: Any,
    ) -> ServdProcess:
        """A daemon with these arguments; `options` choose its interpreter and its user. A variable
        that is None in `environ` is unset.

        Unless `watching` is set it watches no config, so that an edit is applied when the test
        asks for it.
        """
        if not self.watching:
            environ = {"SERVD_DAEMON__WATCH": "false", **(environ or {})}
        runtime = self._short / str(len(self.started))
        daemon = ServdProcess(
            folder or self.folder, list(arguments), environ or {}, runtime, **options
        )
        self.started.append(daemon)
        return daemon

    def close(self) -> None:
        for daemon in self.started:
            daemon.clean_up()
        shutil.rmtree(self._short, ignore_errors=True)


def servd_for_others(prefix: str) -> Iterator[Servd]:
    """As `servd_for`, in a folder that other users can enter."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir="/tmp"))
    folder.chmod(0o755)
    for maker in servd_for(folder):
        maker._short.chmod(0o755)
        yield maker
    shutil.rmtree(folder)


@contextlib.contextmanager
def python_for_others(packages: str, needed: str) -> Iterator[str]:
    """An interpreter that any user can run, with servd and what is in the folder `packages` of an
    environment (which may be for its owner alone). Skips where there is none that has `needed`.
    """
    system = Path("/usr/bin") / Path(packages).parent.name
    if not system.exists():
        pytest.skip(f"needs {system}")
    folder = Path(tempfile.mkdtemp(prefix="sv", dir="/tmp"))
    try:
        folder.chmod(0o755)
        subprocess.run([system, "-m", "venv", "--without-pip", folder / "v"], check=True)
        own = folder / "v" / "lib" / system.name / "site-packages"
        (own / "servd.pth").write_text(f"{packages}\n{Path(__file__).parents[2]}\n")
        found = str(folder / "v" / "bin" / "python")
        tried = subprocess.run([found, "-c", f"import {needed}"], user="nobody")
        if tried.returncode != 0:
            pytest.skip("another user cannot read this environment")
        yield found
    finally:
        shutil.rmtree(folder)


def servd_for(folder: Path) -> Iterator[Servd]:
    """For fixtures: a maker of daemons that cleans up after the test."""
    maker = Servd(folder)
    try:
        yield maker
    finally:
        maker.close()


def free_port() -> int:
    """A port of the loopback interface that is free now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def command(*arguments: str, folder: Path, environ: Mapping[str, str] | None = None) -> Any:
    """Runs `servd ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "servd", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        env={**os.environ, **(environ or {})},
    )
