"""Keys that neighbours of servd use, and what a servd file has for each."""

from __future__ import annotations

_SERVICE_KEYS = {
    "cmd exec entrypoint script program execstart args argv start_command":
        'servd calls it command = ["program", "argument"]',
    "application module wsgi asgi wsgi_module target import_string":
        'servd calls it app = "module:attr"',
    "environment environ environment_variables envs": "servd calls it env = { NAME = \"value\" }",
    "env_files envfile environmentfile dotenv environment_file": "servd calls it env_file",
    "working_dir workdir working_directory workingdirectory cwd chdir":
        "servd calls it directory",
    "numprocs num_procs instances replicas processes num_workers nproc scale":
        "servd calls it workers",
    "port ports host bind address http_port expose":
        'servd calls it listen = ":8000" or "127.0.0.1:8000"',
    "schedule cron crontab": "servd runs no schedules: use cron, a systemd timer, or celery beat",
    "max_retries startretries max_attempts retries max_restarts":
        "servd calls it restart.give_up_after",
    "autorestart restart_policy": 'servd calls it restart.policy = "always"',
    "autostart enabled": "servd calls it workers = 0 (kept stopped)",
    "restart_delay restartsec restart_sec": "servd calls it restart.backoff",
    "stop_timeout stopwaitsecs graceful_timeout kill_timeout timeoutstopsec stop_grace_period"
    " timeout_graceful_shutdown": "servd calls it timeouts.drain",
    "startsecs min_uptime start_period": 'servd calls it ready = "5s"',
    "start_timeout startup_timeout listen_timeout": "servd calls it timeouts.startup",
    "stopsignal kill_signal killsignal": "servd calls it stop_signal",
    "stopcommand execstop pre_stop": "servd calls it stop_command",
    "timeout request_timeout": "servd calls it timeouts.request",
    "keepalive keep_alive timeout_keep_alive": "servd calls it timeouts.keep_alive",
    "stdout_logfile stderr_logfile logfile log_file accesslog errorlog out_file error_file":
        "servd calls it log.file",
    "loglevel log_level": "servd calls it log.level",
    "healthcheck health_check readiness_probe liveness_probe probe": "servd calls it health",
    "requires wants needs after priority dependson links": "servd calls it depends_on",
    "mem_limit max_memory_restart memory_limit memorymax": "servd calls it limits.memory",
    "limit_concurrency limit_max_requests":
        "servd has it in limits = { max_requests = 1000 }",
    "cpus cpu cpu_shares cpuaffinity": "servd calls it cpu_affinity",
    "ssl_certfile ssl_keyfile ssl cert key": "servd has it in the table tls",
    "preload_app": "servd calls it preload",
    "worker_class reload": "servd runs Uvicorn's workers; `servd dev` reloads code",
    "uid runas username": "servd calls it user",
    "gid groupname": "servd calls it group",
    "limitnofile ulimits": "servd calls it rlimits = { nofile = 65536 }",
    "image container build volumes networks": "servd runs processes of this machine, no containers",
    "oneshot type": 'servd calls it kind = "task"',
    "deploy": "servd has it in workers, limits and rollout",
    "extends": "servd has [defaults], and include",
    "after_script pre_start execstartpre startpre":
        'servd has tasks for it: kind = "task", and depends_on',
}  # fmt: skip
_HINTS = {key: hint for keys, hint in _SERVICE_KEYS.items() for key in keys.split()}

_VALUES = {
    "kind": {"oneshot": "task", "job": "task", "simple": "service", "web": "service"},
    "rollout.strategy": {
        "rolling": "surge", "blue-green": "surge", "rollingupdate": "surge", "restart": "recreate",
    },
    "restart.policy": {"on_failure": "on-failure", "unexpected": "on-failure"},
    "log.format": {"text": "console", "plain": "console", "logfmt": "json"},
    "log.level": {"trace": "debug", "notice": "info", "fatal": "critical"},
    "interface": {"asgi": "asgi3"},
    "ready": {"healthy": "http", "tcp": "port", "sd_notify": "notify"},
    "tls.min_version": {"1.2": "TLSv1.2", "1.3": "TLSv1.3", "tlsv1": "TLSv1.2"},
    "uvicorn.ws": {"off": "none"},
}  # fmt: skip


def neighbours_value(path: str, value: object) -> str:
    """Returns what servd calls a neighbour's value of the key that ends a dotted path, or ""."""
    word = str(value).lower()
    for key, words in _VALUES.items():
        if path == key or path.endswith(f".{key}"):
            return words.get(word, "")
    return ""


def neighbours_key(key: str) -> str:
    """Returns what a servd file has for a neighbour's key of a service, or ""."""
    return _HINTS.get(key.lower().replace("-", "_"), "")
