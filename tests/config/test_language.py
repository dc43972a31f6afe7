"""What the configuration language means: inheritance, variables, includes, paths, secrets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from servd.config.load import Loaded, load
from servd.config.model import Config
from servd.core.diagnostics import render


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "main.py").write_text("")
    return tmp_path


def read(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Loaded:
    (folder / "servd.toml").write_text(text)
    return load(str(folder / "servd.toml"), environ or {})


def good(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> Config:
    loaded = read(folder, text, environ)
    assert loaded.errors == []
    return loaded.config


def mistakes(folder: Path, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """The mistakes as `LINE:COLUMN message`."""
    loaded = read(folder, text, environ)
    return [f"{d.place.line}:{d.place.column} {d.path}: {d.message}" for d in loaded.errors]


def test_tables_of_defaults_merge_key_by_key_and_lists_replace(folder: Path) -> None:
    config = good(
        folder,
        """
        [defaults]
        timeouts = { drain = "5s", startup = "9s" }
        env_passthrough = ["A", "B"]
        [services.web]
        app = "main:app"
        timeouts = { drain = "1s" }
        env_passthrough = ["C"]
        [services.other]
        app = "main:app"
        """,
    )
    web, other = config.services["web"], config.services["other"]
    assert (web.timeouts.drain, web.timeouts.startup) == (1.0, 9.0)
    assert web.env_passthrough == ("C",)
    assert other.timeouts.drain == 5.0
    assert other.env_passthrough == ("A", "B")


def test_false_switches_an_inherited_table_off(folder: Path) -> None:
    text = """
        [defaults]
        health = { path = "/up" }
        [services.on]
        command = ["sh"]
        [services.off]
        command = ["sh"]
        health = false
        """
    config = good(folder, text)
    assert config.services["on"].health is not None
    assert config.services["off"].health is None


def test_a_mistake_in_defaults_is_reported_once_where_it_stands(folder: Path) -> None:
    text = '[defaults]\nworkers = "x"\n[services.a]\napp = "main:a"\n[services.b]\napp = "main:b"\n'
    (found,) = mistakes(folder, text)
    assert found.startswith("2:11 defaults.workers:")


def test_the_environment_wins_over_the_file(folder: Path) -> None:
    config = good(
        folder,
        """
        [daemon]
        start_concurrency = 1
        log = { level = "info", format = "json" }
        [defaults]
        workers = 1
        env = { A = "1" }
        [services.web]
        app = "main:app"
        """,
        {
            "SERVD_DAEMON__LOG__LEVEL": "debug",
            "SERVD_DAEMON__START_CONCURRENCY": "7",
            "SERVD_DEFAULTS__WORKERS": "4",
            "SERVD_DEFAULTS__LOG__ACCESS": "false",
            "SERVD_DEFAULTS__ENV__MixedCase": "2",
            "SERVD_DEFAULTS__UMASK": "027",
        },
    )
    assert config.daemon.log.level == "debug"
    assert config.daemon.log.format == "json"
    assert config.daemon.start_concurrency == 7
    web = config.services["web"]
    assert (web.workers, web.log.access, web.umask) == (4, False, "027")
    assert config.defaults.env == {"A": "1", "MixedCase": "2"}


def test_a_mistake_in_the_environment_cites_the_variable(folder: Path) -> None:
    loaded = read(
        folder,
        '[services.web]\napp = "main:app"\n',
        {"SERVD_DAEMON__NONSENSE": "1", "SERVD_DEFAULTS__WORKERS": "many"},
    )
    assert [d.place.file for d in loaded.errors] == [
        "<environment SERVD_DAEMON__NONSENSE>",
        "<environment SERVD_DEFAULTS__WORKERS>",
    ]


def test_other_variables_of_ours_are_no_overrides(folder: Path) -> None:
    environ = {"SERVD_CONFIG": "x", "SERVD_ADMIN": "unix:/x", "SERVD_SERVICES__WEB__APP": "x:y"}
    assert good(folder, '[services.web]\napp = "main:app"\n', environ).services["web"].workers == 1


def test_references_in_all_their_forms(folder: Path) -> None:
    (folder / "secret").write_text("from file\n")
    config = good(
        folder,
        """
        [services.web]
        app = "main:app"
        workers = "${N:-3}"
        [services.web.env]
        SET = "<${SET}>"
        UNSET = "<${UNSET:-default value}>"
        EMPTY = "<${EMPTY:-default}>"
        FILE = "${file:secret}"
        DOLLAR = "$$${SET} $x 5$"
        """,
        {"SET": "value", "EMPTY": ""},
    )
    web = config.services["web"]
    assert web.workers == 3
    assert web.env == {
        "SET": "<value>",
        "UNSET": "<default value>",
        "EMPTY": "<default>",
        "FILE": "from file",
        "DOLLAR": "$value $x 5$",
    }


def test_references_that_lead_nowhere_say_where_they_stand(folder: Path) -> None:
    text = """[services.web]
