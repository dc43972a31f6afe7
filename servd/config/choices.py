"""What each word of a key with a choice of words means, for editors. The keys are those of the
models; a test holds that none is missing.
"""

from __future__ import annotations

from collections.abc import Mapping

_LEVELS = {
    "debug": "Everything.",
    "info": "What happens, without details.",
    "warning": "What may need a look.",
    "error": "What failed.",
    "critical": "What nothing goes on after.",
}
_AUTO_HTTP = "httptools where it is installed, else h11."

CHOICES: Mapping[str, Mapping[str, str]] = {
    "ServiceBase.interface": {
        "auto": "Found out when the app is imported.",
        "asgi3": "ASGI 3: async app(scope, receive, send).",
        "asgi2": "ASGI 2: app(scope), then async instance(receive, send).",
        "wsgi": "WSGI: app(environ, start_response), run in threads.",
    },
    "ServiceBase.kind": {
        "service": "It runs on.",
        "task": "It runs to its end before its dependents start: a migration, a download.",
    },
    "ServiceBase.run": {
        "always": "A task runs again before a dependent rolls.",
        "once": "A task runs once, and when its definition changes.",
    },
    "ServiceBase.ready": {
        "auto": "By READY=1 if it comes, else by health, else by its port, else after 250 ms.",
        "notify": "When it sends READY=1 (sd_notify).",
        "port": "When its address accepts a connection.",
        "http": "When health.path is answered well.",
        "started": "After 250 ms of life.",
    },
    "ServiceBase.activation": {
        "auto": "servd binds if the command takes {fd} or no address, else the program.",
        "fd": "servd binds, and passes the socket on (LISTEN_FDS, {fd}).",
        "self": "The program binds by itself.",
    },
    "ServiceBase.stop_signal": {
        "SIGTERM": "Ends most programs gracefully.",
        "SIGINT": "As Ctrl+C does.",
        "SIGQUIT": "nginx ends gracefully with it.",
        "SIGHUP": "Some programs end with it.",
        "SIGUSR1": "Of the program's own.",
        "SIGUSR2": "Of the program's own.",
        "SIGWINCH": "Apache ends gracefully with it.",
        "SIGKILL": "Ends it at once, without a drain.",
    },
    "ServiceBase.workers": {"auto": "One for each usable CPU: affinity and quota count."},
    "ServiceBase.cpu_affinity": {"spread": "One worker to each CPU, in turn."},
    "ServiceBase.gpus": {"none": "No GPU."},
    "Restart.policy": {
        "always": "After every death.",
        "on-failure": "After a failure, and not after exit 0.",
        "never": "After none.",
    },
    "Rollout.strategy": {
        "surge": "All new workers beside the old (or max_surge of them at a time).",
        "one-by-one": "One new worker ready, then one old drained: little memory is needed.",
        "recreate": "The old end, then the new start, while connections wait.",
    },
    "ServiceLog.level": _LEVELS,
    "DaemonLog.level": _LEVELS,
    "DaemonLog.format": {
        "auto": "console on a terminal, json otherwise.",
        "console": "Coloured lines for people.",
        "json": "One JSON object a line.",
    },
    "UvicornOptions.http": {
        "auto": _AUTO_HTTP, "h11": "Pure Python.", "httptools": "Fast, in C.",
    },
    "UvicornOptions.loop": {
        "auto": "uvloop where it is installed, else asyncio.",
        "asyncio": "Python's own.",
        "uvloop": "Fast, in C.",
    },
    "UvicornOptions.ws": {
        "auto": "websockets where it is installed, else wsproto.",
        "none": "No WebSockets.",
        "websockets": "The library websockets.",
        "websockets-sansio": "websockets without its own input and output.",
        "wsproto": "Pure Python.",
    },
    "UvicornOptions.lifespan": {
        "auto": "Used if the app knows it.", "on": "The app must know it.", "off": "Not used.",
    },
    "Tls.client_auth": {
        "none": "Clients show no certificate.",
        "optional": "A certificate that is shown is checked.",
        "required": "Who shows no good certificate is refused.",
    },
    "Tls.min_version": {"TLSv1.2": "The default.", "TLSv1.3": "Refuses older clients."},
    "Dependency.condition": {
        "ready": "It is ready.",
        "started": "Its process runs.",
        "completed": "It is a task, and has ended well.",
    },
    "DaemonConfig.on_start_failure": {
        "continue": "Goes on, and tries the service again.",
        "exit": "Ends with status 3.",
    },
    "DaemonConfig.shutdown_timeout": {"auto": "The longest chain of drains plus 10 s."},
    "DaemonConfig.gpus": {"auto": "All that are found."},
    "Hook.on": {
        "service_failed": "A service gave up.",
        "crash_loop": "A worker dies again and again.",
        "reload_applied": "A reload is in force.",
        "reload_failed": "A reload was refused or undone.",
        "certificate_expiring": "A certificate ends soon.",
        "worker_replaced": "A worker was recycled or replaced.",
    },
}  # fmt: skip

TITLES: Mapping[str, str] = {
    "AdminConfig": "Admin API",
    "DaemonConfig": "Daemon",
    "DaemonLog": "Log of the daemon",
    "Defaults": "Defaults of all services",
    "Dependency": "Dependency",
    "EnvFile": "Env file",
    "Health": "Health probes",
    "Hook": "Hook",
    "Limits": "Limits",
    "Proxy": "Reverse proxy",
    "Restart": "Restart",
    "Rollout": "Rollout",
    "Service": "Service",
    "ServiceLog": "Log of a service",
    "SocketOptions": "Unix sockets",
    "Timeouts": "Timeouts",
    "Tls": "TLS",
    "UvicornOptions": "Uvicorn",
}
"""Names of the tables, for people."""
