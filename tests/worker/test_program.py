"""Programs that are not Python apps: readiness, sockets, signals."""

from __future__ import annotations

import os
import sys

import httpx

from support.harness import Servd, free_port, wait_until

HTTP = """
    import http.server, os, socket, sys

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = repr(sorted(os.environ.items())).encode()
            self.send_response(200 if self.path != "/sick" else 500)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
        def log_message(self, *_):
            pass
"""
BINDS = (
    HTTP
    + """
    http.server.ThreadingHTTPServer((sys.argv[1], int(sys.argv[2])), Handler).serve_forever()
"""
)
TAKES = (
    HTTP
    + """
    assert os.environ["LISTEN_PID"] == str(os.getpid())
    assert os.environ["LISTEN_FDS"] == "1"
    assert os.listdir("/proc/self/fd").__len__() == 5, os.listdir("/proc/self/fd")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.socket = socket.socket(fileno=3)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(b"READY=1", os.environ["NOTIFY_SOCKET"])
    server.serve_forever()
"""
)


def test_a_program_that_binds_itself_is_ready_when_its_port_accepts(servd: Servd) -> None:
    port = free_port()
    config = f"""
        [services.own]
        command = ["{sys.executable}", "binds.py", "{{host}}", "{{port}}", "{{service}}-{{worker}}"]
        listen = "127.0.0.1:{port}"
        env = {{ A = "1" }}
    """
    daemon = servd(config, binds_py=BINDS).ready()
    answer = httpx.get(f"http://127.0.0.1:{port}/")
    assert "('SERVD_SERVICE', 'own')" in answer.text
    assert "('A', '1')" in answer.text
    assert "LISTEN_FDS" not in answer.text
    assert daemon.stop() == 0


def test_a_program_that_listens_on_no_address_of_its_own_gets_a_free_port(servd: Servd) -> None:
    """Its dependents are told where it is."""
    config = f"""
        [services.web]
        app = "web:app"
        listen = "127.0.0.1:0"
        depends_on = ["model"]
        [services.model]
        command = ["{sys.executable}", "binds.py", "{{host}}", "{{port}}"]
    """
    web = """
        import servd
        from fastapi import FastAPI

        app = FastAPI()

        @app.get("/")
        async def root():
            return (await servd.depends("model").get("/")).status_code
    """
    daemon = servd(config, binds_py=BINDS, web_py=web).ready()
    assert daemon.get("web").json() == 200


def test_a_program_is_ready_when_its_health_path_answers(servd: Servd) -> None:
    config = f"""
        [services.sick]
        command = ["{sys.executable}", "binds.py", "{{host}}", "{{port}}"]
        health = {{ path = "/sick" }}
        timeouts = {{ startup = "2s" }}
        [services.well]
        command = ["{sys.executable}", "binds.py", "{{host}}", "{{port}}"]
        health = {{ path = "/well" }}
    """
    daemon = servd(config, binds_py=BINDS)
    daemon.wait_for("service ready", service="well")
    failed = daemon.wait_for("service cannot start", service="sick")
    assert "was not ready within 2 s" in failed["error"]


def test_a_program_takes_its_socket_by_listen_fds_and_says_ready(servd: Servd) -> None:
    """LISTEN_PID is its own pid, and it has no descriptor but its socket and stdio."""
    config = f"""
        [services.takes]
        command = ["{sys.executable}", "takes.py"]
        listen = "127.0.0.1:0"
        ready = "notify"
        workers = 2
    """
    daemon = servd(config, takes_py=TAKES).ready()
    texts = [httpx.get(daemon.url("takes")).text for _ in range(9)]
    pids = {text.split("'LISTEN_PID', '")[1].split("'")[0] for text in texts}
    assert pids <= {str(pid) for pid in daemon.workers("takes").values()}
    assert daemon.stop() == 0


def test_the_configured_signal_stops_a_program(servd: Servd) -> None:
    config = """
        [services.quits]
        command = ["sh", "quits.sh"]
        stop_signal = "SIGQUIT"
        ready = "started"
    """
    quits = """
        trap 'echo quitting; exit 0' QUIT
        trap '' TERM
        echo up
        while :; do sleep 0.05; done
    """
    daemon = servd(config, quits_sh=quits).ready()
    daemon.wait_for_line("up")
    assert daemon.stop() == 0
    assert daemon.lines("quitting", service="quits")
    assert daemon.find("shutdown timeout: killing remaining workers") == []


def test_a_program_that_is_not_there_is_a_mistake_of_the_config(servd: Servd) -> None:
    daemon = servd('[services.x]\ncommand = ["no-such-program"]\n')
    assert daemon.wait() == 78
    assert "program not found: no-such-program (searched PATH)" in daemon.output


def test_no_shell_touches_a_command(servd: Servd) -> None:
    """Arguments arrive as they are written."""
    arguments = ["$HOME", "$(circus.wid)", "((circus.env.PATH))", "a b", "{unknown}", "*", ";"]
    toml = ", ".join(f"'{argument}'" for argument in arguments).replace("$", "$$")
    config = f"""
        [services.echo]
        command = ["{sys.executable}", "-c", "import sys; print(sys.argv[1:])", {toml}]
        restart = {{ policy = "never" }}
    """
    daemon = servd(config)
    daemon.wait_for_line(str(arguments), service="echo")


def test_a_limit_that_cannot_be_had_is_named(servd: Servd) -> None:
    """No system lets a process have more open files than fs.nr_open says, not even root."""
    config = """
        [services.greedy]
        command = ["sleep", "1000"]
        rlimits = { nofile = 4611686018427387904 }
        restart = { policy = "never" }
        ready = "notify"
    """
    daemon = servd(config).ready()
    failed = daemon.find("service cannot start", service="greedy")[0]
    assert "rlimits.nofile can be " in failed["error"]
    wait_until(lambda: daemon.descendants() == [], "nothing of it is left")
    assert daemon.stop() == 0


def test_a_program_runs_under_its_limits_and_on_its_cpus(servd: Servd) -> None:
    cpu = sorted(os.sched_getaffinity(0))[0]
    config = f"""
        [services.limited]
        command = ["{sys.executable}", "limited.py"]
        rlimits = {{ nofile = 123, core = 0 }}
        cpu_affinity = [{cpu}]
        umask = "027"
        restart = {{ policy = "never" }}
    """
    limited = """
        import os, resource
        print(resource.getrlimit(resource.RLIMIT_NOFILE), os.sched_getaffinity(0), oct(os.umask(0)))
    """
    daemon = servd(config, limited_py=limited)
    daemon.wait_for_line(f"(123, 123) {{{cpu}}} 0o27")
