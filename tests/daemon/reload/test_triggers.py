"""What asks for a reload: signals, files that change, however editors change them."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme

from support.apps import HOLD, PLAIN, plain, web
from support.harness import Servd, ServdProcess, wait_until


@pytest.fixture(autouse=True)
def watching(servd: Servd) -> None:
    servd.watching = True


def outcome(daemon: ServdProcess, *outcomes: str) -> dict[str, Any]:
    """The last reload, once it has one of the outcomes."""

    def look() -> dict[str, Any] | None:
        last = daemon.status()["last_reload"]
        return last if last is not None and last["outcome"] in outcomes else None

    found: dict[str, Any] = wait_until(look, f"a reload with outcome {outcomes}")
    return found


def unwatched(value: object) -> str:
    return "[daemon]\n        watch = false\n" + web(value)


def test_sighup_applies_the_difference(servd: Servd) -> None:
    daemon = servd(unwatched(1), main_py=PLAIN).ready()
    daemon.edit(unwatched(2))
    daemon.send(signal.SIGHUP)
    last = outcome(daemon, "applied")
    assert last["why"] == "SIGHUP"
    assert last["changes"][0]["keys"] == [
        {"sign": "~", "key": "env.V", "before": '"1"', "after": '"2"'}
    ]
    assert daemon.get("web").text == "2"


def test_sighup_without_an_edit_touches_nothing(servd: Servd) -> None:
    daemon = servd(web(), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    daemon.send(signal.SIGHUP)
    assert outcome(daemon, "unchanged")["changes"] == []
    assert daemon.pids("web") == pids
    assert daemon.status()["config"]["generation"] == 1


def test_triggers_during_a_reload_become_one_more(servd: Servd) -> None:
    daemon = servd(unwatched(1), main_py=plain(HOLD)).ready()
    (servd.folder / "hold").touch()
    daemon.edit(unwatched(2))
    daemon.send(signal.SIGHUP)
    daemon.wait_for("reload started")
    daemon.edit(unwatched(3))
    answers: list[dict[str, Any]] = []

    def sockets() -> int:
        """Of the daemon's admin API: the one that listens, and those that were accepted."""
        notify = f"{daemon.runtime}/n/"
        known = [str(c.laddr) for c in psutil.Process(daemon.pid).net_connections("unix")]
        return len([name for name in known if name and not name.startswith(notify)])

    before = sockets()
    asking = [threading.Thread(target=lambda: answers.append(daemon.reload())) for _ in range(5)]
    for thread in asking:
        thread.start()
        daemon.send(signal.SIGHUP)
    wait_until(lambda: sockets() == before + len(asking), "all are asked for")
    assert daemon.status()["last_reload"] is None  # asked after them, and answered
    (servd.folder / "hold").unlink()
    for thread in asking:
        thread.join()
    assert [answer["outcome"] for answer in answers] == ["applied"] * 5
    assert daemon.get("web").text == "3"
    assert len(daemon.find("reload finished")) == 2


