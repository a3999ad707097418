"""Figures of studies: lines over one quantity, grouped bars, and tornadoes of inputs varied one at a time."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from analysis.study import Chart

MOST_BARS = 10  #: of a tornado: the widest
_BESIDE = 0.8  #: of the room of a category that its bars take together


def write(charts: Sequence[Chart], folder: Path) -> dict[str, str]:
    """Draw each chart into `folder`, NAME.svg and NAME.png; return the data URI of each by name."""
    folder.mkdir()
    drawn = {}
    with style.house():
        for chart in charts:
            svg = folder / f"{chart.name}.svg"
            style.save(_draw(chart), svg)
            drawn[chart.name] = "data:image/svg+xml;base64," + base64.b64encode(svg.read_bytes()).decode("ascii")
    return drawn


def _draw(chart: Chart) -> Any:
    draw = {"lines": _lines, "bars": _bars, "tornado": _tornado}[chart.kind]
    tornado = chart.kind == "tornado"
    rows = min(MOST_BARS, max(map(len, chart.panels.values()), default=1))
    height = 0.7 + 0.16 * rows if tornado else 2.0
    figure, panels = style.grid_of_panels(
        len(chart.panels), style.PAGE, height, 1 if tornado or len(chart.panels) == 1 else 2
    )
    legend: dict[str, Any] = {}
    for axes, (title, series) in zip(panels, chart.panels.items()):
        axes.set_title(title)
        axes.set_xlabel(chart.x_label)
        axes.set_ylabel(chart.y_label)
        if "x" in chart.log:
            axes.set_xscale("log", base=2 if chart.kind == "lines" else 10)
        if "y" in chart.log:
            axes.set_yscale("log")
        legend |= draw(axes, series, chart, title)
    if legend:
        style.legend_below(figure, list(legend.values()), list(legend))
    return figure


def _lines(axes: Axes, series: Mapping[str, Any], chart: Chart, title: str) -> dict[str, Any]:
    if chart.level is not None:
        axes.axhline(chart.level, color="#888888", linewidth=0.8)
    return {
        name: axes.plot(xs, ys, marker=".", **style.line_style(index))[0]
        for index, (name, (xs, ys)) in enumerate(series.items())
    }


def _bars(axes: Axes, series: Mapping[str, Any], chart: Chart, title: str) -> dict[str, Any]:
    width, legend = _BESIDE / max(1, len(series)), {}
    for index, (name, (categories, values)) in enumerate(series.items()):
        at = [place + (index - (len(series) - 1) / 2) * width for place in range(len(categories))]
        heights = [float("nan") if value is None else value for value in values]
        legend[name] = axes.bar(at, heights, width, color=style.colour(index), **style.hatching(index))
        axes.set_xticks(range(len(categories)), categories)
    if chart.level is not None:
        axes.axhline(chart.level, color="#888888", linewidth=0.8)
    return legend


def _tornado(axes: Axes, series: Mapping[str, Any], chart: Chart, title: str) -> dict[str, Any]:
    """One bar an input, from what its low to what its high value gives; the widest on top."""
    base = (chart.base or {})[title]
    order = sorted(series, key=lambda name: abs(series[name][1] - series[name][0]))[-MOST_BARS:]
    for place, name in enumerate(order):
        for value, index in zip(series[name], (0, 1)):
            axes.barh(place, value - base, left=base, color=style.colour(index), height=0.7)
    axes.set_yticks(range(len(order)), order)
    axes.axvline(base, color="#000000", linewidth=0.8)
    if chart.level is not None:
        axes.axvline(chart.level, color="#888888", linewidth=0.8, linestyle=":")
    return {}
