"""The meaning of each word of a key that has a choice of words, for editors. A test checks that no
word is missing.
"""

from __future__ import annotations

from collections.abc import Mapping

_LEVELS = {
    "debug": "Details for debugging.",
    "info": "Normal operation.",
    "warning": "Possible problems.",
    "error": "Failures.",
    "critical": "Failures that stop the process.",
}
_AUTO_HTTP = "httptools if it is installed, otherwise h11."

CHOICES: Mapping[str, Mapping[str, str]] = {
    "ServiceBase.interface": {
        "auto": "Detected when the app is imported.",
        "asgi3": "ASGI 3: async app(scope, receive, send).",
        "asgi2": "ASGI 2: app(scope), then async instance(receive, send).",
        "wsgi": "WSGI: app(environ, start_response), run in threads.",
    },
    "ServiceBase.kind": {
        "service": "Keeps running.",
        "task": "Exits before its dependents start: a migration, a download.",
    },
    "ServiceBase.run": {
        "always": "A task runs again before each roll of a dependent.",
        "once": "A task runs once, and again when its definition changes.",
    },
    "ServiceBase.ready": {
        "auto": "READY=1 if it sends that, otherwise health, its port, or 250 ms of running.",
        "notify": "The program sends READY=1 (sd_notify).",
        "port": "The address accepts a connection.",
        "http": "health.path answers with 2xx or 3xx.",
        "started": "The program has run for 250 ms.",
    },
    "ServiceBase.activation": {
        "auto": "The program if the command has {port}, {host} or {uds}, otherwise servd.",
        "fd": "servd binds the address and passes the socket on (LISTEN_FDS, {fd}).",
        "self": "The program binds the address.",
    },
    "ServiceBase.stop_signal": {
        "SIGTERM": "Stops most programs gracefully.",
        "SIGINT": "Same as Ctrl+C.",
        "SIGQUIT": "Stops nginx gracefully.",
        "SIGHUP": "Stops some programs.",
        "SIGUSR1": "The meaning depends on the program.",
        "SIGUSR2": "The meaning depends on the program.",
        "SIGWINCH": "Stops Apache gracefully.",
        "SIGKILL": "Kills the program at once, without a drain.",
    },
    "ServiceBase.workers": {"auto": "One for each usable CPU, by CPU affinity and cgroup quota."},
    "ServiceBase.cpu_affinity": {
        "spread": "One CPU for each worker, in turn.",
        "gpu": "The CPUs next to the GPU of the worker.",
    },
    "GpuNeeds.topology": {
        "any": "Any GPUs.",
        "near": "The GPUs with the closest connections to each other.",
    },
    "Health.busy": {
        "probe": "Every worker is probed, also while it answers requests.",
        "trust": "A worker that has just answered a request is not probed.",
    },
    "ServiceBase.gpus": {"none": "Hides all GPUs."},
    "Restart.policy": {
        "always": "After every exit.",
        "on-failure": "After a failure, not after exit status 0.",
        "never": "Never restart.",
    },
    "Rollout.strategy": {
        "surge": "Up to max_surge new workers at a time start next to the old ones.",
        "one-by-one": "One new worker becomes ready, then one old worker drains. Saves memory.",
        "recreate": "Old workers stop, then new ones start. Connections wait meanwhile.",
    },
    "ServiceLog.level": _LEVELS,
    "DaemonLog.level": _LEVELS,
    "DaemonLog.format": {
        "auto": "console on a terminal, otherwise json.",
        "console": "Colored lines for reading.",
        "json": "One JSON object for each line.",
    },
    "UvicornOptions.http": {
        "auto": _AUTO_HTTP, "h11": "Pure Python.", "httptools": "Fast; written in C.",
    },
    "UvicornOptions.loop": {
        "auto": "uvloop if it is installed, otherwise asyncio.",
        "asyncio": "The event loop of Python.",
        "uvloop": "Fast; written in C.",
    },
    "UvicornOptions.ws": {
        "auto": "websockets if it is installed, otherwise wsproto.",
        "none": "No WebSockets.",
        "websockets": "The websockets library.",
        "websockets-sansio": "The websockets library, without its own I/O.",
        "wsproto": "Pure Python.",
    },
    "UvicornOptions.lifespan": {
        "auto": "Used if the app supports it.",
        "on": "The app must support it.",
        "off": "Not used.",
    },
    "Tls.client_auth": {
        "none": "Clients present no certificate.",
        "optional": "A certificate is verified if the client presents one.",
        "required": "Clients without a valid certificate are refused.",
    },
    "Tls.min_version": {"TLSv1.2": "The default.", "TLSv1.3": "Refuses older clients."},
    "Dependency.condition": {
        "ready": "The service is ready.",
        "started": "The process of the service runs.",
        "completed": "The service is a task and has exited with status 0.",
    },
    "DaemonConfig.on_start_failure": {
        "continue": "Continue, and retry the service.",
        "exit": "Exit with status 3.",
    },
    "DaemonConfig.shutdown_timeout": {"auto": "The longest chain of drains plus 10 s."},
    "DaemonConfig.stop_delay": {"none": "The drain begins at once."},
    "DaemonConfig.gpu_errors": {
        "quarantine": "Its workers move to other GPUs, until it is released.",
        "report": "Reported as an event, and nothing else.",
    },
    "DaemonConfig.gpus": {"auto": "All GPUs that are found."},
    "Hook.on": {
        "service_failed": "A service failed and is not restarted.",
        "crash_loop": "A worker exits repeatedly.",
        "reload_applied": "A reload was applied.",
        "reload_failed": "A reload was invalid or rolled back.",
        "certificate_expiring": "A certificate expires soon.",
        "gpu_failed": "A GPU cannot be relied on any more.",
        "worker_replaced": "A worker was recycled or replaced.",
    },
}  # fmt: skip

TITLES: Mapping[str, str] = {
    "AdminConfig": "Admin API",
    "Autoscale": "Autoscaling",
    "DaemonConfig": "Daemon",
    "DaemonLog": "Daemon log",
    "Defaults": "Defaults of all services",
    "Dependency": "Dependency",
    "EnvFile": "Env file",
    "GpuNeeds": "GPUs",
    "Health": "Health probes",
    "Hook": "Hook",
    "Limits": "Limits",
    "Proxy": "Reverse proxy",
    "Restart": "Restart",
    "Rollout": "Rollout",
    "Service": "Service",
    "ServiceLog": "Service log",
    "SocketOptions": "Unix sockets",
    "Timeouts": "Timeouts",
    "Tls": "TLS",
    "UvicornOptions": "Uvicorn",
    "Warmup": "Warm-up",
}
"""Names of the tables, for people."""
