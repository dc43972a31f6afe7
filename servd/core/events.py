"""Every event: its name, its fields and its meaning. `python -m` prints the page of the docs."""

from __future__ import annotations

import re
import sys
from enum import StrEnum

COMMON = ("timestamp", "level", "event", "pid")
"""Fields of every event. `pid` is the worker's in events about a worker, else the daemon's."""

_HTTP = "http.request.method url.path http.response.status_code client.address duration_ms"


class Event(StrEnum):
    """An event: name (`%` marks variable parts), fields (`?`: optional), and meaning. The cause
    is in `error` (what failed) or `reason` (why servd acts); `next_action` is what servd does next.
    """

    fields: tuple[str, ...]
    meaning: str

    def __new__(cls, name: str, fields: str = "", meaning: str = "") -> Event:
        """Creates a member; given only a name, returns the member of that name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.fields = tuple(fields.split())
        member.meaning = meaning
        return member

    # fmt: off
    # the daemon
    SERVD_STARTED = ("servd started", "version config services runtime_dir admin replaces?",
        "The daemon has read its configuration and starts the services.")
    SERVD_READY = ("servd ready", "status failed?",
        "The first start is complete; `failed` names the services that did not start.")
    STOPPING = ("stopping", "signal? reason? delay?", "The daemon received a request to stop.")
    STOPPING_AT_ONCE = ("stopping immediately", "signal",
        "The daemon received a second signal and kills the workers.")
    SHUTDOWN_TIMEOUT = ("shutdown timeout: killing remaining workers", "seconds",
        "Some workers were still running after `daemon.shutdown_timeout`.")
    SERVD_STOPPED = ("servd stopped", "graceful log_lines_dropped",
        "All services have stopped; the daemon exits.")
    NOT_LINUX = ("not Linux: workers get no signal when the daemon is killed", "",
        "This safeguard requires Linux.")
    SERVD_WAS_HELD_UP = ("servd stalled", "seconds",
        "The daemon did not run for this long: the machine was suspended or overloaded.")
    CLOCK_JUMPED = ("clock jumped", "seconds next_action", "The system clock was changed.")
    CONFIG_WARNING = ("config warning", "warning exception?",
        "The configuration is valid, but something in it is probably a mistake.")
    FILES_NOT_WATCHED = ("cannot watch files", "error next_action",
        "Changes to the configuration and to certificates are not detected.")
    SOURCES_NOT_WATCHED = ("cannot watch sources", "error",
        "Changes to the code of an app are not detected (`servd dev`).")
    RUNTIME_FOLDER_MENDED = ("runtime folder repaired", "missing",
        "Files of the runtime folder, or the admin socket, were deleted; servd recreated them.")
    RUNTIME_FOLDER_MISSING = ("cannot repair runtime folder", "error next_action",
        "The runtime folder was deleted and cannot be recreated: commands cannot reach the daemon.")
    SOCKETS_REMOVED = ("unix sockets removed", "paths services",
        "Socket files were deleted; servd rolls the services onto new ones.")
    WORKER_LIST_NOT_WRITTEN = ("cannot write worker list", "error",
        "If this daemon is killed, the next daemon cannot find its workers.")
    ORPHANS_DRAINING = ("orphaned workers draining", "pids",
        "Workers of a killed daemon finish their requests.")
    ORPHANS_ENDED = ("orphaned workers exited", "", "All workers of the killed daemon have exited.")
    ORPHANS_KILLED = ("orphaned workers killed", "pids",
        "Workers of a killed daemon did not exit in time.")
    GPU_DRIVER_SILENT = ("GPU driver does not answer", "error next_action",
        "The memory of GPUs is unknown: only declared figures count.")
    GPU_DRIVER_ANSWERS = ("GPU driver answers again", "", "The memory of GPUs is measured again.")
    GPU_DRIVER_FAILS = ("GPU driver cannot be asked", "error next_action",
        "Its answer is no use: the memory of GPUs is unknown, only declared figures count.")
    GPUS_MEASURED = ("GPUs measured", "", "The driver has answered for the first time.")
    GPUS_NOT_MEASURED = ("GPUs not measured", "error",
        "There is no driver or no nvidia-ml-py: only declared figures of GPU memory count.")
    GPU_ERROR = ("GPU error", "gpu xid? error workers next_action",
        "The driver reported an error of a GPU that is no reason to stop using it.")
    GPU_FAILED = ("GPU failed", "gpu xid? error workers next_action",
        "A GPU cannot be relied on any more; `workers` are those that have it.")
    GPU_RELEASED = ("GPU released", "gpu", "Workers may have the GPU again.")
    INTERNAL_ERROR = ("internal error", "service? exception",
        "A bug in servd; the daemon continues. Please report it.")
    CONNECTIONS_NOT_ACCEPTED = ("cannot accept connections",
        "error nofile next_action by? service? worker? generation?",
        "A worker or the admin API has run out of file descriptors or memory.")
    CONNECTIONS_ACCEPTED_AGAIN = ("accepting connections again",
        "seconds by? service? worker? generation?",
        "The shortage is over.")

    # the log and hooks
    LOG_REOPENED = ("log reopened", "", "The daemon reopened its log file (SIGUSR1).")
    LOG_NOT_REOPENED = ("cannot reopen log", "error", "The old log file stays in use.")
    LOG_NOT_WRITTEN = ("cannot write log", "error file",
        "Log lines are dropped and counted. Only hooks and followers receive this event.")
    LOG_NOT_ROTATED = ("cannot rotate log", "error file",
        "A log file has reached `max_size` but cannot be renamed; it keeps growing.")
    LOG_LINES_LOST = ("log lines lost", "lines reason total file?",
        "The log is writable again; this many lines are missing from it.")
    HOOK_DONE = ("hook finished", "hook target", "A hook call succeeded.")
    HOOK_FAILED = ("hook failed", "hook target error last_lines?", "A hook call failed.")
    HOOK_DROPPED = ("hook dropped", "hook reason", "A hook call was skipped.")
    HOOKS_DROPPED = ("hooks dropped", "calls reason",
        "Hook calls were cancelled because the daemon exits.")

    OUTPUT_DROPPED = ("output dropped", "service lines lines_per_second",
        "A service exceeded `log.max_rate`; this many of its lines were not logged.")

    # reloads and upgrades
    RELOAD_STARTED = ("reload started", "reason",
        "The daemon reads the configuration again, or applies a manual change.")
    RELOAD_PLANNED = ("reload planned", "reason changes", "The changes that will be applied.")
    RELOAD_WAITS = ("reload waits", "service reason next_action",
        "Two generations answer requests: a third one waits until one has, or its drain is over.")
    RELOAD_PREPARED = ("reload prepared", "services",
        "All new generations are ready and are about to replace the old ones.")
    RELOAD_FINISHED = ("reload finished",
        "outcome reason seconds changes restart_needed? by_hand_ends?",
        "The configuration is in effect (`applied`), or nothing had changed (`unchanged`).")
    RELOAD_FAILED = ("reload failed",
        """outcome reason seconds changes error failed_service? details? last_lines?
        restart_needed? by_hand_ends?""",
        "The configuration is `invalid` or was `rolled_back`; the previous one is still running.")
    RELOAD_REFUSED = ("reload refused", "reason error",
        "The manual change is not possible, or the state changed after it was planned.")
    RELOAD_UNDONE = ("reload undone", "services", "Prepared changes were rolled back.")
    UNDO_FAILED = ("undo failed", "service exception", "A bug in servd during the rollback.")
    UPGRADE_STARTED = ("upgrade started", "", "The daemon starts a new daemon to replace itself.")
    UPGRADE_FINISHED = ("upgrade finished", "new_pid seconds", "The new daemon has taken over.")
    UPGRADE_FAILED = ("upgrade failed", "error last_lines", "The old daemon continues.")
    UPGRADE_REFUSED = ("upgrade refused", "error hint", "An upgrade is not possible now.")

    # services
    SERVICE_WAITING = ("service waiting", "service state? previous? reason? waiting_for?",
        "The service waits for a dependency.")
    SERVICE_STARTING = ("service starting", "service state previous reason",
        "The workers of the service are starting.")
    SERVICE_READY = ("service ready", "service state previous workers",
        "All workers of the service are ready.")
    SERVICE_ROLLING = ("service rolling", "service state previous reason",
        "More workers, or a new generation, are starting.")
    SERVICE_DEGRADED = ("service degraded", "service state previous ready desired error",
        "The service has fewer healthy workers than configured.")
    SERVICE_BACKOFF = ("service backoff", "service state previous error",
        "No worker is ready; servd retries after a delay.")
    SERVICE_STOPPING = ("service stopping", "service state previous reason",
        "The workers of the service are draining.")
    SERVICE_STOPPED = ("service stopped", "service state previous reason?",
        "The service has no workers.")
    SERVICE_FAILED = ("service failed", "service state previous error",
        "servd does not restart the service; it needs manual action.")
    SERVICE_EXITED = ("service exited", "service state previous reason",
        "The service exited, and its `restart.policy` does not restart it.")
    SERVICE_COMPLETED = ("service completed", "service state previous", "The task has completed.")
    SERVICE_CANNOT_START = ("service cannot start", "service error exit_status? last_lines?",
        "The first start of the service failed.")
    LISTENING = ("listening", "service generation address", "The service listens on `address`.")
    BINDS_ITSELF = ("undeclared listener", "service addresses error?",
        "The program listens on addresses that its service does not declare. \
A change of the service stops it before it starts it again.")
    TASK_COMPLETED = ("task completed", "service generation seconds",
        "The program of a task exited with status 0.")
    CRASH_LOOP = ("crash loop", "service worker failures reason last_lines",
        "A worker has failed three times in a row.")
    DRAIN_CUT_SHORT = ("drain cut short", "service generation",
        "Three generations were draining; servd stopped one.")
    WORKERS_AUTOSCALED = ("workers autoscaled", "service workers before in_flight",
        "The number of workers follows the load: `in_flight` requests on average.")
    CERTIFICATE_EXPIRING = ("certificate expiring", "service expires_at days",
        "The certificate expires within 14 days, or within a third of its lifetime.")
    CERTIFICATE_EXPIRED = ("certificate expired", "service expires_at days",
        "The certificate has expired.")
    APP_METRICS_NOT_KEPT = ("cannot save app metrics", "service error? exception?",
        "The app's own metrics lack the counts of exited workers.")
    APP_METRICS_NOT_READ = ("cannot read app metrics", "service error",
        "The app's own metrics are missing from `/metrics`.")

    # workers, as the daemon sees them
    WORKER_STARTED = ("worker started", "service generation worker reason",
        "The worker process was started.")
    WORKER_WAITS_FOR_GPU = ("worker waits for GPU", "service generation worker reason",
        "A worker starts once its GPUs have room, or another worker has started there.")
    GPU_MEMORY_ABOVE_DECLARED = ("GPU memory above what is declared", "service declared peak",
        "A worker took more than `gpus.memory` says, so what is planned together may not fit.")
    WORKER_READY = ("worker ready", "service generation worker seconds",
        "The worker accepts requests.")
    WORKER_WARM = ("worker warmed up", "service generation worker requests seconds",
        "The worker has answered its warm-up requests.")
    WORKER_DIED = ("worker exited", "service generation worker exit_status reason next_action",
        "The worker exited unexpectedly.")
    WORKER_HUNG = ("worker hung", "service generation worker reason? seconds next_action",
        "The worker was unresponsive for longer than `watchdog` allows, or (`no progress`) none of \
its requests went on.")
    WORKER_TO_BE_RECYCLED = ("worker recycle requested",
        "service generation worker reason error? seconds? bytes? limit? gpu?",
        "The worker will be replaced; `error` is the failure of its health check.")
    WORKER_RECYCLED = ("worker recycled", "service generation worker reason",
        "The replacement is ready; the old worker drains.")
    WORKER_NOT_RECYCLED = ("worker recycle skipped",
        "service generation worker reason bytes limit gpu?",
        "The worker stays: a replacement would have the same problem.")
    WORKER_KEPT = ("worker recycle postponed", "service generation worker reason retry_in",
        "The worker stays for now: its replacement failed to start.")
    WORKER_NOT_READY = ("worker not ready", "service generation worker error",
        "The code of a BentoML service says that it is not ready. The worker stays.")
    WORKER_HEALTHY_AGAIN = ("worker healthy again", "service generation worker",
        "The health check of the worker succeeds again.")
    WORKER_DRAINING = ("worker draining", "service generation worker reason",
        "The worker accepts no new requests and finishes those in flight.")
    STOP_COMMAND_FAILED = ("stop command failed",
        "service generation worker error next_action",
        "`stop_command` could not be run, or exited with a status other than 0.")
    WORKER_ENDED = ("worker stopped", "service generation worker exit_status",
        "The worker exited as requested.")
    WORKER_LEFT_PROCESSES = ("worker left processes",
        "service generation worker processes next_action",
        "The worker exited, but processes that it started are still running.")
    WORKER_KILLED = ("worker killed", "service generation worker reason",
        "The worker did not exit in time.")

    # logged by workers themselves
    REQUEST = ("request", f"service generation worker {_HTTP} request_id trace_id?",
        "The worker answered a request. The field names are those of OpenTelemetry.")
    REQUEST_TIMED_OUT = ("request timed out: %s %s after %.1f s",
        "service generation worker logger request_id?",
        "The client received 504.")
    RESPONSE_ABORTED = ("response aborted: %s %s after %.1f s",
        "service generation worker logger request_id?",
        "The request exceeded its time limit after its response had started.")
    APP_FAILED_LATE = ("app failed after its request timed out",
        "service generation worker logger request_id? exception",
        "The app raised an exception in a request that had already received 504.")
    REQUEST_REFUSED = ("request rejected: %s", "service generation worker logger",
        "The request has invalid headers or framing and did not reach the app.")
    HANDSHAKE_STUCK = ("WebSocket handshake not understood: connection closed",
        "service generation worker logger",
        "The WebSocket library did not respond within `timeouts.headers`.")
    REQUESTS_TOO_SLOW = ("requests too slow: closed %d connections from %s",
        "service generation worker logger",
        "The clients did not send their requests in time.")
    REQUESTS_CUT = ("drain timeout: aborted %d requests",
        "service generation worker logger",
        "The requests took longer than `timeouts.drain`.")
    CANNOT_LOAD = ("cannot load %s", "service generation worker error exception?",
        "The app cannot be imported.")
    APP_FAILED_TO_START = ("app failed to start: %s",
        "service generation worker logger exception",
        "The lifespan startup of the app raised an exception.")
    APP_IS_LATE = ("app did not start in time", "service generation worker exception",
        "The app was not ready within `timeouts.startup`; `exception` shows where it is blocked.")
    WORKER_DOES_NOT_END = ("worker still running after its drain",
        "service generation worker threads exception",
        "App code, or a thread that is not a daemon thread, keeps the process running.")
    TLS_NOT_SET_UP = ("cannot set up TLS", "service generation worker error",
        "The certificate or its key cannot be used.")
    OPENTELEMETRY_MISSING = (
        "%s is set, but OpenTelemetry is not installed: install opentelemetry-distro",
        "service generation worker error",
        "Traces are not exported.")
    # fmt: on


_HEAD = f"""\
# Events

<!-- Generated by `python -m servd.core.events`. -->

Each log line is an event: a JSON object whose `event` field is the event name. Hooks and
`servd events` receive the daemon's events. `…` marks the variable part of a name; fields with `?`
are optional. Every event also has {", ".join(f"`{name}`" for name in COMMON)}.

`reason` is why servd acts, `error` is what failed, and `next_action` is what servd does next.

A worker's other lines are its output (with the field `stream`) or its log records (with the field
`logger`); their event name is the text of the line.

| Event | Fields | Meaning |
| --- | --- | --- |"""


def reference() -> str:
    """Returns the event reference in Markdown."""
    lines = [_HEAD]
    for event in Event:
        name = re.sub(r"%\.?\d*[sdf]", "…", event)
        fields = " ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{name}` | {fields} | {event.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
