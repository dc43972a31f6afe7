"""Renders events as lines for people on a terminal."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from servd.core.printable import visible
from servd.daemon.log.access import access_line
from servd.daemon.log.event import LogEvent

_COLOURS = ("36", "35", "33", "34", "32", "96", "95", "93", "94", "92")
"""Of services in turn; red is for errors."""


def console_renderer(*, colours: bool) -> Callable[[LogEvent], bytes]:
    """Returns a function that renders an event as a line for people."""
    render = structlog.dev.ConsoleRenderer(colors=colours, pad_event_to=0, sort_keys=False)
    of_services: dict[str, str] = {}

    def shown(line: LogEvent) -> bytes:
        if line.fields is None:
            return str(visible(line.json.decode(errors="replace"))).encode()
        event = visible(dict(line.fields))
        text = "".join(f"\n    | {item}" for item in event.pop("last_lines", None) or ())
        stamp = str(event.get("timestamp", ""))
        event["timestamp"] = stamp[11:23] if len(stamp) > 23 else stamp
        if "exception" in event:
            text += "\n" + str(event.pop("exception"))
        name = str(event.pop("service", ""))
        if asked := access_line(event, colours=colours):
            event = {"timestamp": event["timestamp"], "level": event.get("level", "info")}
            text = f" {asked}{text}"
        if not colours:
            lead = f"{name} | " if name else ""
        else:
            colour = of_services.setdefault(name, _COLOURS[len(of_services) % len(_COLOURS)])
            lead = f"\033[{colour}m{name} |\033[0m " if name else ""
        return (lead + str(render(None, "", event)) + text).encode(errors="replace")

    return shown