app = "main:app"
[services.web.env]
A = "${NOT_SET}"
B = "${NOT_SET:?set it please}"
C = "${file:not-there}"
D = "${not closed"
E = "${1}"
"""
    found = mistakes(folder, text)
    assert [line.split(" ")[0] for line in found] == ["4:5", "5:5", "6:5", "7:5", "8:5"]
    assert "variable NOT_SET is not set" in found[0]
    assert "set it please" in found[1]


def test_secrets_are_known_and_never_shown(folder: Path) -> None:
    (folder / "secret").write_text("hunter2")
    text = """
[services.web]
app = "main:app"
[services.web.env]
API_TOKEN = "hunter2"
FROM_FILE = "${file:secret}"
FROM_ENV = "${HIDDEN}"
PLAIN = "plain"
[services.web.tls]
keyfile_password = 3
min_version = "${file:secret}"
"""
    loaded = read(folder, text, {"HIDDEN": "hunter2"})
    paths = {".".join(str(step) for step in path) for path in loaded.secrets}
    assert {
        "services.web.env.API_TOKEN",
        "services.web.env.FROM_FILE",
        "services.web.env.FROM_ENV",
        "services.web.tls.min_version",
    } <= paths
    assert "services.web.env.PLAIN" not in paths
    shown = "\n".join(render(d, loaded.texts) for d in loaded.diagnostics)
    assert "min_version" in shown
    assert "hunter2" not in shown


def test_includes_and_folders_make_one_configuration(folder: Path) -> None:
    (folder / "conf.d").mkdir()
    (folder / "conf.d" / "b.yaml").write_text("services: { b: { app: 'main:b' } }\n")
    (folder / "conf.d" / "a.toml").write_text('[services.a]\napp = "main:a"\n')
    config = good(folder, 'include = ["conf.d/*"]\n[services.c]\napp = "main:c"\n')
    assert set(config.services) == {"a", "b", "c"}
    assert config.services["a"].directory == str(folder / "conf.d")
    assert config.services["c"].directory == str(folder)
    merged = load(str(folder / "conf.d"), {})
    assert merged.errors == []
    assert set(merged.config.services) == {"a", "b"}


def test_a_service_defined_twice_names_both_places(folder: Path) -> None:
    (folder / "more.toml").write_text('\n[services.web]\napp = "main:other"\n')
    loaded = read(folder, 'include = ["more.toml"]\n[services.web]\napp = "main:app"\n')
    (found,) = loaded.errors
    assert found.place.file.endswith("more.toml")
    assert (found.place.line, found.path) == (2, "services.web")
    assert "servd.toml:2:11" in found.message


def test_an_include_that_is_not_there_is_a_mistake_but_an_empty_glob_is_none(folder: Path) -> None:
    text = 'include = ["none.d/*.toml", "missing.toml"]\n[services.web]\napp = "main:app"\n'
    assert mistakes(folder, text) == ["1:29 include: file not found: missing.toml"]


def test_files_that_include_each_other_are_read_once(folder: Path) -> None:
    (folder / "more.toml").write_text('include = ["servd.toml"]\n[services.b]\napp = "main:b"\n')
    config = good(folder, 'include = ["more.toml"]\n[services.a]\napp = "main:a"\n')
    assert set(config.services) == {"a", "b"}


def test_paths_are_relative_to_the_file_that_they_stand_in(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "app.py").write_text("")
    (folder / "sub" / "x.env").write_text("A=1\n")
    (folder / "sub" / "more.toml").write_text(
        '[services.web]\napp = "app.py:app"\nenv_file = "x.env"\nlisten = "unix:web.sock"\n'
    )
    web = good(folder, 'include = ["sub/more.toml"]\n').services["web"]
    assert web.app == f"{folder}/sub/app.py:app"
    assert [file.path for file in web.env_file] == [f"{folder}/sub/x.env"]
    assert str(web.listen[0]) == f"unix:{folder}/sub/web.sock"


def test_toml_yaml_and_json_say_the_same(folder: Path) -> None:
    (folder / "a.toml").write_text(
        '[services.web]\napp = "main:app"\nlisten = [":80", "unix:x.sock"]\numask = "027"\n'
        'env = { ON = "on", N = 1 }\ntimeouts = { drain = 1.5 }\n'
    )
    (folder / "b.yaml").write_text(
        "services:\n  web:\n    app: main:app\n    listen: [':80', 'unix:x.sock']\n    umask: 027\n"
        "    env: { ON: on, N: 1 }\n    timeouts: { drain: 1.5 }\n"
    )
    (folder / "c.json").write_text(
        '{"services": {"web": {"app": "main:app", "listen": [":80", "unix:x.sock"],'
        ' "umask": "027", "env": {"ON": "on", "N": 1}, "timeouts": {"drain": 1.5}}}}'
    )
    configs = [
        load(str(folder / name), {}).require().config for name in ("a.toml", "b.yaml", "c.json")
    ]
    assert configs[0] == configs[1] == configs[2]


def test_yaml_anchors_work_and_bombs_do_not(folder: Path) -> None:
    path = folder / "servd.yaml"
    path.write_text(
        "services:\n  a: &a { app: 'main:a', workers: 2 }\n  b: { <<: *a, app: 'main:b' }\n"
    )
    config = load(str(path), {}).require().config
    assert config.services["b"].workers == 2
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    path.write_text("\n".join(lines))
    assert any("too large" in d.message for d in load(str(path), {}).errors)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('app = "main"', 'expected "module:attr" or "path/file.py:app"'),
        ('app = "main:app"\ncommand = ["sh"]', "command: cannot be combined with app"),
        ('app = "main:app"\nlisten = "localhost"', 'has no port: write "localhost:8000"'),
        ('app = "main:app"\nlisten = ":70000"', "70000 is not a port"),
        ('app = "main:app"\nlisten = "[::g]:1"', "is not an IPv6 address"),
        ('app = "main:app"\nlisten = "300.1.1.1:1"', "is not an IPv4 address"),
        ('app = "main:app"\nlisten = ["internal", ":1"]', '"internal" cannot be combined'),
        ('app = "main:app"\nlisten = []', "must not be empty"),
        ('app = "main:app"\numask = 27', 'write a string such as "027"'),
        ('app = "main:app"\nworkers = 2.5', "is not a number of workers"),
        ('app = "main:app"\nworkers = true', "true is not a number of workers"),
        ('app = "main:app"\nthreads = "4"', 'expected a whole number, got "4"'),
        ('app = "main:app"\nfactory = "ja"', "expected true or false"),
        ('app = "main:app"\nbacklog = 0', "must be at least 1, got 0"),
        ('app = "main:app"\ninterface = "asgi"', 'expected "auto", "asgi3", "asgi2" or "wsgi"'),
        ('app = "main:app"\nenv = { "A B" = "x" }', "invalid name of an environment variable"),
        ('app = "main:app"\nenv = { A = [1] }', "expected text, got a list"),
        ('app = "main:app"\nrlimits = { files = 1 }', "unknown resource limit"),
        ('app = "main:app"\ndepends_on = ["web"]', "the service depends on itself"),
        ('app = "main:app"\ndepends_on = "x"', 'unknown service "x"'),
        ('app = "main:app"\ndepends_on = [{}]', 'missing key "service"'),
        ('app = "main:app"\ntimeouts = 5', "expected a table, got 5"),
        ('app = "main:app"\ntimeouts = { drain = -1 }', "-1 is not a duration"),
        ('app = "main:app"\ntls = { certfile = "" }', 'missing key "certfile"'),
        ('app = "main:app"\nuser = "nobody-like-this"', 'unknown user "nobody-like-this"'),
        ('app = "main:app"\ndirectory = "nowhere"', "folder not found: "),
        ('app = "main:app"\nenv_file = "main.py"', None),
        ('app = "gone.py:app"', "cannot read"),
        ('command = ["./gone"]', "program not found: "),
        ("command = []", "must not be empty"),
        ('command = ["sh", "{port}"]\nworkers = 2', "can have only one worker"),
        (
            'command = ["sh"]\ntls = { certfile = "c", keyfile = "k" }',
            "servd terminates TLS for apps only",
        ),
    ],
)
def test_what_makes_no_sense_is_said(folder: Path, line: str, message: str | None) -> None:
    found = mistakes(folder, f"[services.web]\n{line}\n")
    if message is None:
        assert found == []
    else:
        assert any(message in one for one in found), found


@pytest.mark.parametrize(
    ("first", "second", "clash"),
    [
        (":80", ":80", True),
        (":80", "127.0.0.1:80", True),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "[::1]:80", True),
        ("[::]:80", "0.0.0.0:80", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:a", "unix:./a", True),
        ("fd:a", "fd:b", False),
    ],
)
def test_two_services_on_one_address_clash(
    folder: Path, first: str, second: str, clash: bool
) -> None:
    text = (
        f'[services.a]\napp = "main:a"\nlisten = "{first}"\n'
        f'[services.b]\napp = "main:b"\nlisten = "{second}"\n'
    )
    found = mistakes(folder, text)
    assert [("services.a listens on" in one) for one in found] == ([True] if clash else [])


def test_a_cycle_is_shown_as_a_path(folder: Path) -> None:
    text = "".join(
        f'[services.{name}]\napp = "main:app"\ndepends_on = ["{needs}"]\n'
        for name, needs in (("a", "b"), ("b", "c"), ("c", "a"), ("d", "a"))
    )
    assert mistakes(folder, text) == [
        "3:15 services.a.depends_on[0]: dependency cycle: a -> b -> c -> a"
    ]


def test_names_that_differ_in_case_only_are_refused(folder: Path) -> None:
    found = mistakes(folder, '[services.web]\napp = "main:a"\n[services.Web]\napp = "main:b"\n')
    assert any("differs from" in one and "only in case" in one for one in found)


def test_several_mistakes_of_syntax_do_not_hide_the_others(folder: Path) -> None:
    text = """[services.web]
