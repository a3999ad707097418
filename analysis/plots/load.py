"""Load over time by pool: requests waiting and running, KV cache in use, tokens produced; replicas if they change."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from analysis.plots import style, timeline
from analysis.view import View

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.figure import Figure

CAPTION = (
    "Mean number of requests waiting and running, share of the KV cache in use, and output tokens per second, by pool; "
    "where plans change them, the replicas that are there."
)
PANELS = (
    ("queue", "Waiting", "Requests in queue", 1.0),
    ("running", "Running", "Requests in a batch", 1.0),
    ("kv_use", "KV cache", "KV blocks in use [%]", 100.0),
    ("tokens_per_s", "Token rate", "Output [tokens/s]", 1.0),
)
REPLICAS = ("replicas", "Replicas", "Provisioned", 1.0)  #: one more, of runs with a plan


def draw(view: View, width: float = style.PAGE) -> Figure:
    """Panels over time: queue, running, KV use, token rate, and replicas where they change."""
    end_s = float(timeline.edges_s(view)[-1])
    time = style.TimeAxis.of(end_s)
    planned = any(len(each) and np.ptp(each) > 0.0 for each in timeline.series(view, "replicas"))
    shown = (*PANELS, REPLICAS) if planned else PANELS
    figure, panels = style.grid_of_panels(len(shown), width, height=1.55, columns=2)
    length = view.timeline["bin_s"]
    rate = np.divide(view.timeline["output_tokens"], length, out=np.zeros(len(length)), where=length > 0)
    with_rate = View(view.requests, view.timeline | {"tokens_per_s": rate}, view.gaps, view.summary)
    legend: dict[str, Artist] = {}
    for panel, (name, title, label, scale) in zip(panels, shown):
        panel.set_title(title)
        panel.set_ylabel(label)
        legend |= timeline.lines(panel, view, [scale * c for c in timeline.series(with_rate, name)], time)
        if name == "kv_use":
            panel.set_ylim(0.0, 102.0)
        elif panel.get_ylim()[1] < 1.0:
            panel.set_ylim(0.0, 1.0)
        time.label(panel, end_s or 1.0)
    style.legend_below(figure, list(legend.values()), list(legend))
    return figure
