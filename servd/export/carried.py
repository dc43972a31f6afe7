"""What is carried over to other engines: every configuration key with its fate in each. The
exporters, `--strict` and the reference page are made of it; a test compares it with the models.
"""

from __future__ import annotations

from typing import Any

from servd.config.scalars import parse_duration
from servd.export.carried_models import MODEL_ROWS, is_list
from servd.export.fate import CarriedRow, Engine, Fate, carried, case, lost, refused, row

_NO_DAEMON = lost("Ray runs no daemon of servd")
_RAY_HTTP = lost("Ray's own proxy reads requests")
_RAY_ALWAYS = lost("Ray always starts a replica again")
_REPLICA = carried("by the middleware in the replica")
_PROGRAMS = refused("Ray runs apps, no programs")
_ONE_USER = lost("the container runs as user 10001")
_NO_UNIX = lost("no unix socket is shared between containers")
_STDERR = lost("the output of the container is the log")
_GRACE = "terminationGracePeriodSeconds"


def _is_outside_tcp(value: Any) -> bool:
    return any(str(each).startswith(("unix:", "fd:")) for each in value)


def _has_globs(value: Any) -> bool:
    return any(sign in str(name) for name in value for sign in "*?[")


ROWS: tuple[CarriedRow, ...] = (
    row("version", ray=carried("resolved at the export")),
    row(
        "include defaults",
        kubernetes=carried("resolved at the export"),
        compose=carried("resolved at the export"),
        dockerfile=carried("copied with the configuration"),
        ray=carried("resolved at the export"),
    ),
    row(
        "daemon.runtime_dir",
        kubernetes=carried("below /run/servd, an emptyDir"),
        compose=carried("below /run/servd, a tmpfs"),
        dockerfile=carried("/run/servd"),
        ray=_NO_DAEMON,
    ),
    row(
        "daemon.watch daemon.watch_debounce",
        kubernetes=carried("off: a change is a rollout; on with `--live-config`"),
        compose=carried("off: a change is another container"),
        ray=lost("a change is deployed"),
    ),
    row(
        "daemon.shutdown_timeout",
        kubernetes=carried(_GRACE),
        compose=carried("stop_grace_period"),
        ray=_NO_DAEMON,
    ),
    row(
        "daemon.stop_delay",
        kubernetes=carried(f"the preStop sleep, and {_GRACE}"),
        compose=carried("stop_grace_period"),
        ray=_NO_DAEMON,
    ),
    row("daemon.on_start_failure", ray=lost("a deployment fails after three attempts")),
    row(
        "daemon.gpus",
        kubernetes=lost("the pod has the GPUs that it asks for"),
        compose=lost("the container has the GPUs that it asks for"),
        ray=_NO_DAEMON,
    ),
    row("daemon.gpu_errors", ray=_NO_DAEMON),
    row("daemon.log.format", kubernetes=carried("json"), compose=carried("json"), ray=_NO_DAEMON),
    row("daemon.log.level daemon.start_concurrency admin.enabled", ray=_NO_DAEMON),
    row(
        "daemon.log.file daemon.log.max_size daemon.log.keep",
        kubernetes=_STDERR,
        compose=_STDERR,
        dockerfile=_STDERR,
        ray=_NO_DAEMON,
    ),
    row(
        "admin.listen admin.token admin.token_file",
        kubernetes=lost("the admin API answers on the socket in the pod (`kubectl exec`)"),
        compose=lost("the admin API answers on the socket in the container"),
        ray=_NO_DAEMON,
    ),
    row(
        "admin.group", kubernetes=_ONE_USER, compose=_ONE_USER, dockerfile=_ONE_USER, ray=_NO_DAEMON
    ),
    row(
        "admin.metrics",
        kubernetes=carried("the port `metrics`, which the probes ask too"),
        compose=carried("the health check asks it"),
        ray=lost("Ray has metrics of its own"),
    ),
    row("hooks hooks.on hooks.command hooks.url hooks.timeout", ray=_NO_DAEMON),
    # what runs
    row("app factory interface threads root_path", ray=carried("`args` of the builder")),
    row(
        "bento bento_args components",
        kubernetes=carried("one pod, with the components in it"),
        compose=carried("one container, with the components in it"),
        ray=carried("an application for each component"),
    ),
    row("command", ray=_PROGRAMS),
    row(
        "external",
        kubernetes=carried("in the configuration of each pod that needs it"),
        compose=carried("in the configuration of each container that needs it"),
        ray=carried("`args` of each application that needs it"),
    ),
    row(
        "directory",
        kubernetes=carried("below /app in the image"),
        compose=carried("below /app in the image"),
        dockerfile=carried("copied to /app"),
        ray=carried("runtime_env.working_dir"),
    ),
    row(
        "python",
        kubernetes=lost("the image decides on the interpreter"),
        compose=lost("the image decides on the interpreter"),
        dockerfile=lost("the image decides on the interpreter"),
        ray=lost("the image of the cluster decides on the interpreter"),
    ),
    row(
        "kind",
        kubernetes=carried("task: a Job"),
        compose=carried("task: a container that ends"),
        ray=lost("Ray Serve runs no tasks"),
    ),
    row(
        "run",
        kubernetes=carried("a Job runs once, and again when its definition changes"),
        compose=lost("the task runs at each `docker compose up`"),
        ray=lost("Ray Serve runs no tasks"),
    ),
    # where
    row(
        "listen",
        case(
            "a unix socket, or `fd:`",
            _is_outside_tcp,
            kubernetes=_NO_UNIX,
            compose=_NO_UNIX,
            dockerfile=lost("nothing outside the container reaches it"),
            ray=lost("Ray serves TCP alone"),
        ),
        kubernetes=carried("containerPort, and a port of the Service"),
        compose=carried("ports"),
        dockerfile=carried("EXPOSE"),
        ray=carried("route_prefix: `/` for the first service, `/NAME` for others"),
    ),
    row("socket.mode", kubernetes=_NO_UNIX, compose=_NO_UNIX, ray=lost("Ray serves TCP alone")),
    row(
        "socket.owner socket.group",
        kubernetes=_NO_UNIX,
        compose=_NO_UNIX,
        dockerfile=_ONE_USER,
        ray=lost("Ray serves TCP alone"),
    ),
    row("backlog", ray=_RAY_HTTP),
    row("public_url", ray=lost("it is for the status pages of servd")),
    # how many, on what
    row(
        "workers",
        case(
            '"auto"',
            lambda value: value == "auto",
            kubernetes=carried("one for each CPU of the limit, which is 1"),
            ray=lost("one replica: Ray does not count CPUs"),
        ),
        case(
            "0",
            lambda value: value == 0,
            kubernetes=carried("`replicas: 0`"),
            compose=carried("`scale: 0`"),
            ray=lost("the application is left out"),
        ),
        kubernetes=carried("in the pod; the request for CPUs"),
        ray=carried("num_replicas"),
    ),
    row(
        "autoscale.min autoscale.max autoscale.target_in_flight",
        kubernetes=carried("an autoscaler of pods with one worker each (`--hpa`)"),
        ray=carried("autoscaling_config"),
    ),
    row(
        "autoscale.up_after autoscale.down_after",
        case("more than an hour", lambda value: parse_duration(value) > 3600,
             kubernetes=lost("an autoscaler looks back an hour at most")),
        kubernetes=carried("stabilizationWindowSeconds of the autoscaler"),
        ray=carried("upscale_delay_s, downscale_delay_s"),
    ),
    row("preload", ray=lost("each replica imports the app")),
    *MODEL_ROWS,
    row(
        "cpu_affinity",
        case(
            "a list of ids",
            is_list,
            kubernetes=lost("the CPUs of nodes have other ids"),
            compose=lost("the container may have other CPUs: set `cpuset`"),
            dockerfile=lost("the container may have other CPUs: set `--cpuset-cpus`"),
        ),
        ray=lost("Ray pins no CPUs"),
    ),
    # who it needs
    row(
        "depends_on depends_on.service",
        kubernetes=carried("SERVD_DEP_NAME in the pod, and the NetworkPolicy; no order of starts"),
        compose=carried("depends_on, and SERVD_DEP_NAME in the container"),
        ray=carried("a handle for each dependency"),
    ),
    row(
        "depends_on.condition",
        case(
            '"completed"',
            lambda value: value == "completed",
            kubernetes=lost("nothing waits for a Job: `--whole` keeps the order"),
            compose=carried("service_completed_successfully"),
            ray=lost("Ray Serve runs no tasks"),
        ),
        kubernetes=carried("no order of starts"),
        compose=carried("service_healthy, or service_started; of a task, its success"),
        ray=carried("deployed in the order of the graph"),
    ),
    # time
    row(
        "timeouts.startup",
        kubernetes=carried("startupProbe and progressDeadlineSeconds"),
        compose=carried("start_period of the health check"),
        ray=lost("Ray gives a constructor three attempts and no limit of time"),
    ),
    row("timeouts.stall", ray=lost("Ray gives a constructor three attempts and no limit of time")),
    row("timeouts.request timeouts.request_total", ray=_REPLICA),
    row("timeouts.headers timeouts.body", ray=_RAY_HTTP),
    row("timeouts.keep_alive", ray=carried("keep_alive_timeout_s of the whole cluster")),
    row(
        "timeouts.drain",
        kubernetes=carried(_GRACE),
        compose=carried("stop_grace_period"),
        ray=carried("graceful_shutdown_timeout_s"),
    ),
    row(
        "timeouts.shutdown",
        kubernetes=carried(_GRACE),
        compose=carried("stop_grace_period"),
        ray=carried("part of graceful_shutdown_timeout_s"),
    ),
    # limits
    row("limits.concurrency limits.queue", ray=carried("max_ongoing_requests, and the middleware")),
    row("limits.max_requests limits.max_requests_jitter limits.max_age",
        ray=lost("Ray replaces no replica for its age")),
    row(
        "limits.memory",
        kubernetes=carried("memory limit: 2 x workers x memory + 128 MiB"),
        compose=carried("deploy.resources.limits.memory: 2 x workers x memory + 128 MiB"),
        ray=lost("Ray counts memory for its scheduling alone"),
    ),
    row("limits.gpu_memory", ray=lost("Ray looks at no GPU memory")),
    row("limits.head", ray=_RAY_HTTP),
    row("limits.body", ray=_REPLICA),
    # health
    row(
        "health.path health.host health.interval health.timeout health.start_failures",
        ray=carried("check_health"),
    ),
    row("health.failures", ray=lost("Ray stops a replica after three failures")),
    row("health.tcp health.command", ray=_PROGRAMS),
    row(
        "health.method health.body health.request health.expect health.busy",
        ray=lost("Ray asks `check_health`, which answers by health.path"),
    ),
    row("watchdog", ray=lost("Ray watches no event loop")),
    row("watchdog_tree", ray=lost("Ray watches no engine behind a replica")),
    # programs
    row("ready activation stop_signal stop_command", ray=_PROGRAMS),
    # ends
    row(
        "restart.policy restart.backoff restart.backoff_max restart.backoff_factor"
        " restart.reset_after restart.give_up_after",
        ray=_RAY_ALWAYS,
    ),
    row(
        "rollout.strategy rollout.max_surge",
        kubernetes=carried("strategy of the Deployment"),
        compose=lost("Compose stops the old container before it starts the new one"),
        ray=carried("max_surge_percent, or rolling_update_percentage"),
    ),
    # environment
    row(
        "env",
        kubernetes=carried("in the ConfigMap; secrets by secretKeyRef"),
        compose=carried("in the configuration; secrets from the environment"),
        ray=carried("runtime_env.env_vars"),
    ),
    row(
        "env_file env_file.path env_file.required",
        kubernetes=carried("each name by secretKeyRef"),
        compose=carried("env_file"),
        dockerfile=lost("what it holds would be in the image: mount it at this path"),
        ray=lost("its values may be secrets, which the configuration of Ray shows"),
    ),
    row(
        "env_passthrough",
        case(
            "a glob",
            _has_globs,
            kubernetes=lost("no name is known: set the variables of the container"),
            compose=lost("no name is known: set the variables of the container"),
        ),
        kubernetes=carried("each name by secretKeyRef, optional"),
        compose=carried("each name in `environment`"),
        ray=carried("replicas have the environment of their node"),
    ),
    row("user group", kubernetes=_ONE_USER, compose=_ONE_USER, dockerfile=_ONE_USER,
        ray=lost("replicas run as the user of Ray")),
    row("umask rlimits", ray=lost("replicas have those of Ray")),
    # the rest
    row("log.access", ray=carried("servd's own writer")),
    row(
        "log.level log.skip_paths log.sample log.max_rate",
        ray=lost("Ray has a log of its own"),
    ),
    row("log.file log.max_size log.keep", kubernetes=_STDERR, compose=_STDERR, dockerfile=_STDERR,
        ray=lost("Ray has a log of its own")),
    row("proxy.headers", ray=lost("Ray's proxy sets no X-Forwarded headers")),
    row(
        "proxy.trusted",
        case(
            '`"unix"`',
            lambda value: "unix" in value,
            kubernetes=lost("callers come by TCP: name the network of the pods"),
            compose=lost("callers come by TCP: name the network of the containers"),
        ),
        ray=lost("Ray's proxy sets no X-Forwarded headers"),
    ),
    row(
        "uvicorn.http uvicorn.loop uvicorn.ws uvicorn.ws_max_size uvicorn.ws_ping_interval"
        " uvicorn.ws_ping_timeout",
        ray=_RAY_HTTP,
    ),
    row("uvicorn.lifespan", ray=carried("the builder runs it")),
    # tls
    row(
        "tls.certfile tls.keyfile",
        kubernetes=carried("a Secret of the type kubernetes.io/tls"),
        compose=carried("secrets"),
        dockerfile=lost("certificates are not copied: mount them at the same path"),
        ray=carried("http_options.ssl_*, where all services have the same"),
    ),
    row(
        "tls.ca_certs",
        kubernetes=carried("ca.crt of that Secret"),
        compose=carried("secrets"),
        dockerfile=lost("certificates are not copied: mount them at the same path"),
        ray=refused("Ray verifies no client certificates"),
    ),
    row("tls.keyfile_password", kubernetes=carried("secretKeyRef"),
        compose=carried("from the environment"),
        ray=refused("everybody who sees the dashboard of Ray would read it")),
    row("tls.client_auth", ray=refused("Ray verifies no client certificates")),
    row("tls.min_version tls.ciphers", ray=refused("Ray has no such option")),
    row("tls.rotate", ray=lost("Ray reads certificates at its start")),
)  # fmt: skip
"""Every key. `[defaults]` and components have the keys of services."""

BY_KEY: dict[str, CarriedRow] = {key: each for each in ROWS for key in each.keys}


def fate_of(key: str, engine: Engine, value: Any = None) -> Fate:
    """Returns what becomes of a key with this value. Raises KeyError for an unknown key."""
    return BY_KEY[key].fate(engine, value)
