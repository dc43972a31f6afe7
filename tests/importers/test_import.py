"""`servd import`: converts files of other tools to a valid servd file."""

from __future__ import annotations

import shutil
import textwrap
import tomllib
from pathlib import Path
from typing import Any

import pytest

from servd.config.load import load
from servd.importers.command_lines import put_command
from servd.importers.formats import as_toml, kind_of, read
from servd.importers.model import ImportedService, ImportFailed, service_name

from support.harness import Servd, command, free_port


def imported(name: str, text: str, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """Returns the services of a file, and the settings that were not imported. Also loads the
    result: only programs, folders and users that this machine lacks may cause errors.
    """
    text = textwrap.dedent(text)
    (folder / name).write_text(text)
    written = as_toml(read(kind_of(name, text), str(folder / name), text), name)
    (folder / "servd.toml").write_text(written)
    loaded = load(str(folder / "servd.toml"), {"HOME": "/root"})
    wrong = [each.summary() for each in loaded.errors if each.code not in ("file", "user")]
    assert wrong == [], written
    comments = [line for line in written.splitlines() if line.startswith("# not imported: ")]
    return tomllib.loads(written)["services"], [line[16:] for line in comments]


@pytest.mark.parametrize(
    ("line", "keys"),
    [
        ("gunicorn app", {"app": "app:application", "listen": "127.0.0.1:8000"}),
        ("gunicorn -w 4 -b 0.0.0.0:80 shop.wsgi:app", {
            "app": "shop.wsgi:app", "listen": ":80", "workers": 4}),
        ("gunicorn 'shop:create()' --bind=unix:/x.sock --timeout 90 --graceful-timeout=9", {
            "app": "shop:create", "factory": True, "listen": "unix:/x.sock",
            "timeouts": {"request": "90s", "drain": "9s"}}),
        ("/venv/bin/gunicorn a:b -b :80 -b :81 -k uvicorn.workers.UvicornWorker --log-level warn", {
            "app": "a:b", "listen": [":80", ":81"], "log": {"level": "warning"}}),
        ("uvicorn main:app --host 0.0.0.0 --port $PORT --workers 2 --no-access-log", {
            "app": "main:app", "listen": ":${PORT:-8000}", "workers": 2, "log": {"access": False}}),
        ("exec python3 -m uvicorn --factory main:make --uds /x --root-path /api", {
            "app": "main:make", "factory": True, "listen": "unix:/x", "root_path": "/api"}),
        ("A=1 env B=2 flask --app shop run -h 0.0.0.0 -p 81", {
            "env": {"A": "1", "B": "2"}, "app": "shop:app", "listen": ":81"}),
        ("hypercorn main:app -b 127.0.0.1:9000", {"app": "main:app", "listen": "127.0.0.1:9000"}),
        ("daphne -b 0.0.0.0 -p 8001 a.asgi:application", {
            "app": "a.asgi:application", "listen": ":8001"}),
        ("waitress-serve --port=80 --call shop:create", {
            "app": "shop:create", "factory": True, "listen": ":80"}),
        ("fastapi run main.py --port 80", {"app": "main.py:app", "listen": ":80"}),
        ("celery -A tasks beat", {
            "command": ["celery", "-A", "tasks", "beat"], "rollout": {"strategy": "recreate"}}),
        ("node server.js $PORT", {"command": ["node", "server.js", "${PORT:-8000}"]}),
        ("cd x && ./run $HOME", {"command": ["sh", "-c", "cd x && ./run $$HOME"]}),
        ("gunicorn -c conf.py", {"command": ["gunicorn", "-c", "conf.py"]}),
    ],
)  # fmt: skip
def test_a_command_line_becomes_an_app_or_stays_a_command(line: str, keys: dict[str, Any]) -> None:
    service = ImportedService("web")
    put_command(service, line)
    assert service.keys == keys


def test_what_is_no_option_that_is_known_is_told() -> None:
    service = ImportedService("web")
    put_command(service, "poetry run uvicorn main:app --reload --nonsense 3 --port 80")
    assert [left.text for left in service.left] == [
        "poetry run: set `python` to the interpreter of that environment",
        "--reload",
        "--nonsense 3",
    ]
    assert service.keys["listen"] == "127.0.0.1:80"


def test_a_procfile(tmp_path: Path) -> None:
    text = """
        # of a shop
        web: gunicorn shop:app
        Worker_1: python work.py
        release: python migrate.py
        nonsense
    """
    services, left = imported("Procfile", text, tmp_path)
    wait = [{"service": "release", "condition": "completed"}]
    assert services["web"]["depends_on"] == services["worker_1"]["depends_on"] == wait
    assert services["release"] == {"command": ["python", "migrate.py"], "kind": "task"}
    assert left == ["nonsense  (Procfile:6)"]


def test_supervisord(tmp_path: Path) -> None:
    text = """
        [supervisord]
        nodaemon=true ; in a container
        environment=TZ="UTC"
        [program:web]
        command=/venv/bin/uvicorn main:app
            --port 80
        environment=A="x,1",B='2',C=%(ENV_HOME)s
        autorestart=true
        stopwaitsecs=20
        stdout_logfile=/tmp/%(program_name)s.log
        stdout_logfile_maxbytes=10MB
        stderr_logfile=/tmp/web.err
        priority=10
        [program:job]
        command=python job.py %(process_num)02d
        numprocs=3
        startsecs=5
        stopsignal=INT
        [program:off]
        command=sleep 5
        autostart=false
        [group:all]
        programs=web,job
    """
    services, left = imported("supervisord.conf", text, tmp_path)
    assert services["web"] == {
        "app": "main:app", "listen": "127.0.0.1:80", "restart": {"policy": "always"},
        "timeouts": {"drain": "20s"}, "env": {"A": "x,1", "B": "2", "C": "${HOME}"},
        "log": {"file": "/tmp/web.log", "max_size": "10MB"},
    }  # fmt: skip
    assert services["job"] == {
        "command": ["python", "job.py", "{worker}"], "workers": 3, "ready": "5s",
        "restart": {"policy": "on-failure"}, "stop_signal": "SIGINT",
    }  # fmt: skip
    assert services["off"]["workers"] == 0
    assert left == [
        '[supervisord] environment = TZ="UTC"  (supervisord.conf:4)',
        "[group:all]  (supervisord.conf:23)",
        "stderr_logfile = /tmp/web.err  (supervisord.conf:13)",
        "priority = 10  (supervisord.conf:14)",
    ]


def test_circus(tmp_path: Path) -> None:
    text = """
        [circus]
        check_delay = 5
        [socket:ui]
        host = 127.0.0.1
        port = 5000
        [watcher:ui]
        cmd = chaussette --fd $(circus.sockets.ui) shop:app
        use_sockets = True
        copy_env = True
        numprocesses = 2
        [env:ui]
        MODE = x
        [watcher:beat]
        cmd = beat
        args = --id $(circus.wid)
        singleton = True
        hooks.before_start = a.b
    """
    services, left = imported("circus.ini", text, tmp_path)
    assert services["ui"] == {
        "command": ["chaussette", "--fd", "{fd}", "shop:app"], "listen": "127.0.0.1:5000",
        "workers": 2, "env_passthrough": ["*"], "env": {"MODE": "x"},
    }  # fmt: skip
    assert services["beat"]["command"] == ["beat", "--id", "{worker}"]
    assert services["beat"]["rollout"] == {"strategy": "recreate"}
    assert left == ["hooks.before_start = a.b  (circus.ini:18)"]


def test_a_unit_of_systemd(tmp_path: Path) -> None:
    text = """
        [Unit]
        Description=A shop
        After=network.target
        [Service]
        Type=notify
        ExecStart=/venv/bin/gunicorn \\
            --workers 3 shop:app
        Environment="A=1 2" B=2 "C=p$$w${x}"
        EnvironmentFile=-/etc/shop.env
        Restart=on-failure
        RestartSec=45
        StandardOutput=append:/var/log/shop.log
        StandardError=append:/var/log/shop.err
        TimeoutStopSec=1min
        LimitNOFILE=65536
        PrivateTmp=true
        [Install]
        WantedBy=multi-user.target
    """
    services, left = imported("shop.service", text, tmp_path)
    assert services["shop"] == {
        "app": "shop:app", "listen": "127.0.0.1:8000", "workers": 3,
        "env": {"A": "1 2", "B": "2", "C": "p$$$$w$${x}"},
        "env_file": [{"path": "/etc/shop.env", "required": False}],
        "restart": {"policy": "on-failure", "backoff": "45s", "backoff_max": "45s"},
        "timeouts": {"drain": "1min"}, "log": {"file": "/var/log/shop.log"},
        "rlimits": {"nofile": 65536},
    }  # fmt: skip
    assert left == [
        "After=network.target  (shop.service:4)", "StandardError=append:/var/log/shop.err",
        "PrivateTmp=true  (shop.service:17)",
    ]  # fmt: skip


def test_gunicorns_own_file(tmp_path: Path) -> None:
    text = """
        import multiprocessing, os
        wsgi_app = "shop.wsgi:app"
        bind = ["0.0.0.0:80", "unix:/tmp/x.sock"]
        workers = multiprocessing.cpu_count() * 2 + 1
        timeout = int(os.environ.get("T", "30"))
        max_requests = 1000
        raw_env = ["A=1"]
        preload_app = True
        def on_starting(server):
            raise SystemExit("it was run")
    """
    services, left = imported("gunicorn.conf.py", text, tmp_path)
    assert services["web"] == {
        "app": "shop.wsgi:app", "listen": [":80", "unix:/tmp/x.sock"], "workers": "auto",
        "timeouts": {"request": "${T:-30}"}, "limits": {"max_requests": 1000}, "env": {"A": "1"},
        "preload": True,
    }  # fmt: skip
    assert len(left) == 2
    with pytest.raises(ImportFailed, match="line 1 is not valid Python"):
        read("gunicorn", "x.py", "workers = = 1")


ECOSYSTEM = """{"apps": [{"name": "API one", "script": "index.js", "instances": "max",
    "env": {"PORT": 3000}, "max_memory_restart": "300M", "kill_timeout": 5000,
    "cron_restart": "0 0 * * *"}]}"""


def test_pm2(tmp_path: Path) -> None:
    services, left = imported("ecosystem.json", ECOSYSTEM, tmp_path)
    assert services["api-one"] == {
        "command": ["node", "index.js"], "workers": "auto", "env": {"PORT": "3000"},
        "limits": {"memory": "300M"}, "timeouts": {"drain": "5000ms"},
    }  # fmt: skip
    assert left == ['cron_restart: "0 0 * * *"']
    with pytest.raises(ImportFailed, match="invalid JSON"):
        read("pm2", "x.json", "{")
    script = tmp_path / "ecosystem.config.js"
    script.write_text(f"module.exports = {ECOSYSTEM}")
    if shutil.which("node"):
        assert imported("ecosystem.config.js", script.read_text(), tmp_path)[0] == services
        script.write_text("throw new Error('broken')")
        with pytest.raises(ImportFailed, match=r"node failed: .*broken"):
            read("pm2", str(script), "")


def test_pm2_in_javascript_needs_node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportFailed, match="need node"):
        read("pm2", "ecosystem.config.js", "")


