"""Formats numbers, sizes and times for columns. Pure."""

from __future__ import annotations

from datetime import datetime

_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def number(value: float | None) -> str:
    """Formats a number in at most six characters; None as a dash."""
    if value is None:
        return "-"
    if value >= 100_000:
        return f"{value / 1000:.0f}k"
    return f"{value:.0f}" if value >= 100 or value == int(value) else f"{value:.1f}"


def size(value: int | None) -> str:
    """Formats bytes in at most five characters: `23M`, `1.4G`."""
    if not value:
        return "-"
    scaled, units = float(value), ["", "K", "M", "G", "T"]
    while scaled >= 1000 and len(units) > 1:
        scaled, units = scaled / 1024, units[1:]
    return f"{scaled:.1f}{units[0]}" if scaled < 10 and units[0] else f"{scaled:.0f}{units[0]}"


def gigabytes(value: int | None) -> str:
    """Formats bytes in GiB, without the unit: `38.2`, `70`; None as a dash."""
    if value is None:
        return "-"
    scaled = round(value / (1 << 30), 1)
    return f"{scaled:.0f}" if scaled == int(scaled) or scaled >= 1000 else f"{scaled:.1f}"


def percent(share: float | None) -> str:
    """Formats a share from 0 to 1 as a percentage without its sign; None as a dash."""
    if share is None:
        return "-"
    if 0 < share < 0.001:
        return "<0.1"
    value = 100 * share
    return f"{value:.1f}" if 0 < value < 10 else f"{value:.0f}"


def duration(seconds: float, parts: int = 2) -> str:
    """Formats a time in its two largest units: `3 min 20 s`, `2 d 4 h`."""
    rest = max(0, int(seconds))
    found: list[str] = []
    for length, unit in _UNITS:
        count, rest = divmod(rest, length)
        if count or found:
            found.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, found[:parts])) or "0 s"


def elapsed(since: str, now: datetime) -> float:
    """Seconds since a timestamp; 0 if the clock of the daemon is ahead."""
    return max(0.0, (now - datetime.fromisoformat(since)).total_seconds())


def ago(since: str, now: datetime) -> str:
    """Formats a timestamp relative to `now`: `3 min ago`."""
    seconds = elapsed(since, now)
    return f"{duration(seconds, 1)} ago" if seconds >= 1 else "just now"


def local(time: str, now: datetime) -> str:
    """Formats a timestamp in the time zone of `now`, with its date unless it is today."""
    here = datetime.fromisoformat(time).astimezone(now.tzinfo)
    return f"{here:%H:%M:%S}" if here.date() == now.date() else f"{here:%Y-%m-%d %H:%M}"


def when(time: str, now: datetime) -> str:
    """Formats a timestamp in local and relative time: `12:03:05 (3 min ago)`."""
    return f"{local(time, now)} ({ago(time, now)})"
