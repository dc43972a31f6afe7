"""Keys of similar tools, and the key of servd for each."""

from __future__ import annotations

_SERVICE_KEYS = {
    "cmd exec entrypoint script program execstart args argv start_command":
        'use command = ["program", "argument"]',
    "application module wsgi asgi wsgi_module target import_string":
        'use app = "module:attr"',
    "environment environ environment_variables envs": "use env = { NAME = \"value\" }",
    "env_files envfile environmentfile dotenv environment_file": "use env_file",
    "working_dir workdir working_directory workingdirectory cwd chdir":
        "use directory",
    "numprocs num_procs instances replicas processes num_workers nproc scale":
        "use workers",
    "port ports host bind address http_port expose":
        'use listen = ":8000" or "127.0.0.1:8000"',
    "schedule cron crontab": "servd runs no schedules: use cron, a systemd timer or Celery beat",
    "max_retries startretries max_attempts retries max_restarts":
        "use restart.give_up_after",
    "autorestart restart_policy": 'use restart.policy = "always"',
    "autostart enabled": "use workers = 0 to keep it stopped",
    "restart_delay restartsec restart_sec": "use restart.backoff",
    "stop_timeout stopwaitsecs graceful_timeout kill_timeout timeoutstopsec stop_grace_period"
    " timeout_graceful_shutdown": "use timeouts.drain",
    "startsecs min_uptime start_period": 'use ready = "5s"',
    "start_timeout startup_timeout listen_timeout": "use timeouts.startup",
    "stopsignal kill_signal killsignal": "use stop_signal",
    "stopcommand execstop pre_stop": "use stop_command",
    "timeout request_timeout": "use timeouts.request",
    "keepalive keep_alive timeout_keep_alive": "use timeouts.keep_alive",
    "stdout_logfile stderr_logfile logfile log_file accesslog errorlog out_file error_file":
        "use log.file",
    "loglevel log_level": "use log.level",
    "healthcheck health_check readiness_probe liveness_probe probe": "use health",
    "requires wants needs after priority dependson links": "use depends_on",
    "mem_limit max_memory_restart memory_limit memorymax": "use limits.memory",
    "limit_concurrency limit_max_requests":
        "use limits = { max_requests = 1000 }",
    "cpus cpu cpu_shares cpuaffinity": "use cpu_affinity",
    "ssl_certfile ssl_keyfile ssl cert key": "use the table tls",
    "preload_app": "use preload",
    "worker_class reload": "servd runs Uvicorn workers; `servd dev` reloads code",
    "uid runas username": "use user",
    "gid groupname": "use group",
    "limitnofile ulimits": "use rlimits = { nofile = 65536 }",
    "image container build volumes networks": "servd runs processes, not containers",
    "oneshot type": 'use kind = "task"',
    "deploy": "use workers, limits and rollout",
    "extends": "use [defaults] or include",
    "after_script pre_start execstartpre startpre":
        'use a task: kind = "task" and depends_on',
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
    """Returns the servd word for another tool's value of the last key of a dotted path, or ""."""
    word = str(value).lower()
    for key, words in _VALUES.items():
        if path == key or path.endswith(f".{key}"):
            return words.get(word, "")
    return ""


def neighbours_key(key: str) -> str:
    """Returns a hint for another tool's key of a service, or ""."""
    return _HINTS.get(key.lower().replace("-", "_"), "")