def test_compose(tmp_path: Path) -> None:
    text = """
        services:
          db:
            image: postgres:16
          migrate:
            command: python manage.py migrate
            restart: on-failure
          web:
            build: .
            command: gunicorn --bind 0.0.0.0:8000 shop.wsgi
            environment: {SECRET: "${SECRET-dev}", DEBUG: 1}
            depends_on:
              migrate: {condition: service_completed_successfully}
              db: {condition: service_started}
            restart: unless-stopped
            deploy: {replicas: 3, resources: {limits: {memory: 512M}}}
            stop_grace_period: 1m30s
          beat:
            command: [celery, -A, shop, beat]
            env_file: [{path: .env, required: false}]
            healthcheck: {test: [CMD, "true"], retries: 3, start_period: 5s}
            deploy: {replicas: 1, resources: {reservations: {cpus: "0.5"}}}
            restart: on-failure:5
            working_dir: /app
          api:
            command: uvicorn api:app --port 9000
            healthcheck: {test: "curl -f http://localhost:9000/up || exit 1", interval: 5s}
            ports: ["80:9000"]
          site:
            command: uvicorn site:app --port 9001
            healthcheck: {test: [CMD, pg_isready]}
            ports: ["9001:9001"]
            stop_signal: SIGINT
    """
    services, left = imported("docker-compose.yml", text, tmp_path)
    assert services["web"] == {
        "app": "shop.wsgi:application", "listen": ":8000", "workers": 3,
        "depends_on": [{"service": "migrate", "condition": "completed"}],
        "env": {"SECRET": "${SECRET:-dev}", "DEBUG": "1"}, "restart": {"policy": "always"},
        "limits": {"memory": "512M"}, "timeouts": {"drain": "1m30s"},
    }  # fmt: skip
    assert services["migrate"] == {"command": ["python", "manage.py", "migrate"], "kind": "task"}
    assert services["beat"]["health"] == {"command": ["true"], "failures": 3}
    assert services["beat"]["restart"] == {"policy": "on-failure", "give_up_after": 5}
    assert services["api"]["health"] == {"path": "/up", "interval": "5s"}
    assert left == [
        "db: the default command of postgres:16  (docker-compose.yml:3)",
        "build: .  (docker-compose.yml:9)",
        "depends_on: db (not imported itself)",
        "healthcheck.start_period: 5s  (docker-compose.yml:21)",
        'deploy.resources.reservations: {"cpus": "0.5"}  (docker-compose.yml:22)',
        "working_dir: /app  (docker-compose.yml:24)",
        'ports: ["80:9000"]  (docker-compose.yml:28)',
        'healthcheck.test: ["CMD", "pg_isready"]  (docker-compose.yml:31)',
        "stop_signal: SIGINT  (docker-compose.yml:33)",
    ]


