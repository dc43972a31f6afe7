"""Seconds that are added to a drain, or to another wait, when something ends: each waits for
another and has to be the more patient one. From the inside (`timeouts.drain`) to the outside:
"""

from __future__ import annotations

PROBE_END_SECONDS = 0.2
"""A worker that has drained lets a health probe under way end."""

HARD_EXIT_SECONDS = 2.5
"""Beyond its drain and `timeouts.shutdown`, a worker whose daemon died exits immediately."""

KILL_SECONDS = 3.0
"""Beyond its drain and `timeouts.shutdown`, a worker that was told to stop is killed by the
daemon. A command is killed at the end of its drain, exactly."""

UNREADY_STOP_SECONDS = 5.0
"""A worker that never became ready has so long to stop: no request waits for it."""

IMMORTAL_SECONDS = 2.0
"""What a worker has left, and survives SIGKILL for so long, is left alone: it belongs to a user
whom the daemon may not signal, or waits in the kernel."""

ABORT_SECONDS = 0.5
"""A hung worker writes its stack (SIGABRT) before SIGKILL."""

FORCED_STOP_SECONDS = 3.0
"""A worker whose drain is cut short has so long to end before SIGKILL."""

OLDEST_DRAIN_SECONDS = 10.0
"""The oldest of too many draining generations keeps answering for so long (`--now`)."""

ORPHAN_SECONDS = 5.0
"""Beyond the longest drain, workers of a killed daemon are killed by the next one: never before
they exit by themselves."""

STOP_SECONDS = 10.0
"""Beyond the longest chain of drains, a stop of the daemon kills what is left."""

HOOK_SECONDS = 2.0
"""Hooks under way when the daemon stops."""

LOG_SECONDS = 2.0
"""Lines that wait to be written when the daemon ends."""

PREVIOUS_DAEMON_SECONDS = 5.0
"""A draining previous daemon exits within this, once it is told to stop immediately."""

DISMISSED_DAEMON_SECONDS = 10.0
"""A new daemon that is not wanted after all ends its workers within this."""

MANAGER_SECONDS = 5.0
"""Beyond the daemon's own deadline: what systemd is told to wait for (EXTEND_TIMEOUT_USEC)."""
