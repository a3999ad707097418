"""What a model took over time: inference, training and all stages, and where inference overtakes training."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: panel: key, label, and what its values are divided by
PANELS = (
    ("energy_j", "Energy [MWh]", 3.6e9),
    ("carbon_g", "Carbon [t CO$_2$e]", 1e6),
    ("usd", "Cost [10$^6$ USD]", 1e6),
)
GROUPS = {"inference": "Inference", "training": "Training, tuning, retraining", "all": "All stages"}


def draw(curves: Mapping[str, Any], marks: Mapping[str, float | None], width: float = style.PAGE) -> Figure:
    """A panel each for energy, carbon and dollars.

    Args:
        curves: `day` [d], and per group and key ``GROUP_KEY``, cumulative; None where not known.
        marks: day on which inference overtakes training, by key; None where it does not, or nobody knows.
        width: of the figure [inch].
    """
    figure, panels = style.grid_of_panels(len(PANELS), width, height=2.2, columns=3)
    handles: dict[str, Any] = {}
    for axes, (key, label, unit) in zip(panels, PANELS):
        for index, (group, name) in enumerate(GROUPS.items()):
            values = curves[f"{group}_{key}"]
            if values is not None:
                look = style.ALL_STYLE if group == "all" else style.line_style(index)
                (handles[name],) = axes.plot(curves["day"], [value / unit for value in values], **look)
        axes.set_xlabel("Day of service")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0.0)
        if not axes.lines:
            style.say_nothing_known(axes, "not known")
        elif marks[key] is not None:
            _mark(axes, marks[key], curves["day"][-1])
    style.legend_below(figure, list(handles.values()), list(handles))
    return figure


def _mark(axes: Axes, day: float, last: float) -> None:
    """A line on the day of the crossing, and which day that is, at the foot of the panel, where curves are few."""
    axes.axvline(day, color="#666666", linewidth=0.8, linestyle=":")
    right = day < 0.7 * last
    at, where = (2 if right else -2, 3), (day, 0.0)
    aligned = {"ha": "left" if right else "right", "va": "bottom", "fontsize": 7}
    axes.annotate(f"day {day:.0f}", where, at, ("data", "axes fraction"), "offset points", **aligned)


def write(folder: Path, curves: Mapping[str, Any], marks: Mapping[str, float | None]) -> None:
    """Write lifecycle.svg, lifecycle.png, and lifecycle.csv with the curves."""
    with style.house():
        style.save(draw(curves, marks), folder / "lifecycle.svg")
    known: dict[str, Sequence[float]] = {key: values for key, values in curves.items() if values is not None}
    with (folder / "lifecycle.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(known)
        writer.writerows(zip(*known.values()))
