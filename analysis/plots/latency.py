"""Latency distributions of counted, completed requests by pool, with the SLO bounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis import gaps
from analysis.plots import style
from analysis.view import View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "Latency distributions of completed, counted requests by pool, measured at the client. Vertical lines: SLO bounds. "
    "TTFT: time to first token; TPOT: mean time per output token after the first, per request; ITL: every gap between "
    "two tokens; E2E: time to the last token."
)
PANELS = (
    ("ttft_s", "Time to first token", "TTFT [s]"),
    ("tpot_s", "Time per output token", "TPOT [s]"),
    ("itl_s", "Inter-token latency", "ITL [s]"),
    ("e2e_s", "End to end", "E2E latency [s]"),
)


def draw(view: View, width: float = style.PAGE) -> Figure:
    """Cumulative distributions of TTFT, TPOT, ITL and E2E."""
    figure, axes = style.grid_of_panels(len(PANELS), width, height=1.75, columns=2)
    legend: dict[str, Artist] = {}
    for panel, (metric, title, label) in zip(axes, PANELS):
        panel.set_title(title)
        drawn = _curves(panel, view, metric)
        legend |= drawn
        if not drawn:
            style.say_nothing_known(panel, "no request to show")
            continue
        legend |= _bounds(panel, view, metric)
        panel.set_xscale("log")
        panel.set_xlabel(label)
        panel.set_ylabel("Share [%]")
        panel.set_ylim(0.0, 101.0)
        panel.set_yticks([0, 25, 50, 75, 100])
        _readable_ticks(panel)
    style.legend_below(figure, list(legend.values()), list(legend))
    return figure


def _curves(axes: Axes, view: View, metric: str) -> dict[str, Artist]:
    """One curve a pool, and one over all where there are several. Returns legend entries."""
    levels = style.cdf_levels()
    entries: dict[str, Artist] = {}
    curves = {name: _quantiles(view, metric, levels, index) for index, name in enumerate(view.pools)}
    known = {name: curve for name, curve in curves.items() if curve is not None}
    for index, name in enumerate(view.pools):
        if name in known:
            (entries[name],) = axes.plot(known[name], levels, **style.line_style(index))
    everyone = _quantiles(view, metric, levels, None) if len(known) > 1 else None
    if everyone is not None:
        (entries["all"],) = axes.plot(everyone, levels, zorder=1.5, **style.ALL_STYLE)
    return entries


def _quantiles(view: View, metric: str, levels: style.Floats, pool: int | None) -> style.Floats | None:
    """Quantiles of one metric over one pool (or all), as many as a curve needs; None without values above zero."""
    if metric == "itl_s":
        sample = gaps.merge(s for (p, _), s in sorted(view.gaps.items()) if pool is None or p == pool)
        points = gaps.percentiles(sample, levels)
    else:
        mask = view.done if pool is None else view.done & (view.requests["pool"] == pool)
        values = view.requests[metric][mask]
        values = values[~np.isnan(values)]
        points = np.percentile(values, levels) if len(values) else np.full(len(levels), np.nan)
    # a logarithmic axis has no place for zero: such gaps (tokens that arrive together) sit at its left edge
    return None if np.isnan(points).all() or points[-1] <= 0.0 else np.where(points > 0.0, points, np.nan)


def _bounds(axes: Axes, view: View, metric: str) -> dict[str, Artist]:
    """SLO bounds as vertical lines; ITL is held against the bound on TPOT. Returns legend entries."""
    entries: dict[str, Artist] = {}
    for index, (name, bounds) in enumerate(view.slos.items()):
        bound = bounds["tpot_s" if metric == "itl_s" else metric]
        if bound is not None:
            dashes = style.DASHES[(index + 1) % len(style.DASHES)]
            label = "SLO" if len(view.slos) == 1 else f"SLO {name}"
            entries[label] = axes.axvline(bound, color="#777777", linewidth=0.9, linestyle=dashes, zorder=1)
    return entries


def _readable_ticks(axes: Axes) -> None:
    """Plain numbers on the logarithmic axis, and labels on minor ticks only where there is about one decade."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    low, high = axes.get_xlim()
    low = max(low, high / 1e5)
    axes.set_xlim(low, high)
    decades = np.log10(high / low)
    plain = FuncFormatter(lambda value, _: f"{value:g}")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0,) if decades > 2.5 else (1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(plain)
    axes.xaxis.set_minor_formatter(NullFormatter())