def test_process_compose(tmp_path: Path) -> None:
    text = """
        version: "0.5"
        processes:
          one:
            command: "./loop ${A}"
            availability: {restart: on_failure, backoff_seconds: 2}
            depends_on: {two: {condition: process_completed_successfully}}
            shutdown: {timeout_seconds: 4, signal: 2, parent_only: true}
            namespace: debug
          two:
            command: |
              ./prepare
              exit $?
            environment: ["X=1"]
          three:
            command: uvicorn main:app
            readiness_probe: {http_get: {path: /up, scheme: http}, period_seconds: 3}
            liveness_probe: {exec: {command: "true"}}
            disabled: true
    """
    services, left = imported("process-compose.yaml", text, tmp_path)
    assert services["one"] == {
        "command": ["sh", "-c", "./loop $${A}"],
        "restart": {"policy": "on-failure", "backoff": "2s"},
        "depends_on": [{"service": "two", "condition": "completed"}], "timeouts": {"drain": "4s"},
        "stop_signal": "SIGINT",
    }  # fmt: skip
    assert services["two"]["kind"] == "task"
    assert services["two"]["command"] == ["sh", "-c", "./prepare\nexit $$?"]
    assert services["three"]["health"] == {"path": "/up", "interval": "3s"}
    assert services["three"]["workers"] == 0
    assert left == [
        "shutdown.parent_only: True  (process-compose.yaml:8)",
        "namespace: debug  (process-compose.yaml:9)",
        "readiness_probe.http_get.scheme: http  (process-compose.yaml:17)",
        'liveness_probe: {"exec": {"command": "true"}}  (process-compose.yaml:18)',
    ]


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("Procfile.dev", "", "procfile"),
        ("x.service", "", "systemd"),
        ("pm2.json", '{"apps": []}', "pm2"),
        ("compose.yaml", "services: {}", "compose"),
        ("any.yaml", "version: 1\nprocesses:\n  a: 1", "process-compose"),
        ("any.conf", "; x\n[program:a]", "supervisord"),
        ("any.ini", "[watcher:a]", "circus"),
        ("any", "web: x", "procfile"),
    ],
)
def test_a_format_is_recognised(name: str, text: str, kind: str) -> None:
    assert kind_of(name, text) == kind


