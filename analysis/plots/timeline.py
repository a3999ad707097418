"""Quantities of the timeline over time by pool, as lines or stacked areas of at most `style.MAX_BINS` bins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.plots import style
from analysis.view import View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes


def edges_s(view: View) -> style.Floats:
    """Edges of the drawn bins [s]."""
    first = view.timeline["pool"] == 0
    start, length = view.timeline["t_s"][first], view.timeline["bin_s"][first]
    if not len(start):
        return np.zeros(1)
    return np.append(start[style.bin_edges(len(start))], start[-1] + length[-1])


def series(view: View, name: str) -> list[style.Floats]:
    """Time-weighted mean of a timeline column in each drawn bin, one array a pool."""
    means = []
    for pool in range(len(view.pools)):
        mine = view.timeline["pool"] == pool
        length, values = view.timeline["bin_s"][mine], view.timeline[name][mine].astype(np.float64)
        cuts = style.bin_edges(len(length))
        if not len(cuts):
            means.append(np.empty(0))
            continue
        weight = np.add.reduceat(length, cuts)
        means.append(
            np.divide(np.add.reduceat(values * length, cuts), weight, out=np.zeros_like(weight), where=weight > 0)
        )
    return means


def stack(axes: Axes, view: View, bands: list[style.Floats], time: style.TimeAxis) -> dict[str, Artist]:
    """Stacked areas, one a pool; of a pool, what is unknown is left out, and said. Returns legend entries."""
    edges = edges_s(view) / time.seconds
    entries: dict[str, Artist] = {}
    base = np.zeros(len(edges) - 1)
    for index, (name, band) in enumerate(zip(view.pools, bands)):
        top = base + np.nan_to_num(band)
        entries[f"{name} (in part unknown)" if np.isnan(band).any() else name] = axes.stairs(
            top, edges, baseline=base, fill=True, facecolor=style.colour(index), **style.hatching(index)
        )
        base = top
    axes.set_ylim(bottom=0.0)
    return entries


def lines(axes: Axes, view: View, curves: list[style.Floats], time: style.TimeAxis) -> dict[str, Artist]:
    """Step lines, one a pool. Returns legend entries."""
    edges = edges_s(view) / time.seconds
    entries: dict[str, Artist] = {}
    for index, (name, curve) in enumerate(zip(view.pools, curves)):
        entries[name] = axes.stairs(curve, edges, baseline=None, linewidth=1.0, **style.line_style(index))
    axes.set_ylim(bottom=0.0)
    return entries
