"""`servd dev`: one worker each, and what is edited is served at once, unless it is broken."""

from __future__ import annotations

import os
import pty
import re
import sys
from pathlib import Path

import pytest

from support.harness import DEADLINE, Servd, ServdProcess, free_port, wait_until

APP = """
    import {module}

    async def app(scope, receive, send):
        assert scope["type"] == "http"
        await send({{"type": "http.response.start", "status": 200, "headers": []}})
        await send({{"type": "http.response.body", "body": {module}.WORD.encode()}})
"""


def app(module: str) -> str:
    return APP.format(module=module)


def config(**services: str) -> str:
    return "".join(
        f'[services.{name}]\napp = "{name}:app"\nlisten = "127.0.0.1:{free_port()}"\n{keys}\n'
        for name, keys in services.items()
    )


def dev(servd: Servd, text: str, **files: str) -> ServdProcess:
    servd.write(servd_toml=text, **files)
    daemon = servd.run("dev")
    wait_until(lambda: "servd ready" in daemon.output, "it is ready")
    return daemon


def page(daemon: ServdProcess, name: str) -> str:
    import httpx

    return httpx.get(daemon.service(name)["listen"][0], timeout=DEADLINE).text


def test_the_changed_service_alone_starts_anew(servd: Servd) -> None:
    text = config(one="workers = 3", two="workers = 2")
    daemon = dev(
        servd, text, one_py=app("of_one"), two_py=app("of_two"),
        of_one_py='WORD = "a"', of_two_py='WORD = "b"',
    )  # fmt: skip
    assert len(daemon.pids("one")) == len(daemon.pids("two")) == 1
    before = daemon.pids("two")
    servd.write(of_one_py='WORD = "c"')
    wait_until(lambda: page(daemon, "one") == "c", "the edit is served")
    assert page(daemon, "two") == "b"
    assert daemon.pids("two") == before
    assert daemon.stop() == 0


def test_a_broken_edit_shows_its_traceback_and_the_last_good_one_serves_on(servd: Servd) -> None:
    daemon = dev(servd, config(one=""), one_py=app("word"), word_py='WORD = "a"')
    before = daemon.pids("one")
    servd.write(word_py='WORD = "a')
    wait_until(lambda: "reload failed" in daemon.output, "the edit was refused")
    assert "SyntaxError: unterminated string literal" in daemon.output
    assert "word.py" in daemon.output
    assert (page(daemon, "one"), daemon.pids("one")) == ("a", before)
    servd.write(word_py='WORD = "b"')
    wait_until(lambda: page(daemon, "one") == "b", "the mended one is served")


def test_what_was_broken_at_the_start_is_served_once_it_is_mended(servd: Servd) -> None:
    servd.write(servd_toml=config(one=""), one_py=app("word"), word_py="import nowhere")
    daemon = servd.run("dev")
    wait_until(lambda: "No module named 'nowhere'" in daemon.output, "the traceback is shown")
    servd.write(word_py='WORD = "b"')
    wait_until(lambda: daemon.service("one")["state"] == "ready", "it is ready")
    assert page(daemon, "one") == "b"


def test_a_module_that_was_missing_mends_the_service_that_wants_it(servd: Servd) -> None:
    daemon = dev(servd, config(one=""), one_py=app("word"), word_py='WORD = "a"')
    servd.write(word_py="from more import WORD")
    wait_until(lambda: "No module named 'more'" in daemon.output, "the edit was refused")
    os.mkdir(servd.folder / "more")
    (servd.folder / "more" / "__init__.py").write_text('WORD = "d"')
    wait_until(lambda: page(daemon, "one") == "d", "what was missing is there")
    (servd.folder / "more" / "__init__.py").write_text('WORD = "e"')
    wait_until(lambda: page(daemon, "one") == "e", "a new folder is watched")


def test_a_folder_that_is_put_in_place_of_itself_is_still_watched(servd: Servd) -> None:
    """As git does when another branch is checked out."""
    import shutil

    pack = servd.folder / "pack"
    pack.mkdir()
    (pack / "__init__.py").write_text('WORD = "a"')
    daemon = dev(servd, config(one=""), one_py=app("pack"))
    shutil.copytree(pack, servd.folder / "other")
    shutil.rmtree(pack)
    (servd.folder / "other").rename(pack)
    for word in ("b", "c"):
        (pack / "__init__.py").write_text(f'WORD = "{word}"')
        wait_until(lambda word=word: page(daemon, "one") == word, f"{word} is served")  # type: ignore[misc]


