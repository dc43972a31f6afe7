"""Every event: its name, its fields and its meaning. `python -m` prints the page of the docs."""

from __future__ import annotations

import re
import sys
from enum import StrEnum

COMMON = ("timestamp", "level", "event", "pid")
"""Fields that every event has. `pid` is the worker's where it is about one, else the daemon's."""

_HTTP = "http.request.method url.path http.response.status_code client.address duration_ms"


class Event(StrEnum):
    """An event: name (`%`: what varies), fields (`?`: at times), and meaning. A cause is called
    `error` (what failed) or `reason` (why servd acts); `next_action` is what servd does about it.
    """

    fields: tuple[str, ...]
    meaning: str

    def __new__(cls, name: str, fields: str = "", meaning: str = "") -> Event:
        """A member; with the name alone, the member of that name."""
        member = str.__new__(cls, name)
        member._value_ = name
        member.fields = tuple(fields.split())
        member.meaning = meaning
        return member

    # fmt: off
    # the daemon
    SERVD_STARTED = ("servd started", "version config services runtime_dir admin replaces?",
        "The daemon has read its configuration and begins to start services.")
    SERVD_READY = ("servd ready", "status failed?",
        "The first start is over; `failed` names services that did not start.")
    STOPPING = ("stopping", "signal? reason?", "The daemon was asked to stop.")
    STOPPING_AT_ONCE = ("stopping at once", "signal", "A second signal came: workers are killed.")
    SHUTDOWN_TIMEOUT = ("shutdown timeout: killing what is left", "seconds",
        "Workers did not end within `daemon.shutdown_timeout`.")
    SERVD_STOPPED = ("servd stopped", "graceful log_lines_dropped",
        "All services have ended; the daemon exits.")
    NOT_LINUX = ("not Linux: workers do not notice the daemon's death by signal", "",
        "A safeguard needs Linux.")
    SERVD_WAS_HELD_UP = ("servd was held up", "seconds",
        "The daemon did not run for that long: the machine slept or was overloaded.")
    CLOCK_JUMPED = ("clock jumped", "seconds next_action", "The system's clock was set.")
    CONFIG_WARNING = ("config warning", "warning exception?",
        "The configuration is valid, but something in it deserves attention.")
    FILES_NOT_WATCHED = ("files cannot be watched", "error next_action",
        "Edits of the configuration and of certificates are not noticed.")
    SOURCES_NOT_WATCHED = ("sources cannot be watched", "error",
        "Edits of an app's code are not noticed (`servd dev`).")
    RUNTIME_FOLDER_MENDED = ("runtime folder mended", "missing",
        "What somebody had removed of it, or the admin socket, was made again.")
    RUNTIME_FOLDER_MISSING = ("runtime folder cannot be mended", "error next_action",
        "It was removed, and cannot be made again: no command reaches the daemon.")
    SOCKETS_REMOVED = ("unix sockets removed", "paths services",
        "Somebody removed their files: the services are rolled onto new ones.")
    WORKER_LIST_NOT_WRITTEN = ("list of workers cannot be written", "error",
        "A next daemon would not know the workers that this one leaves if it is killed.")
    ORPHANS_DRAINING = ("workers of a killed daemon are draining", "pids",
        "Workers that a killed daemon left finish their requests.")
    ORPHANS_ENDED = ("workers of a killed daemon have ended", "", "They have all ended.")
    ORPHANS_KILLED = ("workers of a killed daemon were killed", "pids", "They did not end in time.")
    INTERNAL_ERROR = ("internal error", "service? exception",
        "A fault of servd itself; it continues. Please report it.")
    CONNECTIONS_NOT_ACCEPTED = ("connections cannot be accepted",
        "error nofile next_action by? service? worker? generation?",
        "A worker or the admin API lacks descriptors or memory for them.")
    CONNECTIONS_ACCEPTED_AGAIN = ("connections are accepted again",
        "seconds by? service? worker? generation?",
        "That is over.")

    # the log and hooks
    LOG_REOPENED = ("log reopened", "", "The log file was opened again (SIGUSR1).")
    LOG_NOT_REOPENED = ("log not reopened", "error", "It could not be: the old file stays in use.")
    LOG_NOT_WRITTEN = ("log cannot be written", "error file",
        "Lines are dropped and counted. For hooks and followers.")
    LOG_NOT_ROTATED = ("log not rotated", "error file",
        "A log file has reached its `max_size`, but cannot be renamed: it grows on.")
    LOG_LINES_LOST = ("log lines lost", "lines reason in_all file?",
        "Lines that the log lacks, now that it can be written again.")
    HOOK_DONE = ("hook done", "hook target", "A hook was called.")
    HOOK_FAILED = ("hook failed", "hook target error last_lines?",
        "A hook's program or URL did not do what it should.")
    HOOK_DROPPED = ("hook dropped", "hook reason", "A call of a hook was left out.")
    HOOKS_DROPPED = ("hooks dropped", "calls reason", "Calls that were not over at the end.")

    OUTPUT_DROPPED = ("output dropped", "service lines lines_per_second",
        "A service printed more lines than `log.max_rate` allows; that many were not logged.")

    # reloads and upgrades
    RELOAD_STARTED = ("reload started", "reason",
        "The configuration is read again, or a manual change is applied.")
    RELOAD_PLANNED = ("reload planned", "reason changes", "What will change.")
    RELOAD_PREPARED = ("reload prepared", "services",
        "Everything new is ready: what is old is about to be replaced.")
    RELOAD_FINISHED = ("reload finished",
        "outcome reason seconds changes restart_needed? by_hand_ends?",
        "It is in force (`applied`), or nothing had to change (`unchanged`).")
    RELOAD_FAILED = ("reload failed",
        """outcome reason seconds changes error failed_service? details? last_lines?
        restart_needed? by_hand_ends?""",
        "What ran before continues: the configuration is `invalid`, or was `rolled_back`.")
    RELOAD_REFUSED = ("reload refused", "reason error",
        "A manual change is not possible, or no longer what was seen.")
    RELOAD_UNDONE = ("reload undone", "services", "What was prepared is taken back.")
    UNDO_FAILED = ("undo failed", "service exception", "A fault of servd while it took that back.")
    UPGRADE_STARTED = ("upgrade started", "", "A new daemon is started in place of this one.")
    UPGRADE_FINISHED = ("upgrade finished", "successor seconds", "The new daemon has taken over.")
    UPGRADE_FAILED = ("upgrade failed", "error last_lines", "This daemon continues.")
    UPGRADE_REFUSED = ("upgrade refused", "error hint", "An upgrade is not possible now.")

    # services
    SERVICE_WAITING = ("service waiting", "service state? previous? reason? waiting_for?",
        "It needs a service that is not ready.")
    SERVICE_STARTING = ("service starting", "service state previous reason",
        "Its workers are on their way.")
    SERVICE_READY = ("service ready", "service state previous workers",
        "As many workers are ready as are wanted.")
    SERVICE_ROLLING = ("service rolling", "service state previous reason",
        "More workers, or a new generation, are on their way.")
    SERVICE_DEGRADED = ("service degraded", "service state previous ready desired error",
        "It serves with fewer healthy workers than wanted.")
    SERVICE_BACKOFF = ("service backoff", "service state previous error",
        "No worker is ready; the next attempt follows after a pause.")
    SERVICE_STOPPING = ("service stopping", "service state previous reason",
        "Its workers finish what they have.")
    SERVICE_STOPPED = ("service stopped", "service state previous reason?",
        "It has ended, or has 0 workers.")
    SERVICE_FAILED = ("service failed", "service state previous error",
        "It is given up: a person has to act.")
    SERVICE_EXITED = ("service exited", "service state previous reason",
        "It has ended by itself, and `restart.policy` wants no other start.")
    SERVICE_COMPLETED = ("service completed", "service state previous", "The task is done.")
    SERVICE_CANNOT_START = ("service cannot start", "service error exit_status? last_lines?",
        "The first start failed.")
    LISTENING = ("listening", "service generation address", "It can be reached at `address`.")
    BINDS_ITSELF = ("service binds by itself", "service addresses error?",
        "Its program listens without saying so (`listen`): a change stops it, then starts it.")
    TASK_COMPLETED = ("task completed", "service generation seconds",
        "The program of a task ended with status 0.")
    CRASH_LOOP = ("crash loop", "service worker failures reason last_lines",
        "A worker died three times in a row.")
    DRAIN_CUT_SHORT = ("drain cut short", "service generation",
        "The oldest of three generations gives way.")
    CERTIFICATE_EXPIRING = ("certificate expiring", "service expires_at days",
        "It ends soon: within 14 days, or a third of its life.")
    CERTIFICATE_EXPIRED = ("certificate expired", "service expires_at days", "It has ended.")
    APP_METRICS_NOT_KEPT = ("metrics of an app cannot be kept", "service error? exception?",
        "The counts of ended workers are missing from the app's own metrics.")
    APP_METRICS_NOT_READ = ("metrics of an app cannot be read", "service error",
        "The app's own metrics are missing from `/metrics`.")

    # workers, as the daemon sees them
    WORKER_STARTED = ("worker started", "service generation worker reason", "It was started.")
    WORKER_READY = ("worker ready", "service generation worker seconds", "It takes requests.")
    WORKER_DIED = ("worker died", "service generation worker exit_status reason next_action",
        "It ended without being asked to.")
    WORKER_HUNG = ("worker hung", "service generation worker seconds next_action",
        "Its event loop gave no sign of life (`watchdog`).")
    WORKER_TO_BE_RECYCLED = ("worker to be recycled",
        "service generation worker reason error? seconds? bytes? limit?",
        "It will be replaced; `error` is what a health check found.")
    WORKER_RECYCLED = ("worker recycled", "service generation worker reason",
        "Its replacement is ready: it ends.")
    WORKER_NOT_RECYCLED = ("worker not recycled", "service generation worker reason bytes limit",
        "It stays, because its replacement would be no better.")
    WORKER_KEPT = ("worker kept", "service generation worker reason again_in",
        "It stays for now: its replacement does not start.")
    WORKER_HEALTHY_AGAIN = ("worker healthy again", "service generation worker",
        "Its health check succeeds again.")
    WORKER_DRAINING = ("worker draining", "service generation worker reason",
        "It accepts no more and finishes what it has.")
    STOP_COMMAND_FAILED = ("stop command failed",
        "service generation worker error next_action",
        "`stop_command` could not be run, or did not end with status 0.")
    WORKER_ENDED = ("worker ended", "service generation worker exit_status",
        "It ended, as it was asked to.")
    WORKER_LEFT_PROCESSES = ("worker left processes",
        "service generation worker processes next_action",
        "Its first process has ended, but not all that it had started.")
    WORKER_KILLED = ("worker killed", "service generation worker reason",
        "It did not end within its time.")

    # said by workers themselves
    REQUEST = ("request", f"service generation worker {_HTTP} request_id trace_id?",
        "A request was answered; the names are OpenTelemetry's.")
    REQUEST_TIMED_OUT = ("request timed out: %s %s after %.1f s",
        "service generation worker logger request_id?",
        "The client received 504.")
    RESPONSE_ABORTED = ("response aborted: %s %s after %.1f s",
        "service generation worker logger request_id?",
        "The time of a request was over after its response had begun.")
    APP_FAILED_LATE = ("the app failed after its time was up",
        "service generation worker logger request_id? exception",
        "An exception in a request that was answered with 504.")
    REQUEST_REFUSED = ("a request was refused: %s", "service generation worker logger",
        "It never reached the app: its head or the framing of its body is wrong.")
    HANDSHAKE_STUCK = ("a WebSocket handshake was not understood: its connection is closed",
        "service generation worker logger",
        "The library answered nothing within `timeouts.headers`.")
    REQUESTS_TOO_SLOW = ("requests came too slowly: %d connections of %s closed",
        "service generation worker logger",
        "Clients did not send their requests in time.")
    REQUESTS_CUT = ("the drain's deadline has passed: %d requests are cut",
        "service generation worker logger",
        "They took longer than `timeouts.drain`.")
    CANNOT_LOAD = ("cannot load %s", "service generation worker error exception?",
        "The app cannot be imported.")
    APP_FAILED_TO_START = ("the app failed to start: %s",
        "service generation worker logger exception",
        "Its lifespan raised an exception.")
    APP_IS_LATE = ("the app has not started yet", "service generation worker exception",
        "It is not ready within `timeouts.startup`, and is ended; `exception` says where it is.")
    WORKER_DOES_NOT_END = ("the worker does not end",
        "service generation worker threads exception",
        "Its drain is over, but code of the app or a thread that is no daemon thread goes on.")
    TLS_NOT_SET_UP = ("TLS cannot be set up", "service generation worker error",
        "The certificate or its key cannot be used.")
    OPENTELEMETRY_MISSING = (
        "%s is set, but OpenTelemetry is missing: install opentelemetry-distro",
        "service generation worker error",
        "No traces are exported.")
    # fmt: on


_HEAD = f"""\
# Events

<!-- Made by `python -m servd.core.events`. -->

Each line of the log is an event: a JSON object whose `event` is its name. Hooks and `servd events`
receive the daemon's own. `…` stands for what varies; fields with `?` are there at times only. All
have {", ".join(f"`{name}`" for name in COMMON)} in addition.

Other lines of a worker are what it prints (with `stream`) or logs (with `logger`): the text is the
name.

| Event | Fields | Meaning |
| --- | --- | --- |"""


def reference() -> str:
    """The page on events, in Markdown."""
    lines = [_HEAD]
    for event in Event:
        name = re.sub(r"%\.?\d*[sdf]", "…", event)
        fields = " ".join(f"`{field}`" for field in event.fields)
        lines.append(f"| `{name}` | {fields} | {event.meaning} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(reference())
