"""Sites with a solar plant, a battery or a power budget over time: where their power comes from, and what is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from analysis.plots import style
from analysis.view import View
from sim.results import Columns

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "What sites with a plant or a power budget of their own draw, where it comes from, and what their batteries hold "
    "beside the carbon intensity of the grid."
)
MOST_SITES = 4  #: that a figure shows
_LINES: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("load_kw", "load", {"color": "#000000", "linewidth": 1.0}),
    ("import_kw", "import", {"color": "#0072B2", "linewidth": 1.0, "linestyle": (0, (4, 1.5))}),
    ("budget_kw", "budget", {"color": "#D55E00", "linewidth": 0.9, "linestyle": (0, (1, 1.2))}),
)


def draw(view: View, width: float = style.PAGE) -> Figure:
    """Two panels a site: power; content of the battery, and intensity."""
    steps = view.sites or {}
    names = list(dict.fromkeys(steps.get("site", np.empty(0)).tolist()))[:MOST_SITES]
    figure, panels = style.grid_of_panels(2 * len(names), width, height=1.8, columns=2)
    legend: dict[str, Artist] = {}
    for name, power, stored in zip(names, panels[::2], panels[1::2]):
        mine = steps["site"] == name
        site = {key: values[mine] for key, values in steps.items()}
        end_s = float(site["t_s"][-1] + site["step_s"][-1])
        time = style.TimeAxis.of(end_s)
        edges = np.append(site["t_s"][style.bin_edges(len(site["t_s"]))], end_s) / time.seconds
        legend |= _power(power, site, edges) | _stored(stored, site, edges)
        power.set_title(f"Power of {name}")
        stored.set_title(f"Battery of {name}, and grid")
        for panel in (power, stored):
            time.label(panel, end_s)
    style.legend_below(figure, list(legend.values()), list(legend))
    return figure


def _power(axes: Axes, site: Columns, edges: style.Floats) -> dict[str, Artist]:
    entries: dict[str, Artist] = {}
    solar = _means(site, "solar_kw")
    if solar.any():
        entries["solar"] = axes.stairs(solar, edges, fill=True, facecolor="#F0E442", edgecolor="none")
    for column, label, line in _LINES:
        if column in site and np.isfinite(site[column]).any():
            entries[label] = axes.stairs(_means(site, column), edges, baseline=None, **line)
    axes.set_ylabel("Power [kW]")
    axes.set_ylim(bottom=0.0)
    return entries


def _stored(axes: Axes, site: Columns, edges: style.Floats) -> dict[str, Artist]:
    stored = _means(site, "stored_kwh")
    entries: dict[str, Artist] = {
        "stored": axes.stairs(stored, edges, fill=True, facecolor="#009E73", edgecolor="white", hatch="////")
    }
    axes.set_ylabel("Stored [kWh]")
    axes.set_ylim(0.0, 1.05 * float(stored.max()) or 1.0)
    other = axes.twinx()
    line = {"color": "#CC79A7", "linewidth": 1.0, "linestyle": (0, (5, 1.5, 1, 1.5))}
    entries["intensity"] = other.stairs(_means(site, "intensity_g_per_kwh"), edges, baseline=None, **line)
    other.set_ylabel("Intensity [g CO$_2$e/kWh]")
    other.set_ylim(bottom=0.0)
    other.grid(False)
    return entries


def _means(site: Columns, name: str) -> style.Floats:
    """Time-weighted mean of a column in each drawn bin."""
    length, cuts = site["step_s"], style.bin_edges(len(site["step_s"]))
    means: style.Floats = np.add.reduceat(site[name] * length, cuts) / np.add.reduceat(length, cuts)
    return means
