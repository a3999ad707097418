"""How users fared over time: SLO attainment and token-timeline QoE of arrivals in a rolling window, by pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from analysis.plots import style
from analysis.view import View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CAPTION = (
    "SLO attainment and mean token-timeline QoE of the requests that arrived within a rolling window of one twentieth "
    "of the run, by the pool that served them; “all” includes requests that no pool took. Lost requests count as "
    "missed. Grey: warm-up, not counted elsewhere."
)
WINDOWS = 300
#: Length of the window as a share of the run.
WINDOW_SHARE = 0.05


def draw(view: View, width: float = style.PAGE) -> Figure:
    """SLO attainment and token QoE over time."""
    end_s = float(view.summary["total"]["window"]["end_s"] or 0.0)
    time = style.TimeAxis.of(end_s)
    figure, axes = style.grid_of_panels(2, width, height=1.75, columns=2)
    legend: dict[str, Artist] = {}
    for panel, (metric, title, scale, label) in zip(
        axes,
        (
            ("slo_met", "SLO attainment", 100.0, "Requests within SLO [%]"),
            ("token_qoe", "Token-timeline QoE", 1.0, "Mean QoE [0 to 1]"),
        ),
    ):
        panel.set_title(title)
        panel.set_ylabel(label)
        time.label(panel, end_s or 1.0)
        style.shade_warmup(panel, float(view.summary["total"]["window"]["warmup_s"] or 0.0), time)
        for index, name in enumerate(view.pools):
            x, y = rolling_mean(view, metric, view.requests["pool"] == index, end_s)
            (legend[name],) = panel.plot(x / time.seconds, scale * y, **style.line_style(index))
        if len(view.pools) > 1:
            x, y = rolling_mean(view, metric, np.ones(len(view.requests["pool"]), dtype=np.bool_), end_s)
            (legend["all"],) = panel.plot(x / time.seconds, scale * y, **style.ALL_STYLE)
        _zoom(panel, scale)
    style.legend_below(figure, list(legend.values()), list(legend))
    return figure


def _zoom(axes: Axes, scale: float) -> None:
    """Limit the axis to the tenths from below the worst value up to all."""
    worst = np.fmin.reduce(np.concatenate([np.asarray(line.get_ydata()) for line in axes.lines])) / scale
    bottom = 0.0 if np.isnan(worst) else max(0.0, np.floor(10.0 * worst - 1.0) / 10.0)
    axes.set_ylim(scale * bottom, scale * (1.0 + 0.03 * (1.0 - bottom)))


def rolling_mean(
    view: View, metric: str, mask: npt.NDArray[np.bool_], end_s: float
) -> tuple[style.Floats, style.Floats]:
    """Mean of a metric over the arrivals within a window around each of `WINDOWS` instants; NaN where none arrived."""
    arrival = view.requests["arrival_s"][mask]
    sums = np.concatenate(([0.0], np.cumsum(view.requests[metric][mask].astype(np.float64))))
    last = float(view.requests["arrival_s"][-1]) if len(view.requests["arrival_s"]) else end_s
    centres = np.linspace(0.0, last, WINDOWS)
    half = max(WINDOW_SHARE * last / 2.0, 1e-9)
    first = np.searchsorted(arrival, centres - half, side="left")
    beyond = np.searchsorted(arrival, centres + half, side="right")
    count = (beyond - first).astype(np.float64)
    mean = np.divide(sums[beyond] - sums[first], count, out=np.full(WINDOWS, np.nan), where=count > 0)
    return centres, mean