def test_names_are_those_of_services() -> None:
    assert service_name("My App") == "my-app"
    assert service_name("_x") == "x"
    assert service_name("2nd") == "s-2nd"
    assert service_name("a", ["a", "a-2"]) == "a-3"


def test_the_command_writes_a_file_that_runs(servd: Servd) -> None:
    servd.write(main_py="""
        async def app(scope, receive, send):
            assert scope["type"] == "http"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"imported"})
    """)  # fmt: skip
    line = f"web: uvicorn main:app --port {free_port()} --reload\n"
    (servd.folder / "Procfile").write_text(line)
    done = command("import", "Procfile", "servd.toml", folder=servd.folder)
    assert done.returncode == 0
    assert "wrote servd.toml" in done.stderr
    assert "1 setting not imported: see the comments" in done.stderr
    assert command("check", folder=servd.folder).returncode == 0
    daemon = servd.run("--config", "servd.toml").ready()
    assert daemon.get("web").text == "imported"


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["gone.conf"], 1, "cannot read gone.conf: No such file or directory"),
        (["what.bin"], 1, "what.bin: unknown format: use --from with one of"),
        (["empty.conf", "--from", "supervisord"], 1, "contains no service that servd can run"),
        (["broken.yaml"], 1, "broken.yaml: line 2: "),
        (["what.bin", "--from", "upstart"], 2, "--from upstart: expected one of procfile, "),
    ],
)
def test_what_cannot_be_imported_is_said(
    tmp_path: Path, arguments: list[str], status: int, said: str
) -> None:
    (tmp_path / "what.bin").write_bytes(b"\x00\xff")
    (tmp_path / "empty.conf").write_text("[supervisord]\n")
    (tmp_path / "broken.yaml").write_text("services: [\n")
    done = command("import", *arguments, folder=tmp_path)
    assert done.returncode == status
    assert said in done.stderr
    assert "Traceback" not in done.stderr