def test_what_git_ignores_starts_nothing(servd: Servd) -> None:
    (servd.folder / "generated").mkdir()
    (servd.folder / ".gitignore").write_text("generated/\n*_pb.py\n")
    daemon = dev(servd, config(one=""), one_py=app("word"), word_py='WORD = "a"')
    before = daemon.pids("one")
    (servd.folder / "generated" / "x.py").write_text("X = 1")
    servd.write(new_pb_py="X = 1")
    (servd.folder / "notes.txt").write_text("x")
    servd.write(word_py='WORD = "b"')  # what comes after them in time has been seen
    wait_until(lambda: page(daemon, "one") == "b", "the edit is served")
    reloads = [line for line in daemon.output.splitlines() if "reload started" in line]
    assert all("word.py changed" in line for line in reloads), reloads
    assert daemon.pids("one") != before


def test_a_program_starts_anew_when_a_file_of_its_kind_changes(servd: Servd) -> None:
    port = free_port()
    program = """
        import http.server, sys

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"old")

        http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
    """
    text = f"""
        [services.program]
        command = ["{sys.executable}", "program.py", "{{port}}"]
        listen = "127.0.0.1:{port}"
        timeouts = {{ drain = "1s" }}
    """
    daemon = dev(servd, text, program_py=program)
    assert page(daemon, "program") == "old"
    servd.write(program_py=program.replace('b"old"', 'b"new"'))
    wait_until(lambda: "reload finished" in daemon.output, "it was started anew")
    assert page(daemon, "program") == "new"


def test_an_edit_of_the_configuration_is_applied_too(servd: Servd) -> None:
    servd.watching = True
    text = config(one="")
    daemon = dev(servd, text, one_py=app("word"), word_py='WORD = "a"', two_py=app("word"))
    servd.write(servd_toml=text + config(two="workers = 4"))
    wait_until(
        lambda: [s["state"] for s in daemon.status()["services"]] == ["ready", "ready"],
        "the new service is ready",
    )
    assert len(daemon.pids("two")) == 1
    servd.write(word_py='WORD = "b"')
    for name in ("one", "two"):
        wait_until(lambda name=name: page(daemon, name) == "b", f"{name} has the edit")  # type: ignore[misc]


def test_every_service_has_a_colour_of_its_own_on_a_terminal(servd: Servd, tmp_path: Path) -> None:
    servd.write(servd_toml=config(one="", two=""), one_py=app("word"), two_py=app("word"))
    servd.write(word_py='WORD = "a"')
    import subprocess

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "servd", "dev"],
        cwd=servd.folder,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "SERVD_DAEMON__RUNTIME_DIR": str(servd._short / "tty")},
        start_new_session=True,
    )
    os.close(theirs)
    try:
        said = b""
        while b"servd ready" not in said:
            said += os.read(ours, 65536)
    finally:
        process.terminate()
        process.wait()
        os.close(ours)
    leads = {
        name: {
            line.partition(name)[0] for line in said.decode().splitlines() if f"m{name} |" in line
        }
        for name in ("one", "two")
    }
    assert len(leads["one"]) == len(leads["two"]) == 1
    assert leads["one"] != leads["two"]


WSGI = """
    import {module}

    def app(environ, start_response):
        start_response("200 OK", [])
        return [{module}.WORD.encode()]
"""


def reasons(daemon: ServdProcess) -> set[str]:
    """The files whose changes led to reloads."""
    found = re.findall(r"reload started.*reason='?(.*?) changed", daemon.output)
    return {name for reason in found for name in reason.split(", ")}


