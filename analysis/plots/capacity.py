"""Attainment against rate, of a fleet and of the same with a replica fewer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.capacity_answer import Capacity
from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_BELOW = 0.8  #: of the lowest capacity, from which rates are shown: what lies lower says nothing of capacity


def draw(capacities: Sequence[Capacity], target: float, width: float = style.ONE_COLUMN) -> Figure:
    """One curve a fleet, its short trials as a thin one, each seed as a dot, the target as a line and
    each bracket as a band."""
    figure, (axes,) = style.grid_of_panels(1, width, height=2.4, columns=1)
    axes.axhline(100.0 * target, color="black", linewidth=0.8, linestyle=":", label=f"target {100 * target:g} %")
    known = [each for each in capacities if each.tried]
    for index, each in enumerate(known):
        look = style.line_style(index)
        for loads, label, line in ((each.scouted, None, 0.5), (each.tried, each.name, 1.3)):
            rates, shares = [load.rate for load in loads], [100.0 * load.attainment for load in loads]
            axes.plot(rates, shares, label=label, **look | {"linewidth": line})
        for load in each.tried:
            seeds = [100.0 * share for share in load.attainments]
            axes.plot([load.rate] * len(seeds), seeds, ".", markersize=2.5, color=look["color"])
        if each.held is not None and each.not_held is not None:
            axes.axvspan(each.held.rate, each.not_held.rate, color=look["color"], alpha=0.25, linewidth=0)
    held = [each.held.rate for each in known if each.held is not None]
    above = [each.not_held.rate for each in known if each.not_held is not None]
    if held and above:
        axes.set_xlim(_BELOW * min(held), 1.15 * max(above))
    axes.set_ylim(0.0, 102.0)
    axes.set_xlabel("Requests [1/s]")
    axes.set_ylabel("Within the SLO [%]")
    style.legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def write(folder: Path, capacities: Sequence[Capacity], target: float) -> None:
    """Write capacity.svg and capacity.png."""
    with style.house():
        style.save(draw(capacities, target), folder / "capacity.svg")
