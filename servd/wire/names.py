"""Names of the environment that daemon and worker agree on."""

SERVICE = "SERVD_SERVICE"
WORKER = "SERVD_WORKER"
GENERATION = "SERVD_GENERATION"
DEPENDENCIES = "SERVD_DEPENDENCIES"
DEPENDENCY_PREFIX = "SERVD_DEP_"
NOTIFY_SOCKET = "NOTIFY_SOCKET"
WATCHDOG_USEC = "WATCHDOG_USEC"
WATCHDOG_PID = "WATCHDOG_PID"
LISTEN_FDS = "LISTEN_FDS"
LISTEN_PID = "LISTEN_PID"
LISTEN_FDNAMES = "LISTEN_FDNAMES"

PROMETHEUS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client's multiprocess mode keeps the metrics of an app."""

FIRST_FD = 3
"""Where inherited sockets begin (sd_listen_fds(3): SD_LISTEN_FDS_START)."""

EVENT_MARK = b"\x1e"
"""A line of a worker's output that begins with this is a finished JSON event (the record separator
of RFC 7464); everything else is text that the program printed."""

STARTUP_FAILURE = 3
"""Exit status of a worker whose app could not be imported or started, as Uvicorn has it."""

FDSTORE = "FDSTORE"
"""How many descriptors systemd keeps for a service (sd_notify(3))."""

HANDOVER = "SERVD_HANDOVER_FD"
"""Names the descriptor by which a new daemon speaks with the one whose place it takes."""

LIFELINE = "SERVD_LIFELINE_FD"
"""Names the descriptor whose end tells the daemon that whoever started it has ended."""
