"""Under steady load, by a client that forgives nothing, no reload loses a request."""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import trustme

from support.apps import CALLER, HOLD, PLAIN, named, plain, web
from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until
from support.load import client_of, under_load
from support.strict_client import AROUND, StrictClient, Tally


def reloads(daemon: ServdProcess, *configs: str) -> list[Callable[[], object]]:
    """Acts that reload to each of `configs` and see that it was applied."""

    def one(config: str) -> Callable[[], object]:
        def act() -> None:
            answer = daemon.reload(config)
            assert answer.get("outcome") == "applied", answer

        return act

    return [one(config) for config in configs]


def test_the_client_itself_loses_nothing_without_a_reload(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    tally = under_load(client_of(daemon))
    assert tally.lost == []
    assert tally.answered > 2 * AROUND  # and the slow ones


def test_rolling_four_workers_again_and_again_loses_nothing(servd: Servd) -> None:
    daemon = servd(web(0, workers=4), main_py=PLAIN).ready()
    tally = under_load(
        client_of(daemon), *reloads(daemon, *(web(n, workers=4) for n in range(1, 6)))
    )
    assert tally.lost == []
    assert set(tally.answers) == {str(n) for n in range(6)}


def test_rolls_and_scales_with_few_places_lose_nothing(servd: Servd) -> None:
    """Connections wait in the queue of the socket while workers come and go."""

    def config(value: int, workers: int) -> str:
        return web(value, workers=workers, extra="limits = { concurrency = 2, queue = 50 }")

    daemon = servd(config(0, 3), main_py=PLAIN).ready()
    steps = [config(1, 3), config(1, 5), config(2, 5), config(2, 3), config(3, 3)]
    tally = under_load(client_of(daemon), *reloads(daemon, *steps))
    assert tally.lost == []
    assert set(tally.answers) == {str(n) for n in range(4)}


def test_restarting_an_unchanged_service_loses_nothing_and_replaces_all(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    before = daemon.pids("web")

    def restart() -> None:
        answer = daemon.ask("POST", "/v1/services/web/restart").json()
        assert answer["outcome"] == "applied", answer

    assert under_load(client_of(daemon), restart, restart).lost == []
    assert not set(before) & set(daemon.pids("web"))
    assert daemon.service("web")["generation"] == 3


def test_a_dependency_that_rolls_does_not_disturb_its_dependents(servd: Servd) -> None:
    def config(value: int) -> str:
        return f"""
            [defaults]
            log.access = false
            [services.web]
            app = "caller:app"
            listen = "127.0.0.1:0"
            depends_on = ["backend"]
            workers = 2
            [services.backend]
            app = "main:app"
            workers = 2
            env = {{ V = "{value}" }}
        """

    daemon = servd(config(0), main_py=PLAIN, caller_py=CALLER).ready()
    before = daemon.pids("web")
    tally = under_load(client_of(daemon), *reloads(daemon, *(config(n) for n in range(1, 5))))
    assert tally.lost == []
    assert set(tally.answers) == {str(n) for n in range(5)}
    assert daemon.pids("web") == before


def test_scaling_keeps_the_workers_that_stay(servd: Servd) -> None:
    daemon = servd(web(workers=2), main_py=PLAIN).ready()
    two = daemon.pids("web")
    seen: list[list[int]] = []
    acts: list[Callable[[], object]] = []
    for act in reloads(daemon, web(workers=6), web(workers=1)):
        acts += [act, lambda: seen.append(daemon.pids("web"))]
    assert under_load(client_of(daemon), *acts).lost == []
    assert seen[0][:2] == two
    assert len(seen[0]) == 6
    assert seen[1] == two[:1]
    assert daemon.service("web")["generation"] == 1


def test_one_by_one_never_has_more_than_one_worker_above(servd: Servd) -> None:
    extra = 'rollout = { strategy = "one-by-one" }'
    daemon = servd(web(0, workers=3, extra=extra), main_py=PLAIN).ready()
    most = 0

    def look() -> None:
        nonlocal most
        web_now = daemon.service("web")
        drained = {pid for drain in web_now["draining"] for pid in drain["pids"]}
        alive = {p.pid for p in daemon.descendants()} - drained
        most = max(most, len(alive))

    async def work() -> None:
        reload = asyncio.ensure_future(
            asyncio.to_thread(daemon.reload, web(1, workers=3, extra=extra))
        )
        while not reload.done():
            await asyncio.to_thread(look)
        assert reload.result().get("outcome") == "applied", reload.result()

    tally = asyncio.run(client_of(daemon).during(work))
    assert tally.lost == []
    assert most <= 4
    assert set(tally.answers) == {"0", "1"}


def test_another_port_answers_before_the_old_one_stops(servd: Servd) -> None:
    old, new = free_port(), free_port()
    daemon = servd(web(0, listen=f"127.0.0.1:{old}"), main_py=PLAIN).ready()
    client = StrictClient("127.0.0.1", old)

    async def work() -> None:
        asked = asyncio.ensure_future(
            asyncio.to_thread(daemon.reload, web(1, listen=f"127.0.0.1:{new}"))
        )
        while client.port == old:  # whoever finds the new address answering goes there
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", new)
            except OSError:
                await asyncio.sleep(0.005)
            else:
                writer.close()
                client.port = new
        assert (await asked).get("outcome") == "applied"

    tally = asyncio.run(client.during(work))
    assert tally.lost == []
    with pytest.raises(ConnectionRefusedError):
        asyncio.run(asyncio.wait_for(asyncio.open_connection("127.0.0.1", old), DEADLINE))


def test_a_connection_to_the_old_port_that_had_said_nothing_yet_is_answered(servd: Servd) -> None:
    """Accepted or still in the queue when its listener goes: it may be a request on its way."""
    old, new = free_port(), free_port()
    daemon = servd(web(0, listen=f"127.0.0.1:{old}"), main_py=PLAIN).ready()

    async def main() -> list[bytes]:
        connections = [await asyncio.open_connection("127.0.0.1", old) for _ in range(20)]
        asked = asyncio.ensure_future(
            asyncio.to_thread(daemon.reload, web(1, listen=f"127.0.0.1:{new}"))
        )
        connections += [await asyncio.open_connection("127.0.0.1", old) for _ in range(20)]
        assert (await asked).get("outcome") == "applied"
        answers = []
        for reader, writer in connections:
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            answers.append(await reader.read())
            writer.close()
        return answers

    for answer in asyncio.run(main()):
        assert answer.startswith(b"HTTP/1.1 200"), answer
        assert b"connection: close" in answer
        assert answer.endswith(b"\r\n\r\n0")


def test_from_loopback_to_every_interface_on_one_port(servd: Servd) -> None:
    port = free_port()
    daemon = servd(web(0, listen=f"127.0.0.1:{port}"), main_py=PLAIN).ready()
    tally = under_load(
        StrictClient("127.0.0.1", port),
        *reloads(
            daemon,
            web(1, listen=f"0.0.0.0:{port}"),
            web(2, listen=f":{port}"),
            web(3, listen=f"127.0.0.1:{port}"),
        ),
    )
    assert tally.lost == []
    assert set(tally.answers) == {"0", "1", "2", "3"}


def test_two_services_swap_their_addresses(servd: Servd) -> None:
    first, second = free_port(), free_port()

    def config(one: int, two: int) -> str:
        return named("one", one) + named("two", two)

    daemon = servd(config(first, second), main_py=PLAIN).ready()
    clients = [StrictClient("127.0.0.1", port, rate=100, slow=2) for port in (first, second)]

    async def both() -> list[Tally]:
        loaded, swapped = asyncio.Event(), asyncio.Event()

        async def work() -> None:
            await loaded.wait()
            answer = await asyncio.to_thread(daemon.reload, config(second, first))
            assert answer.get("outcome") == "applied", answer
            swapped.set()

        async def nothing() -> None:
            loaded.set()
            await swapped.wait()

        async with asyncio.TaskGroup() as group:  # whichever fails, the other does not wait for it
            loads = [group.create_task(clients[0].during(work))]
            loads.append(group.create_task(clients[1].during(nothing)))
        return [load.result() for load in loads]

    tallies = asyncio.run(both())
    assert [tally.lost for tally in tallies] == [[], []]
    assert [set(tally.answers) for tally in tallies] == [{"one", "two"}] * 2
    changes = {c["service"]: c["kind"] for c in daemon.status()["last_reload"]["changes"]}
    assert changes == {"one": "rebind", "two": "rebind"}


def test_an_address_moves_to_another_service(servd: Servd) -> None:
    """One service goes, another comes on its address: it is answered all the while."""
    port = free_port()
    before = web("old", listen=f"127.0.0.1:{port}")
    daemon = servd(before, main_py=PLAIN).ready()
    after = web("new", listen=f"127.0.0.1:{port}").replace("services.web", "services.other")
    tally = under_load(StrictClient("127.0.0.1", port), *reloads(daemon, after, before))
    assert tally.lost == []
    assert set(tally.answers) == {"old", "new"}


def test_a_worker_killed_in_the_middle_of_a_roll_undoes_it(servd: Servd) -> None:
    held = plain("time.sleep(1000)")
    daemon = servd(web(1), main_py=PLAIN, held_py=held).ready()
    pids = daemon.pids("web")
    answers: list[dict[str, Any]] = []

    async def work() -> None:
        config = web(2).replace("main:app", "held:app")
        asked = asyncio.ensure_future(asyncio.to_thread(daemon.reload, config))

        def strangers() -> set[int]:
            return {event["pid"] for event in daemon.find("worker started", generation=2)}

        new = await asyncio.to_thread(wait_until, strangers, "a new worker")
        os.kill(min(new), signal.SIGKILL)
        answers.append(await asked)

    tally = asyncio.run(client_of(daemon).during(work))
    assert tally.lost == []
    assert set(tally.answers) == {"1"}
    assert answers[0]["outcome"] == "rolled_back"
    assert "was killed by SIGKILL" in answers[0]["detail"]
    assert daemon.pids("web") == pids


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def write_pair(folder: Path, authority: trustme.CA) -> int:
    """A new certificate for localhost beside the config; its serial number."""
    from cryptography import x509

    issued = authority.issue_cert("localhost")
    chain = b"".join(pem.bytes() for pem in issued.cert_chain_pems)
    for name, content in (("key.pem", issued.private_key_pem.bytes()), ("cert.pem", chain)):
        (folder / f"{name}.new").write_bytes(content)
    for name in ("key.pem", "cert.pem"):
        (folder / f"{name}.new").replace(folder / name)
    return x509.load_pem_x509_certificate(chain).serial_number


def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


TLS = 'tls = { certfile = "cert.pem", keyfile = "key.pem" }'


def test_rolling_over_tls_loses_nothing(servd: Servd, authority: trustme.CA) -> None:
    write_pair(servd.folder, authority)
    daemon = servd(web(0, extra=TLS), main_py=PLAIN).ready()
    client = client_of(daemon)
    client.context = trusting(authority)
    tally = under_load(client, *reloads(daemon, *(web(n, extra=TLS) for n in range(1, 5))))
    assert tally.lost == []
    assert set(tally.answers) == {str(n) for n in range(5)}


def test_certificates_rotate_under_load_with_the_same_workers(
    servd: Servd, authority: trustme.CA
) -> None:
    serials = [write_pair(servd.folder, authority)]
    daemon = servd(web(extra=TLS), main_py=PLAIN).ready()
    before = daemon.pids("web")
    client = client_of(daemon)
    client.context = trusting(authority)

    def rotate() -> None:
        serials.append(write_pair(servd.folder, authority))
        wait_until(lambda: serials[-1] in client.tally.serials, "the new certificate is seen")

    tally = under_load(client, rotate, rotate, rotate)
    assert tally.lost == []
    assert tally.serials == set(serials)
    assert daemon.pids("web") == before
    last = daemon.status()["last_reload"]
    assert (last["outcome"], last["changes"][0]["kind"]) == ("applied", "live")


def test_a_worker_that_was_starting_meanwhile_has_the_new_certificate(
    servd: Servd, authority: trustme.CA
) -> None:
    write_pair(servd.folder, authority)
    daemon = servd(web(extra=TLS, workers=1), main_py=plain(HOLD)).ready()
    (servd.folder / "hold").touch()
    (victim,) = daemon.pids("web")
    os.kill(victim, signal.SIGKILL)
    wait_until(lambda: daemon.pids("web") not in ([], [victim]), "another worker is starting")
    assert daemon.service("web")["workers"]["ready"] == 0
    serial = write_pair(servd.folder, authority)
    daemon.reload()  # or the daemon has seen it by itself before that
    daemon.wait_for("reload finished", outcome="applied")
    assert daemon.service("web")["workers"]["ready"] == 0
    (servd.folder / "hold").unlink()
    client = client_of(daemon)
    client.context = trusting(authority)
    wait_until(lambda: daemon.service("web")["workers"]["ready"] == 1, "the worker is ready")

    async def once() -> None:
        await client.ask("/", kept=False)
        await client.closed()

    def look() -> bool:
        client.tally.serials.clear()
        asyncio.run(once())
        return client.tally.serials == {serial}

    wait_until(look, "the new certificate is shown")
    assert client.tally.lost == []


@pytest.mark.parametrize("how", ["reload", "upgrade"])
def test_tls_comes_and_goes_on_one_port(servd: Servd, authority: trustme.CA, how: str) -> None:
    """A client that knows what the port speaks never meets the other: what waits in the queue
    is answered by workers of one kind only.
    """
    write_pair(servd.folder, authority)
    port = free_port()
    plain, secure = (
        web(0, listen=f"127.0.0.1:{port}"),
        web(1, listen=f"127.0.0.1:{port}", extra=TLS),
    )
    daemon = servd(plain, main_py=PLAIN).ready()
    context = trusting(authority)
    sequence: list[str] = []

    def change(config: str) -> None:
        if how == "upgrade":
            daemon.edit(config)
            answer = daemon.upgrade()
            assert answer.get("outcome") == "replaced", answer
            return
        answer = daemon.reload(config)
        assert answer.get("outcome") == "applied", answer
        assert answer["changes"][0]["kind"] == "switch"

    async def look(stop: asyncio.Event) -> None:
        """What the port speaks, seen by connections one after the other."""
        while not stop.is_set():
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            try:
                head = await reader.read(12)
            except ConnectionError:
                head = b""
            sequence.append("plain" if head.startswith(b"HTTP/1.1 200") else "tls")
            writer.close()
            await asyncio.sleep(0.005)

    async def main() -> None:
        stop = asyncio.Event()
        looking = asyncio.ensure_future(look(stop))
        for config, speaks in ((secure, "tls"), (plain, "plain")):
            await asyncio.to_thread(change, config)
            looks = len(sequence)
            async with asyncio.timeout(DEADLINE):
                while len(sequence) < looks + 3 or sequence[-1] != speaks:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            if config is secure:
                _, writer = await asyncio.open_connection("localhost", port, ssl=context)
                writer.close()
                await writer.wait_closed()
        stop.set()
        await looking

    asyncio.run(main())
    turns = [
        kind for index, kind in enumerate(sequence) if index == 0 or sequence[index - 1] != kind
    ]
    assert turns == ["plain", "tls", "plain"]