def test_a_module_that_nobody_has_loaded_starts_nothing(servd: Servd) -> None:
    servd.write(web_py=WSGI.format(module="of_web"), of_web_py='WORD = "a"')
    daemon = dev(servd, config(one="", web=""), one_py=app("of_one"), of_one_py='WORD = "a"')
    (servd.folder / "env" / "lib").mkdir(parents=True)
    (servd.folder / "env" / "pyvenv.cfg").write_text("")
    before = daemon.pids("one"), daemon.pids("web")
    for word in ("b", "c"):
        servd.write(
            nobody_py=f"X = {word!r}", test_one_py="import one", of_web_py=f"WORD = {word!r}"
        )
        (servd.folder / "env" / "lib" / "of_one.py").write_text(f"X = {word!r}")
        wait_until(lambda word=word: page(daemon, "web") == word, "the edit is served")  # type: ignore[misc]
    assert reasons(daemon) == {"of_web.py"}
    assert daemon.pids("one") == before[0]
    servd.write(of_one_py='WORD = "d"')
    wait_until(lambda: page(daemon, "one") == "d", "the other one has its edit")
    assert daemon.pids("web") != before[1]
    assert reasons(daemon) == {"of_web.py", "of_one.py"}


@pytest.mark.parametrize("keys", ["", "preload = true"])
def test_what_an_app_imports_when_it_is_asked_belongs_to_it_too(servd: Servd, keys: str) -> None:
    asked = """
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            from late import WORD
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": WORD.encode()})
    """
    daemon = dev(servd, config(one=keys), one_py=asked, late_py='WORD = "a"')
    before = daemon.pids("one")
    servd.write(late_py='WORD = "b"')  # nobody has loaded it yet
    assert page(daemon, "one") == "b"
    servd.write(late_py='WORD = "c"')
    wait_until(lambda: page(daemon, "one") == "c", "the edit is served")
    assert daemon.pids("one") != before
    servd.write(late_py="import nowhere")
    wait_until(lambda: page(daemon, "one") == "Internal Server Error", "it is started anew")
    servd.write(nowhere_py="", late_py='import nowhere\nWORD = "d"')
    wait_until(lambda: page(daemon, "one") == "d", "it is mended")


@pytest.mark.parametrize("kind", [APP, WSGI])
@pytest.mark.parametrize("keys", ["", "preload = true"])
def test_what_was_missing_at_the_start_is_noticed_when_it_comes(
    servd: Servd, kind: str, keys: str
) -> None:
    servd.write(servd_toml=config(one=keys), one_py=kind.format(module="pack.word"))
    daemon = servd.run("dev")
    wait_until(lambda: "No module named 'pack'" in daemon.output, "the traceback is shown")
    (servd.folder / "pack").mkdir()  # a namespace package
    (servd.folder / "pack" / "word.py").write_text("from pack.more import WORD")
    wait_until(lambda: "No module named 'pack.more'" in daemon.output, "it was tried again")
    (servd.folder / "pack" / "other.py").write_text("")
    (servd.folder / "pack" / "more.py").write_text('WORD = "a"')
    wait_until(lambda: daemon.service("one")["state"] == "ready", "it is ready")
    assert page(daemon, "one").endswith("a")


def test_a_module_that_an_app_can_do_without_is_loaded_once_it_is_there(servd: Servd) -> None:
    servd.write(
        word_py="""
            try:
                from local_words import WORD
            except ImportError:
                WORD = "a"
        """
    )
    daemon = dev(servd, config(one=""), one_py=app("word"))
    assert page(daemon, "one") == "a"
    servd.write(local_words_py='WORD = "b"')
    wait_until(lambda: page(daemon, "one") == "b", "it is there")
    (servd.folder / "local_words.py").unlink()
    wait_until(lambda: page(daemon, "one") == "a", "it is gone")


def test_code_that_ends_the_process_is_mended(servd: Servd) -> None:
    daemon = dev(servd, config(one=""), one_py=app("word"), word_py='WORD = "a"')
    servd.write(end_py="import os\nos._exit(7)", word_py="import end\nWORD = 'b'")
    wait_until(lambda: "reload failed" in daemon.output, "the edit was refused")
    servd.write(end_py="")
    wait_until(lambda: page(daemon, "one") == "b", "it is mended")


def test_an_app_that_ends_at_its_first_start_is_mended(servd: Servd) -> None:
    servd.write(servd_toml=config(one=""), one_py="import os\nos._exit(7)", other_py="")
    daemon = servd.run("dev")
    wait_until(lambda: "exit_status=7" in daemon.output, "it ends")
    servd.write(one_py=app("word"), word_py='WORD = "a"')
    wait_until(lambda: daemon.service("one")["state"] == "ready", "it is ready")
    assert page(daemon, "one") == "a"
