"""Formats the GPUs and who holds their memory. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from rich.cells import cell_len

from servd.cli.render.figures import gigabytes, number, percent
from servd.cli.render.line import Span, StyledLine, padded

_NOT_NAMED = "the driver does not tell which processes: servd runs in a container"

GpuRow = Mapping[str, Any]


def _memory(gpu: GpuRow) -> str:
    """Returns `38.2/79.6G`; a dash where the driver does not tell (a total of 0)."""
    if not gpu["memory_bytes"]:
        return "-"
    return f"{gigabytes(gpu['used_bytes'])}/{gigabytes(gpu['memory_bytes'])}G"


_COLUMNS: Sequence[tuple[str, Callable[[GpuRow], str]]] = (
    ("MEMORY", _memory),
    ("UTIL%", lambda gpu: percent(gpu["utilization"])),
    ("TEMP C", lambda gpu: number(gpu["temperature_celsius"])),
    ("POWER W", lambda gpu: number(gpu["power_watts"])),
    ("ECC ERRORS", lambda gpu: number(gpu["ecc_errors"])),
)


def gpu_lines(listed: Mapping[str, Any], width: int, *, by_daemon: bool) -> list[StyledLine]:
    """Returns a row for each GPU, and below it what holds its memory. `by_daemon`: listed by the
    daemon, which knows its workers.
    """
    gpus = listed["gpus"]
    if not gpus:
        return [StyledLine.of("This machine has no GPUs.")]
    table = [
        [title for title, _ in _COLUMNS],
        *([cell(gpu) for _, cell in _COLUMNS] for gpu in gpus),
    ]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    names = [("GPU", "MODEL"), *((gpu["number"] or gpu["id"], gpu["name"]) for gpu in gpus)]
    first, second = (max(map(cell_len, column)) for column in zip(*names, strict=True))
    lines: list[StyledLine] = []
    for at, ((name, model), cells) in enumerate(zip(names, table, strict=True)):
        parts = [padded(name, first, left=True), padded(model, second, left=True)]
        parts += [padded(text, size, left=False) for text, size in zip(cells, widths, strict=True)]
        row = StyledLine.of("  ".join(parts))
        lines.append(row.restyled("dim") if at == 0 else row)
        if at:
            tells_strangers = by_daemon and listed["names_processes"]
            lines += _below(gpus[at - 1], by_daemon=tells_strangers)
    if not listed["names_processes"]:
        lines.append(StyledLine.of(Span(_NOT_NAMED, "yellow")))
    return [line if line.width <= width else line.fitted(width) for line in lines]


def _below(gpu: GpuRow, *, by_daemon: bool) -> Iterator[StyledLine]:
    if gpu["parent"]:
        yield StyledLine.of(Span(f"    instance of {gpu['parent']}", "dim"))
    elif gpu["number"]:
        yield StyledLine.of(Span(f"    {gpu['id']}", "dim"))
    if gpu["trouble"]:
        yield StyledLine.of(Span(f"    {gpu['trouble']}", "bold red"))
    if gpu.get("quarantine"):  # an older daemon has none
        text = f"    in quarantine: {gpu['quarantine']} (servd gpus release {gpu['id']})"
        yield StyledLine.of(Span(text, "bold red"))
    for holder in sorted(gpu["holders"], key=lambda one: -(one["memory_bytes"] or 0)):
        yield StyledLine.of(f"    {_holder(holder, by_daemon=by_daemon)}")


def _holder(holder: GpuRow, *, by_daemon: bool) -> str:
    """Returns `llm worker 0, pid 812 (python): 61.2G`; a stranger is told as one."""
    size = gigabytes(holder["memory_bytes"])
    amount = "-" if size == "-" else f"{size}G"
    process = f"pid {holder['pid']}" + (f" ({holder['name']})" if holder["name"] else "")
    if holder["service"] is None:
        return f"{process}{', not of this servd' if by_daemon else ''}: {amount}"
    return f"{holder['service']} worker {holder['worker']}, {process}: {amount}"
