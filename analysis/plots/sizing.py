"""xPUs that training, fine-tuning and inference need, by the size of the model."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.plots import style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

JOBS = {"training": "Training", "fine_tuning": "Full fine-tuning", "lora": "LoRA", "inference": "Inference"}
MARKERS = ("o", "s", "^", "D")


def draw(rows: Sequence[dict[str, Any]], xpu: str, width: float = style.ONE_COLUMN) -> Figure:
    """One panel, both axes logarithmic; a job that a model's memory or SLO rules out has no point.

    Args:
        rows: of each model `params`, and the xPUs of each of `JOBS` as ``JOB_xpus``, None where there are none.
        xpu: what is counted.
        width: of the figure [inch].
    """
    figure, (axes,) = style.grid_of_panels(1, width, height=2.4, columns=1)
    for index, (job, label) in enumerate(JOBS.items()):
        known = sorted((row["params"] / 1e9, row[f"{job}_xpus"]) for row in rows if row[f"{job}_xpus"] is not None)
        if known:
            params, xpus = zip(*known)
            axes.plot(params, xpus, label=label, marker=MARKERS[index], markersize=3.5, **style.line_style(index))
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("Parameters [10$^9$]")
    axes.set_ylabel(f"Number of {xpu}")
    style.legend_below(figure, *axes.get_legend_handles_labels())
    return figure


def write(folder: Path, rows: Sequence[dict[str, Any]], xpu: str) -> None:
    """Write sizing.svg, sizing.png, and sizing.csv with the rows."""
    with style.house():
        style.save(draw(rows, xpu), folder / "sizing.svg")
    with (folder / "sizing.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
