"""Power, carbon intensity of the grids, and emissions over time, stacked by pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.plots import style, timeline
from analysis.view import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CAPTION = (
    "Facility power (after PUE) and operational emissions stacked by pool, and the carbon intensity of the electricity "
    "at each pool's site."
)


def draw(view: View, width: float = style.PAGE) -> Figure:
    """Three panels over time: power, intensity, emissions."""
    end_s = float(timeline.edges_s(view)[-1])
    time = style.TimeAxis.of(end_s)
    figure, (power, grid, carbon) = style.grid_of_panels(3, width, height=1.8, columns=3)
    watts = timeline.series(view, "power_w")
    peak = max((float(np.nan_to_num(band).max()) for band in watts if len(band)), default=0.0)
    unit, scale = ("kW", 1e3) if peak >= 2e3 else ("W", 1.0)
    power.set_title("Facility power")
    power.set_ylabel(f"Power [{unit}]")
    legend = timeline.stack(power, view, [band / scale for band in watts], time)

    basis = view.summary["total"]["intensity_basis"]
    grid.set_title("Grid intensity" + (f" ({basis[0]})" if len(basis) == 1 else ""))
    grid.set_ylabel("Intensity [g CO$_2$e/kWh]")
    timeline.lines(grid, view, timeline.series(view, "intensity_g_per_kwh"), time)

    carbon.set_title("Operational emissions")
    carbon.set_ylabel("Emissions [g CO$_2$e/h]")
    timeline.stack(carbon, view, _grams_per_hour(view), time)
    for panel in (power, grid, carbon):
        time.label(panel, end_s or 1.0)
    style.legend_below(figure, list(legend.values()), list(legend))
    return figure


def _grams_per_hour(view: View) -> list[style.Floats]:
    """Emission rate by pool; the timeline holds grams a bin."""
    rates = view.timeline["carbon_g"] / view.timeline["bin_s"] * 3600.0
    return timeline.series(View(view.requests, view.timeline | {"rate": rates}, view.gaps, view.summary), "rate")
