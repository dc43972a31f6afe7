"""Names of the environment variables and constants that daemon and workers share."""

SERVICE = "SERVD_SERVICE"
WORKER = "SERVD_WORKER"
GENERATION = "SERVD_GENERATION"
DEPENDENCIES = "SERVD_DEPENDENCIES"
DEPENDENCY_PREFIX = "SERVD_DEP_"
NOTIFY_SOCKET = "NOTIFY_SOCKET"
MAIN_PID = "MAINPID"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"
LISTEN_FDS = "LISTEN_FDS"
LISTEN_PID = "LISTEN_PID"
LISTEN_FDNAMES = "LISTEN_FDNAMES"

BENTO_ARGUMENTS = "SERVD_BENTO_ARGUMENTS"
"""The arguments of a BentoML service, as JSON, for the process that describes its code."""

DESCRIBE_MODULE = "servd.worker.bento.describe"
"""The program that describes the code of a BentoML service, and can become its first worker."""

DESCRIBE_LEVEL = "SERVD_DESCRIBE_LEVEL"
"""The lowest level that the process logs which describes code, and may become a worker."""

METRICS_NEAR = "SERVD_METRICS_NEAR"
"""A folder above the one for the metrics that the process that describes code has as a worker."""

PROMETHEUS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Folder of the metrics of an app (prometheus_client's multiprocess mode)."""

FIRST_FD = 3
"""First inherited socket (sd_listen_fds(3): SD_LISTEN_FDS_START)."""

EVENT_MARK = b"\x1e"
"""Starts a line of a worker's output that is a finished JSON event (the record separator of RFC
7464); every other line is text that the program printed."""

STARTUP_FAILURE = 3
"""Exit status of a worker whose app could not be imported or started (Uvicorn's value)."""

SHOW_STACKS = "show_stacks"
"""What the daemon asks of a worker that does not start: to log where it is."""

FDSTORE = "FDSTORE"
"""Number of descriptors that systemd stores for a service (sd_notify(3))."""

HANDOVER = "SERVD_HANDOVER_FD"
"""Descriptor of the channel between a new daemon and the previous daemon (upgrade)."""

AREA = "SERVD_AREA"
"""Takes room in the environment that a template is started with."""

AREA_BYTES = 8192
"""Room for the environments that forks show (`servd.worker.process_area`)."""

LIFELINE = "SERVD_LIFELINE_FD"
"""Descriptor that reaches end of file when the process that started the daemon has ended."""

GPU_BACKEND = "SERVD_GPU_BACKEND"
FAKE = "fake:"
"""Begins the name of a backend that reads a file instead of asking a driver."""
"""What the GPU helper asks: `nvml`, which is the default, or `fake:FILE` for tests."""
