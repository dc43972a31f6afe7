"""Plots of results, by matplotlib."""

from __future__ import annotations

from pathlib import Path

from harness.stats import interval
from harness.tables import Result

PANELS = 4
"""The most panels in one picture."""


def plots(result: Result, folder: Path) -> list[str]:
    """Writes one result as pictures with a panel for each column; returns their names.

    Raises ImportError where matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    names: list[str] = []
    for part, start in enumerate(range(0, len(result.columns), PANELS)):
        columns = result.columns[start : start + PANELS]
        servers = [name for name in result.servers() if result.samples.get(name)]
        if len(servers) < 2:
            return names
        figure = Figure(figsize=(3.4 * len(columns) + 1, 0.36 * len(servers) + 1.1))
        for axes, column in zip(
            figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True
        ):
            for place, server in enumerate(servers):
                values = result.values(server, column)
                if not values:
                    continue
                middle, low, high = interval(values)
                colour = "#3f51b5" if server.startswith("servd") else "#b0b4c8"
                error = [[middle - low], [high - middle]]
                axes.barh(place, middle, color=colour, xerr=error, ecolor="#333333", capsize=2)
            axes.set_title(column.title, fontsize=9)
            axes.set_yticks(range(len(servers)), servers if axes is figure.axes[0] else [])
            axes.set_ylim(len(servers) - 0.5, -0.5)
            axes.tick_params(labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        name = f"{result.name}.png" if part == 0 else f"{result.name}-{part + 1}.png"
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
        names.append(name)
    return names
