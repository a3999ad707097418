"""How far a simulation is from a measurement: signed errors of one run, and error tables over many.

An error is (simulated - measured) / measured; one that is unknown on either side, or of a measured 0, is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis import gaps
from analysis.metrics import PERCENTILES, distribution
from analysis.table import number
from sim.results import GapSample

Section = dict[str, Any]
Floats = npt.NDArray[np.float64]

STATISTICS = ("mean", *(f"p{q}" for q in PERCENTILES))
#: Metrics of a run: key, label, unit it is shown in, and how many of those make a second.
METRICS = (
    ("ttft_s", "TTFT", "s", 1.0),
    ("tpot_s", "TPOT", "ms", 1e3),
    ("itl_s", "ITL", "ms", 1e3),
    ("e2e_s", "E2E", "s", 1.0),
)
PIPE_WIDTH = 200  #: columns where the output is no terminal: cells are not folded then


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison, measured or simulated: a value a request, in the same order on both.

    Attributes:
        ttft_s, tpot_s, e2e_s: times of each request [s].
        makespan_s: from the first arrival to the last token [s].
        output_tokens: all of them.
        itl: gaps between tokens, or None where unknown.
    """

    ttft_s: Floats
    tpot_s: Floats
    e2e_s: Floats
    makespan_s: float
    output_tokens: int
    itl: GapSample | None = None


def relative_error(measured: float | None, simulated: float | None) -> float | None:
    """(simulated - measured) / measured, or None."""
    if measured is None or simulated is None or not (math.isfinite(measured) and math.isfinite(simulated)):
        return None
    return simulated / measured - 1.0 if measured else None


def beside(measured: float | None, simulated: float | None) -> Section:
    """Both values and the error."""
    return {"measured": measured, "simulated": simulated, "error": relative_error(measured, simulated)}


def compare(measured: Side, simulated: Side) -> Section:
    """Every statistic of TTFT, TPOT, ITL where both know it, and E2E, and the makespan."""
    section: Section = {}
    for key, _, _, _ in METRICS:
        sides = [_distribution(side, key) for side in (measured, simulated)]
        if all(side is not None for side in sides):
            known, ours = sides
            section[key] = {name: beside(known[name], ours[name]) for name in STATISTICS}  # type: ignore[index]
    section["makespan_s"] = beside(measured.makespan_s, simulated.makespan_s)
    return section


def throughput(measured: Side, simulated: Side) -> Section:
    """Output tokens per second over the makespan."""
    rates = [side.output_tokens / side.makespan_s if side.makespan_s > 0.0 else None for side in (measured, simulated)]
    return beside(*rates)


def _distribution(side: Side, key: str) -> Section | None:
    if key != "itl_s":
        return distribution(getattr(side, key))
    if side.itl is None or not len(side.itl.value_s):
        return None
    points = gaps.percentiles(side.itl, PERCENTILES)
    return {"mean": gaps.mean(side.itl)} | {f"p{q}": float(point) for q, point in zip(PERCENTILES, points)}


def absolute(rows: Sequence[Mapping[str, Section]], keys: Sequence[str]) -> Section:
    """Mean, median and largest absolute error of each key over rows of `beside` sections, and how many know it."""
    summary = {}
    for key in keys:
        errors = [abs(row[key]["error"]) for row in rows if row.get(key) and row[key]["error"] is not None]
        summary[key] = {
            "mean": float(np.mean(errors)) if errors else None,
            "median": float(np.median(errors)) if errors else None,
            "max": max(errors) if errors else None,
            "rows": len(errors),
        }
    return summary


# -- as text ----------------------------------------------------------------------------------------------------------


def percent(error: float | None) -> str:
    """A signed error in percent."""
    return "–" if error is None else f"{100.0 * error:+.1f} %"


def share(error: float | None) -> str:
    """An absolute error in percent."""
    return "–" if error is None else f"{100.0 * error:.1f} %"


def run_cells(section: Section, tokens_per_s: Section) -> list[list[str]]:
    """Cells of one run's table: metric, statistic, measured, simulated, error."""
    cells = []
    for key, label, unit, scale in METRICS:
        for name, pair in section.get(key, {}).items():
            cells.append([f"{label} [{unit}]", name, *_both(pair, scale), percent(pair["error"])])
    for label, pair in (("makespan [s]", section["makespan_s"]), ("output [tokens/s]", tokens_per_s)):
        cells.append([label, "", *_both(pair, 1.0), percent(pair["error"])])
    return cells


def pair_cells(pair: Section | None, scale: float = 1.0) -> list[str]:
    """Measured, simulated and error of one value."""
    return ["–", "–", "–"] if pair is None else [*_both(pair, scale), percent(pair["error"])]


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> None:
    """Print a table whose first `texts` columns are texts, which may fold, and the others numbers.

    A row `[]` draws a line.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(header_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, heading in enumerate(headings):
        numeric = index >= texts
        table.add_column(Text(heading), justify="right" if numeric else "left", overflow="fold", no_wrap=numeric)
    for row in rows:
        if row:
            table.add_row(*map(Text, row))
        else:
            table.add_section()
    probe = Console()
    Console(width=probe.width if probe.is_terminal else PIPE_WIDTH).print(table)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]], texts: int) -> str:
    """The same as a Markdown table."""
    rule = ["---" if index < texts else "--:" for index in range(len(headings))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (headings, rule, *filter(None, rows)))


def _both(pair: Mapping[str, float | None], scale: float) -> list[str]:
    values = (pair["measured"], pair["simulated"])
    return [number(None if value is None else scale * value, 4) for value in values]
