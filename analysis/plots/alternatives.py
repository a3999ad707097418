"""Alternatives against a baseline, one panel a metric: means with the intervals of their differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.comparison import Cell, Column
from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = {"better": style.COLOURS[2], "worse": style.COLOURS[1], "tie": "#888888", "reference": "#000000"}
ROW = 0.155  #: height of an alternative [inch]
ABREAST = 4


def write(kind: str, folder: Path, columns: Sequence[Column], width: float = style.PAGE) -> list[Path]:
    """Draw the figure into a folder as ``comparison.svg`` and ``comparison.png``.

    Args:
        kind: what was compared: ``techniques`` or ``applications``.
        folder: of the results.
        columns: metrics of the comparison.
        width: of the figure [inch].
    """
    svg = folder / "comparison.svg"
    with style.house():
        style.save(draw(columns, width), svg)
    return [svg, svg.with_suffix(".png")]


def draw(columns: Sequence[Column], width: float = style.PAGE) -> Figure:
    """Panels with one row an alternative; green is better than the baseline, orange worse, grey a tie."""
    names = list(columns[0].cells)
    figure, axes = style.grid_of_panels(len(columns), width, height=ROW * len(names) + 0.75, columns=ABREAST)
    abreast = ABREAST if width > style.ONE_COLUMN + 0.5 else 1
    for index, (panel, column) in enumerate(zip(axes, columns)):
        _panel(panel, column, names)
        panel.set_yticks(range(len(names)), names if index % abreast == 0 else [""] * len(names), fontsize=6.5)
    return figure


def _panel(panel: Axes, column: Column, names: Sequence[str]) -> None:
    scale = column.metric.scale
    for row, name in enumerate(names):
        cell = column.cells[name]
        if cell.mean is None:
            panel.text(
                0.02, row, "unknown", transform=panel.get_yaxis_transform(), va="center", fontsize=6, color="#666666"
            )
            continue
        look = COLOURS.get(cell.verdict, "#888888")
        panel.plot([scale * cell.mean.mean], [row], "o", markersize=3.5, color=look)
        panel.errorbar([scale * cell.mean.mean], [row], xerr=[scale * _half(cell)], color=look, elinewidth=0.8)
        if cell.verdict == "reference":
            panel.axvline(scale * cell.mean.mean, color="black", linewidth=0.6, linestyle=":")
    panel.set_title(" ".join(column.metric.label.split()), fontsize=7)
    panel.set_ylim(len(names) - 0.4, -0.6)
    panel.margins(x=0.12)
    panel.locator_params(axis="x", nbins=4)
    panel.tick_params(axis="x", labelsize=6.5)


def _half(cell: Cell) -> float:
    """Half the interval of the difference to the baseline, which has none itself; 0 where it is unknown."""
    return 0.0 if cell.difference is None else cell.difference.half_width or 0.0
