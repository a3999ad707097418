"""Cost of a million tokens by volume: APIs, rent and hardware of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from analysis.plots import style
from sim.units import TOKENS_PER_MTOK

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Curve = tuple[style.Floats, style.Floats, style.Floats]  #: central, low and high [USD/day]


def draw(
    volume: style.Floats, curves: Mapping[str, Curve], marks: Sequence[float], width: float = style.PAGE
) -> Figure:
    """One panel, both axes logarithmic: lines, bands of their intervals, and break-even volumes as thin lines.

    Args:
        volume: [tokens/day]; curves: cost a day at these, by name [USD]; marks: volumes to mark [tokens/day].
        width: of the figure [inch].
    """
    figure, (axes,) = style.grid_of_panels(1, width, height=2.8, columns=1)
    per_mtok = TOKENS_PER_MTOK / volume
    for at in marks:
        if volume[0] <= at <= volume[-1]:
            axes.axvline(at / TOKENS_PER_MTOK, color="#888888", linewidth=0.6)
    for index, (name, (central, low, high)) in enumerate(curves.items()):
        axes.plot(volume / TOKENS_PER_MTOK, central * per_mtok, label=name, **style.line_style(index))
        if (high > low).any():
            axes.fill_between(
                volume / TOKENS_PER_MTOK, low * per_mtok, high * per_mtok, color=style.colour(index), alpha=0.15, lw=0.0
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("Prompt and output tokens [10$^6$ a day]")
    axes.set_ylabel("USD per 10$^6$ tokens")
    style.legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def write(folder: Path, volume: style.Floats, curves: Mapping[str, Curve], marks: Sequence[float]) -> None:
    """Write breakeven.svg and breakeven.png."""
    with style.house():
        style.save(draw(volume, curves, marks), folder / "breakeven.svg")
