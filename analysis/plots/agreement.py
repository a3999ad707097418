"""A measured run and its simulation in one figure: request by request, and over time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.agreement import Side
from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SCATTERS = (("ttft_s", "TTFT", "s", 1.0), ("tpot_s", "TPOT", "ms", 1e3), ("e2e_s", "E2E", "s", 1.0))
OVER_TIME = (
    ("running", "Running", "Requests in a batch", 1.0),
    ("waiting", "Waiting", "Requests in queue", 1.0),
    ("tokens_per_s", "Token rate", "Output [tokens/s]", 1.0),
    ("kv_use", "KV cache", "KV blocks in use [%]", 100.0),
)
LABELS = ("measured", "simulated")


@dataclass(frozen=True, slots=True)
class Lines:
    """One side over time.

    Attributes:
        start_s, end_s: when each request arrived and ended [s].
        t_s: times of the values below [s].
        values: by name in OVER_TIME, as far as known.
    """

    start_s: style.Floats
    end_s: style.Floats
    t_s: style.Floats = field(default_factory=lambda: np.empty(0))
    values: Mapping[str, style.Floats] = field(default_factory=dict)


def write(
    folder: Path, measured: Side, simulated: Side, lines: tuple[Lines, Lines], width: float = style.PAGE
) -> list[Path]:
    """Draw the figure into a folder as ``agreement.svg`` and ``agreement.png``."""
    svg = folder / "agreement.svg"
    with style.house():
        style.save(draw(measured, simulated, lines, width), svg)
    return [svg, svg.with_suffix(".png")]


def draw(measured: Side, simulated: Side, lines: tuple[Lines, Lines], width: float = style.PAGE) -> Figure:
    """Each request's measured time against its simulated one; then requests in flight and what the engine logged."""
    logged = [row for row in OVER_TIME if all(row[0] in side.values for side in lines)]
    figure, axes = style.grid_of_panels(len(SCATTERS) + 1 + len(logged), width, height=1.75, columns=2)
    for panel, (key, title, unit, scale) in zip(axes, SCATTERS):
        panel.set_title(f"{title} of each request")
        _scatter(panel, scale * getattr(measured, key), scale * getattr(simulated, key), unit)
    end_s = max(float(side.end_s.max()) for side in lines)
    time = style.TimeAxis.of(end_s)
    panel = axes[len(SCATTERS)]
    panel.set_title("In flight")
    panel.set_ylabel("Requests")
    for index, side in enumerate(lines):
        t, level = _in_flight(side)
        panel.step(t / time.seconds, level, where="post", label=LABELS[index], **_line(index))
    handles, labels = panel.get_legend_handles_labels()
    for panel, (name, title, label, scale) in zip(axes[len(SCATTERS) + 1 :], logged):
        panel.set_title(title)
        panel.set_ylabel(label)
        for index, side in enumerate(lines):
            panel.plot(side.t_s / time.seconds, scale * side.values[name], **_line(index))
    for panel in axes[len(SCATTERS) :]:
        panel.set_ylim(bottom=0.0)
        time.label(panel, end_s or 1.0)
    style.legend_below(figure, handles, labels)
    return figure


def _line(index: int) -> dict[str, Any]:
    return {**style.line_style(index), "linewidth": 1.0}


def _scatter(panel: Axes, measured: style.Floats, simulated: style.Floats, unit: str) -> None:
    """One dot a request, and the line on which both agree."""
    panel.set_xlabel(f"Measured [{unit}]")
    panel.set_ylabel(f"Simulated [{unit}]")
    known = np.isfinite(measured) & np.isfinite(simulated)
    if not known.any():
        style.say_nothing_known(panel, "no request with more than one token")
        return
    x, y = measured[known], simulated[known]
    if len(x) > style.MAX_POINTS:
        kept = np.linspace(0, len(x) - 1, style.MAX_POINTS).astype(np.int64)
        x, y = x[kept], y[kept]
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    margin = 0.04 * (high - low) or 0.04 * high or 1.0
    limits = (max(0.0, low - margin), high + margin)
    panel.plot(limits, limits, **style.ALL_STYLE)
    panel.plot(x, y, "o", markersize=1.8, markeredgewidth=0.0, alpha=0.6, color=style.colour(1))
    panel.set_xlim(limits)
    panel.set_ylim(limits)


def _in_flight(side: Lines) -> tuple[style.Floats, style.Floats]:
    """Requests in flight as a step function with at most `style.MAX_POINTS` corners."""
    moments = np.concatenate((side.start_s, side.end_s))
    change = np.concatenate((np.ones(len(side.start_s)), -np.ones(len(side.end_s))))
    order = np.argsort(moments, kind="stable")
    t, level = moments[order], np.cumsum(change[order])
    if len(t) > style.MAX_POINTS:
        kept = np.linspace(0, len(t) - 1, style.MAX_POINTS).astype(np.int64)
        t, level = t[kept], level[kept]
    return t, level