app = main:app
workers = = 2
wrkers = 3
listen = ":80
"""
    found = mistakes(folder, text)
    assert [one.split(" ")[0] for one in found] == ["2:7", "3:11", "4:1", "5:14"]


def test_keys_without_effect_are_refused_unless_they_say_the_default(
    folder: Path,
) -> None:
    text = """[daemon]
watch = true
[services.web]
app = "main:app"
preload = true
gpus = 0
limits = { concurrency = 10 }
timeouts = { request = "5s", body = "5s" }
"""
    assert mistakes(folder, text) == []


def test_limits_and_health_are_asked_of_those_who_can_have_them(folder: Path) -> None:
    text = """[admin]
metrics = "fd:metrics"
[defaults]
limits = { concurrency = 5 }
[services.job]
command = ["true"]
limits = { queue = 5, memory = "1GiB" }
[services.shared]
command = ["true"]
listen = ":8000"
workers = 2
health = { path = "/" }
[services.alone]
command = ["true", "{port}"]
health = { path = "/" }
[services.task]
command = ["true"]
kind = "task"
health = { path = "/" }
"""
    theirs = "does not apply to a command: servd limits the requests of apps only"
    shared = "the workers share a socket, so any of them may answer a health probe"
    assert mistakes(folder, text) == [
        '2:11 admin.metrics: must be "HOST:PORT" or "unix:PATH"',
        f"7:20 services.job.limits.queue: {theirs}",
        f"12:10 services.shared.health: {shared}",
        "19:10 services.task.health: does not apply to a task: its exit status shows success",
    ]


def test_times_and_limits_that_make_no_sense_are_mistakes(folder: Path) -> None:
    text = """[services.web]
