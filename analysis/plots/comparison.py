"""Routers in one figure: money against carbon, coloured by QoE, sized by the quality of answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.comparison import Cell, Column
from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PANELS = (
    ("Whole fleet, idle time included", "usd_per_1000_requests", "g_per_1000_requests"),
    ("Work alone", "usd_active_per_1000_requests", "g_active_per_1000_requests"),
)
COLOUR, SIZE = "token_qoe", "answer_quality"
SMALLEST, LARGEST, UNKNOWN_SIZE = 20.0, 110.0, 45.0  #: areas of markers [pt^2]
TOGETHER = 5.0  #: markers closer than this share one label [pt]
#: where a label may stand beside its marker [pt], the nearest first
PLACES = tuple(
    (float(r * np.cos(a)), float(r * np.sin(a))) for r in (9, 14, 20, 27, 35) for a in np.arange(0.4, 6.6, 0.5236)
)


def write(kind: str, folder: Path, columns: Sequence[Column], width: float = style.PAGE) -> list[Path]:
    """Draw the figure into a folder as ``comparison.svg`` and ``comparison.png``; none where it has nothing to show.

    Args:
        kind: what was compared: ``routers``.
        folder: of the results.
        columns: metrics of the comparison.
        width: of the figure [inch].
    """
    svg = folder / "comparison.svg"
    with style.house():
        style.save(draw(columns, width), svg)
    return [svg, svg.with_suffix(".png")]


def draw(columns: Sequence[Column], width: float = style.PAGE) -> Figure:
    """Two scatters, a colour bar, sizes and a key of numbers; bars are the paired 95 % intervals."""
    by_key = {column.metric.key: column for column in columns}
    names = list(columns[0].cells)
    figure, axes = style.grid_of_panels(2, width, height=2.9, columns=2)
    colours = _means(by_key[COLOUR], names)
    sizes, legend = _sizes(_means(by_key[SIZE], names))
    shown = None
    for panel, (title, x_key, y_key) in zip(axes, PANELS):
        panel.set_title(title)
        panel.set_xlabel("USD / 1,000 requests")
        panel.set_ylabel("g CO$_2$e / 1,000 requests")
        x, y = _means(by_key[x_key], names), _means(by_key[y_key], names)
        if not np.isfinite(x + y).any():
            style.say_nothing_known(panel, "cost or carbon unknown")
            continue
        bars = {"fmt": "none", "ecolor": "#999999", "elinewidth": 0.6, "zorder": 1}
        panel.errorbar(x, y, _halves(by_key[y_key], names), _halves(by_key[x_key], names), **bars)
        low, high = float(np.nanmin(colours)), float(np.nanmax(colours))
        shown = panel.scatter(
            x, y, sizes, colours, cmap="viridis", vmin=low, vmax=max(high, low + 1e-3), edgecolor="black", lw=0.4
        )
        panel.margins(0.12)
    if shown is not None:
        figure.colorbar(shown, ax=axes, label="Token-timeline QoE", fraction=0.03, pad=0.02)
    _key(figure, names, legend)
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # labels are placed in pixels: the panels stay where they are
    for panel, (_, x_key, y_key) in zip(axes, PANELS):
        _label(panel, _means(by_key[x_key], names), _means(by_key[y_key], names), sizes)
    return figure


def _means(column: Column, names: Sequence[str]) -> style.Floats:
    """Means of the alternatives; NaN where not known of every seed."""
    cells = (column.cells[name] for name in names)
    return np.array([np.nan if c.mean is None or c.verdict == "unknown" else c.mean.mean for c in cells])


def _halves(column: Column, names: Sequence[str]) -> style.Floats:
    def half(cell: Cell) -> float:
        return cell.difference.half_width or 0.0 if cell.difference is not None else 0.0

    return np.array([half(column.cells[name]) for name in names])


def _sizes(quality: style.Floats) -> tuple[style.Floats, Mapping[str, float]]:
    """Areas of markers, by what part of the range of quality they reach; and what to say of it."""
    known = quality[np.isfinite(quality)]
    if not len(known):
        return np.full(len(quality), UNKNOWN_SIZE), {"quality unknown": UNKNOWN_SIZE}
    low, high = float(known.min()), float(known.max())
    span = max(high - low, 0.01)  # a hundredth of a point is no difference to be seen
    areas = SMALLEST + (LARGEST - SMALLEST) * (quality - low) / span
    legend = {
        f"{100 * value:.1f} % correct": SMALLEST + (LARGEST - SMALLEST) * (value - low) / span
        for value in sorted({low, (low + high) / 2, high})
    }
    if len(known) < len(quality):
        legend["quality unknown"] = UNKNOWN_SIZE
    return np.where(np.isfinite(areas), areas, UNKNOWN_SIZE), legend


def _key(figure: Figure, names: Sequence[str], sizes: Mapping[str, float]) -> None:
    """Numbers and names below the panels, with the sizes of markers."""
    from matplotlib.lines import Line2D

    marks: dict[str, Any] = {"linestyle": "", "markerfacecolor": "#bbbbbb", "markeredgecolor": "black"}
    entries = [(Line2D([], [], linestyle=""), f"{number} {name}") for number, name in enumerate(names, 1)]
    entries += [
        (Line2D([], [], marker="o", markersize=area**0.5, markeredgewidth=0.4, **marks), text)
        for text, area in sizes.items()
    ]
    handles, labels = zip(*entries)
    style.legend_below(figure, handles, labels)


def _label(panel: Axes, x: style.Floats, y: style.Floats, areas: style.Floats) -> None:
    """Number the markers; those that lie on each other share a label, and labels keep clear of what is drawn."""
    known = [int(i) for i in np.flatnonzero(np.isfinite(x + y))]
    if not known:
        return
    points = 72.0 / panel.figure.get_dpi()
    at = {i: panel.transData.transform((x[i], y[i])) * points for i in known}
    taken = [(*at[i], 0.5 * areas[i] ** 0.5 + 1, 0.5 * areas[i] ** 0.5 + 1) for i in known]
    for group in _groups(at):
        text = _numbers([i + 1 for i in group])
        lines = text.split("\n")
        half = (2.2 * max(map(len, lines)) + 1.0, 3.8 * len(lines))
        centre = at[group[0]]
        dx, dy = _place(centre, half, taken, panel, points)
        taken.append((centre[0] + dx, centre[1] + dy, *half))
        panel.annotate(
            text,
            (x[group[0]], y[group[0]]),
            xytext=(dx, dy),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=6.5,
            arrowprops={"arrowstyle": "-", "linewidth": 0.4, "color": "#666666", "shrinkA": 0, "shrinkB": 2},
        )


def _groups(at: Mapping[int, Any]) -> list[list[int]]:
    """Markers that lie on each other, by the first of each heap."""
    heaps: list[list[int]] = []
    for i, place in at.items():
        near = (heap for heap in heaps if np.hypot(*(at[heap[0]] - place)) < TOGETHER)
        if (heap := next(near, None)) is not None:
            heap.append(i)
        else:
            heaps.append([i])
    return heaps


def _numbers(numbers: Sequence[int], a_line: int = 5) -> str:
    return "\n".join(", ".join(map(str, numbers[i : i + a_line])) for i in range(0, len(numbers), a_line))


def _place(
    centre: Any, half: tuple[float, float], taken: Sequence[tuple[float, ...]], panel: Axes, points: float
) -> tuple[float, float]:
    """The nearest place beside a marker where a label covers least of what is there."""
    box = panel.get_window_extent()
    edges = (box.x0 * points, box.x1 * points, box.y0 * points, box.y1 * points)

    def covered(place: tuple[float, float]) -> float:
        cx, cy = centre[0] + place[0], centre[1] + place[1]
        over = sum(
            max(0.0, half[0] + w - abs(cx - ox)) * max(0.0, half[1] + h - abs(cy - oy)) for ox, oy, w, h in taken
        )
        outside = (
            max(0.0, edges[0] - cx + half[0])
            + max(0.0, cx + half[0] - edges[1])
            + max(0.0, edges[2] - cy + half[1])
            + max(0.0, cy + half[1] - edges[3])
        )
        return over + 100.0 * outside

    places = [(dx * (1 + half[0] / 14), dy * (1 + half[1] / 14)) for dx, dy in PLACES]
    return min(places, key=covered)
