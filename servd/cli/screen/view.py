"""What a person has chosen to see in `servd top`. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from servd.cli.render import service_facts as facts
from servd.cli.render.service_facts import ServiceRow
from servd.cli.render.status_table import COMPACT_FROM
from servd.core.quick_dataclass import dataclass


@dataclass(frozen=True, slots=True)
class Order:
    """An order of services. `key` sorts them; the start order is that of the status."""

    name: str
    key: Callable[[ServiceRow], Any]


ORDERS: Mapping[str, Order] = {
    "p": Order("problems", facts.by_problem),
    "n": Order("name", lambda service: facts.natural(service["name"])),
    "r": Order("requests", lambda service: -(service["rps"] or 0)),
    "e": Order("5xx", lambda service: -(service["error_rate"] or 0)),
    "l": Order("latency", lambda service: -(service["p99_ms"] or 0)),
    "c": Order("CPU", lambda service: -(facts.cpu(service) or 0)),
    "m": Order("memory", lambda service: -facts.memory(service)),
    "o": Order("start order", lambda service: 0),
}
"""Orders by the key that chooses them."""

_ALIASES = {"P": "c", "M": "m", "N": "n"}  # as htop has them


@dataclass(frozen=True, slots=True)
class TopView:
    """The order, the filter, the selected service, which services are unfolded, and the first line
    of the list that is visible. `toggled` are those that differ from `unfolded`, the state of all
    others; None: as the number of services suggests.
    """

    order: str = "p"
    filter: str = ""
    is_typing: bool = False
    shows_help: bool = False
    selected: str | None = None
    unfolded: bool | None = None
    toggled: frozenset[str] = frozenset()
    offset: int = 0

    def is_unfolded(self, name: str, count: int) -> bool:
        """Whether the details of a service are shown, one of `count`."""
        base = count < COMPACT_FROM if self.unfolded is None else self.unfolded
        return base != (name in self.toggled)

    def chosen(self, services: list[ServiceRow]) -> list[ServiceRow]:
        """Returns the services to show, in order. Every word of the filter has to match."""
        words = self.filter.lower().split()
        found = [s for s in services if all(word in _searched(s) for word in words)]
        return sorted(found, key=ORDERS[self.order].key)

    def after_option(self, key: str) -> TopView | None:
        """Returns the view after a key that changes more than a position; None for other keys."""
        key = _ALIASES.get(key, key)
        if key in ("s", "S"):
            names = list(ORDERS)
            step = 1 if key == "s" else -1
            key = names[(names.index(self.order) + step) % len(names)]
        if key in ORDERS:
            return replace(self, order=key, selected=None, offset=0)
        if key == "/":
            return replace(self, is_typing=True)
        if key in ("?", "h", "f1"):
            return replace(self, shows_help=True)
        if key == "esc":
            return replace(self, filter="")
        return None

    def after_typing(self, key: str) -> TopView:
        """Returns the view after a key of the filter's prompt."""
        if key == "enter":
            return replace(self, is_typing=False)
        if key == "esc":
            return replace(self, is_typing=False, filter="")
        changed = {
            "backspace": self.filter[:-1],
            "ctrl-u": "",
            "ctrl-w": self.filter.rstrip().rpartition(" ")[0],
        }
        text = changed.get(key, self.filter + key if len(key) == 1 else self.filter)
        return replace(self, filter=text, offset=0)

    def toggle(self, name: str) -> TopView:
        """Folds or unfolds the details of a service."""
        return replace(self, toggled=self.toggled ^ {name}, selected=name)

    def toggle_all(self, count: int) -> TopView:
        """Folds all details if most are unfolded, or unfolds all."""
        base = count < COMPACT_FROM if self.unfolded is None else self.unfolded
        return replace(self, unfolded=not base, toggled=frozenset())


def _searched(service: ServiceRow) -> str:
    """Returns the text of a service that the filter looks at."""
    kind = "task" if service["kind"] == "task" else ""
    texts = (service["name"], facts.state_of(service), kind, facts.addresses(service))
    return " ".join((*texts, service["error"] or "")).lower()