app = "main:app"
watchdog = "1ms"
limits = { queue = 5, max_requests_jitter = 3, max_age = 0 }
timeouts = { request = "10s", request_total = "5s" }
health = { path = "/a b", interval = 0 }
"""
    assert any(m.startswith("6:19 services.web.health.path: ") for m in mistakes(folder, text))
    longer = "must not be longer than request_total"
    assert sorted(mistakes(folder, text.replace("/a b", "/ab"))) == [
        "3:12 services.web.watchdog: must be at least 200ms, got 1ms",
        '4:20 services.web.limits.queue: has no effect without "concurrency"',
        '4:45 services.web.limits.max_requests_jitter: has no effect without "max_requests"',
        "4:58 services.web.limits.max_age: must be at least 1s, got 0s",
        f"5:24 services.web.timeouts.request: {longer}",
        "6:37 services.web.health.interval: must be at least 100ms, got 0s",
    ]


def test_every_key_of_the_language_is_known() -> None:
    """The file has each key of the language; nothing in it is unknown or wrong."""
    path = Path(__file__).with_name("everything.toml")
    codes = {d.code for d in load(str(path), {}).errors}
    assert codes <= {"file", "user", "interpolation"}


def test_an_app_on_gpus_is_not_preloaded(folder: Path) -> None:
    text = """[services.web]