def test_a_file_that_is_written_in_place_is_noticed(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    servd.write(servd_toml=web(2))
    assert outcome(daemon, "applied")["why"] == "a file changed"
    assert daemon.get("web").text == "2"


def test_an_editor_that_renames_is_noticed(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    daemon.edit(web(2))
    outcome(daemon, "applied")
    assert daemon.get("web").text == "2"


def test_an_edit_during_the_first_start_is_noticed(servd: Servd) -> None:
    (servd.folder / "hold").touch()
    daemon = servd(web(1), main_py=plain(HOLD))
    daemon.wait_for("listening")
    daemon.edit(web(2))
    (servd.folder / "hold").unlink()
    daemon.ready()
    wait_until(lambda: daemon.get("web").text == "2", "the edit is in force")


def test_a_link_that_is_swapped_is_noticed(servd: Servd) -> None:
    """As a Kubernetes ConfigMap: servd.toml -> ..data/servd.toml, ..data -> a folder."""
    mount = servd.folder / "mount"
    mount.mkdir()

    def publish(value: int) -> None:
        import textwrap

        version = mount / f"..{value}"
        version.mkdir()
        config = web(value).replace(
            'app = "main:app"', f'app = "main:app"\ndirectory = "{servd.folder}"'
        )
        (version / "servd.toml").write_text(textwrap.dedent(config.replace("        ", "")))
        (mount / "..data_tmp").symlink_to(version.name)
        (mount / "..data_tmp").rename(mount / "..data")

    publish(1)
    (mount / "servd.toml").symlink_to("..data/servd.toml")
    servd.write(main_py=PLAIN)
    daemon = servd.run("--config", "mount/servd.toml").ready()
    for value in (2, 3):
        publish(value)
        wait_until(lambda: daemon.get("web").text == str(value), f"{value} is served")  # noqa: B023


def test_a_half_written_file_is_reported_and_not_applied(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    path = servd.folder / "servd.toml"
    whole = path.read_text().replace('"1"', '"2"')
    path.write_text(whole[: len(whole) - 12])
    assert "servd.toml:" in outcome(daemon, "invalid")["details"][0]
    assert daemon.get("web").text == "1"
    path.write_text(whole)
    outcome(daemon, "applied")
    assert daemon.get("web").text == "2"


def test_includes_and_env_files_are_watched(servd: Servd) -> None:
    (servd.folder / "conf.d").mkdir()
    (servd.folder / "web.env").write_text("V=1\n")
    config = """
        include = ["conf.d/*.toml"]
        [services.web]
        app = "main:app"
        listen = "127.0.0.1:0"
        env_file = "web.env"
    """
    daemon = servd(config, main_py=PLAIN).ready()
    (servd.folder / "web.env").write_text("V=2\n")
    wait_until(lambda: daemon.get("web").text == "2", "the new env file is in force")
    (servd.folder / "conf.d" / "job.toml").write_text(
        '[services.job]\ncommand = ["sleep", "1000"]\n'
    )
    wait_until(lambda: len(daemon.status()["services"]) == 2, "the new service runs")
    (servd.folder / "conf.d" / "job.toml").unlink()
    wait_until(lambda: len(daemon.status()["services"]) == 1, "the service is gone")


def test_a_folder_of_includes_may_come_later(servd: Servd) -> None:
    config = 'include = ["later/*.toml"]\n' + web(1)
    daemon = servd(config, main_py=PLAIN).ready()
    (servd.folder / "later").mkdir()
    (servd.folder / "later" / "job.toml").write_text(
        '[services.job]\ncommand = ["sleep", "1000"]\n'
    )
    wait_until(lambda: len(daemon.status()["services"]) == 2, "the new service runs")


def test_serving_without_a_file_reloads_on_a_signal(servd: Servd) -> None:
    servd.write(main_py=PLAIN)
    daemon = servd.run("serve", "main:app", "--port", "0", environ={"V": "1"}).ready()
    pids = daemon.pids("main")
    daemon.send(signal.SIGHUP)
    outcome(daemon, "unchanged")
    assert daemon.pids("main") == pids
    assert daemon.ask("POST", "/v1/services/main/restart").json()["outcome"] == "applied"
    assert daemon.get("main").text == "1"


def test_a_config_that_vanishes_is_reported_and_nothing_stops(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    path = servd.folder / "servd.toml"
    text = path.read_text()
    path.unlink()
    assert "no such file" in outcome(daemon, "invalid")["error"]
    assert daemon.get("web").text == "1"
    path.write_text(text.replace('"1"', '"2"'))
    wait_until(lambda: daemon.get("web").text == "2", "the new file is in force")


def test_other_files_of_the_folder_ask_for_nothing(servd: Servd) -> None:
    daemon = servd(web(1), main_py=PLAIN).ready()
    for number in range(20):
        (servd.folder / f"noise{number}").write_text("x")
    daemon.edit(web(2))
    outcome(daemon, "applied")
    assert len(daemon.find("reload started")) == 1


def test_watching_can_be_switched_off_and_on_by_a_reload(servd: Servd) -> None:
    daemon = servd(unwatched(1), main_py=PLAIN).ready()
    assert daemon.reload(web(1))["outcome"] == "applied"
    daemon.edit(web(2))
    wait_until(lambda: daemon.get("web").text == "2", "the edit is noticed")
    assert daemon.pids("web") != []


def test_a_reload_changes_the_daemons_own_settings(servd: Servd) -> None:
    servd.watching = False  # what is asked for is what applies it
    daemon = servd(web(1), main_py=PLAIN).ready()
    pids = daemon.pids("web")
    log = servd.folder / "servd.log"
    daemon.loses_lines = True  # they go to another file from now on
    answer = daemon.reload(f'[daemon]\nlog = {{ file = "{log}", level = "debug" }}\n' + web(1))
    assert answer["outcome"] == "applied"
    assert answer["changes"] == []
    wait_until(log.exists, "the log file is written")
    socket = Path(daemon.runtime) / "other.sock"
    answer = daemon.reload(f'[admin]\nlisten = "unix:{socket}"\n' + web(1))
    assert answer["outcome"] == "applied"
    wait_until(socket.exists, "the other admin socket")
    wait_until(lambda: not (daemon.runtime / "admin.sock").exists(), "the old admin socket is gone")
    assert daemon.process.poll() is None
    (daemon.runtime / "admin.sock").symlink_to(socket)  # where the test asks
    assert daemon.pids("web") == pids


def test_a_bad_pair_of_certificate_and_key_is_refused_and_the_old_stays(servd: Servd) -> None:
    authority = trustme.CA()
    first, second = authority.issue_cert("localhost"), authority.issue_cert("localhost")

    def place(name: str, content: bytes) -> None:
        (servd.folder / f"{name}.new").write_bytes(content)
        (servd.folder / f"{name}.new").replace(servd.folder / name)

    place("cert.pem", first.cert_chain_pems[0].bytes())
    place("key.pem", first.private_key_pem.bytes())
    daemon = servd(
        web(extra='tls = { certfile = "cert.pem", keyfile = "key.pem" }'), main_py=PLAIN
    ).ready()
    pids = daemon.pids("web")
    place("cert.pem", second.cert_chain_pems[0].bytes())
    last = outcome(daemon, "rolled_back")
    assert "cannot use the TLS certificate and key" in last["error"]
    context = authority.cert_pem.bytes()
    (servd.folder / "ca.pem").write_bytes(context)
    url = daemon.url("web").replace("127.0.0.1", "localhost")
    import ssl

    import httpx

    trusted = ssl.create_default_context(cafile=str(servd.folder / "ca.pem"))
    assert httpx.get(url, verify=trusted).text == "1"
    place("key.pem", second.private_key_pem.bytes())
    assert outcome(daemon, "applied")["changes"][0]["kind"] == "live"
    assert httpx.get(url, verify=trusted).text == "1"
    assert daemon.pids("web") == pids