app = "main:app"
preload = true
gpus = 0.5
"""
    assert mistakes(folder, text) == [
        (
            "3:1 services.web.preload: cannot be combined with gpus: what CUDA has set up does not "
            "survive a fork"
        )
    ]


def test_a_file_that_is_not_utf8_is_said_to_be_none(folder: Path) -> None:
    (folder / "servd.toml").write_bytes(b'[services.web]\napp = "m\xffain:app"\n')
    (found,) = load(str(folder / "servd.toml"), {}).errors
    assert (found.place.line, found.place.column) == (2, 9)
    assert found.message == "the file is not UTF-8"


def test_what_a_variable_stands_for_is_in_no_message(folder: Path) -> None:
    """Every kind of check: of a type, of the whole, of the machine; and the help stays."""
    (folder / "secret").write_text("sesame-open-wide")
    text = """
[services.web]
command = ["sleep", "9"]
user = "${WHO}"
workers = "${COUNT}"
listen = "127.0.0.1:${PORT}"
timeouts.drain = "${PASSWORD}"
directory = "${file:secret}"
python = "${SHORT}"

[services.db]
command = ["${PROGRAM}"]
env_file = "${PROGRAM}"
tls.keyfile_password = "${PASSWORD}"
memory_max = "hunter${PORT}"
umask = "${BIG}"
log.level = "${LEVEL:-lound}"
"""
    variables = {
        "WHO": "hunter2",
        "COUNT": "hunter3x",
        "PORT": "hunter4",
        "PASSWORD": "pw",
        "SHORT": "a",
        "PROGRAM": "hunter5-program",
        "BIG": "hunter6" * 30,
    }
    loaded = read(folder, text, variables)
    shown = "\n".join(render(d, loaded.texts) for d in loaded.diagnostics)
    assert "hunter2" not in shown
    for value in (*variables.values(), "sesame", "hunter6"):
        assert f'"{value}"' not in shown, value
        assert f"/{value} " not in shown, value
        assert len(value) < 6 or value not in shown, value
    assert 'unknown user "${WHO}"' in shown
    assert '"127.0.0.1:${PORT}" is not an address' in shown
    assert '"${PASSWORD}" is not a duration: write "300ms"' in shown
    assert "program not found: ${PROGRAM} (searched PATH)" in shown
    assert 'got "lound"' in shown  # a default stands in the file


def test_a_count_of_a_variable_is_shown(folder: Path) -> None:
    text = '[services.web]\ncommand = ["true"]\nworkers = "${COUNT}"\n'
    found = read(folder, text, {"COUNT": "20000"}).diagnostics
    assert [d.message for d in found if "20000" in d.message]
