"""What figures read of a run, be it fresh (`Result`) or from a folder (`Run`): plain columns with codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from analysis.load import Run, site_columns
from analysis.metrics import COMPLETED, summarize
from sim.results import STATUSES, Columns, GapSample, Result

if TYPE_CHECKING:
    import polars as pl


@dataclass(frozen=True, slots=True)
class View:
    """Columns as in `sim.results`, with codes; the summary names the pools and SLO classes behind the codes.

    Attributes:
        requests, timeline: columns.
        gaps: inter-token gaps by (pool, SLO class).
        summary: the sections of summary.json.
        sites: columns as in `sites.parquet`; None where no site has a plant or a budget of its own.
    """

    requests: Columns
    timeline: Columns
    gaps: dict[tuple[int, int], GapSample]
    summary: dict[str, Any]
    sites: Columns | None = None

    @property
    def pools(self) -> list[str]:
        """Names of the pools, by code."""
        return list(self.summary["by_pool"])

    @property
    def slos(self) -> dict[str, dict[str, float | None]]:
        """Bounds of each SLO class [s], by name."""
        return {name: section["slo"] for name, section in self.summary["by_slo_class"].items()}

    @property
    def done(self) -> Any:
        """Mask of the counted requests that completed: those with latencies that count."""
        return self.requests["counted"] & (self.requests["status"] == COMPLETED)


def view(run: Result | Run, summary: dict[str, Any] | None = None) -> View:
    """The view of a run; `summary` spares computing it again."""
    if isinstance(run, Result):
        steps = site_columns(run) if run.sites else None
        return View(run.requests, run.timeline, run.gaps, summary or summarize(run), steps)
    pools, classes = list(run.summary["by_pool"]), list(run.summary["by_slo_class"])
    requests, timeline, gaps = (_columns(table, pools, classes) for table in (run.requests, run.timeline, run.gaps))
    samples = {}
    for pool, slo in sorted(set(zip(gaps["pool"].tolist(), gaps["slo_class"].tolist()))):
        mine = (gaps["pool"] == pool) & (gaps["slo_class"] == slo)
        samples[pool, slo] = GapSample(gaps["gap_s"][mine], gaps["count"][mine])
    steps = None if run.sites is None else {each.name: each.to_numpy() for each in run.sites.iter_columns()}
    return View(requests, timeline, samples, run.summary, steps)


def _columns(table: pl.DataFrame, pools: list[str], classes: list[str]) -> Columns:
    """Columns with names turned back into codes, null into -1 or NaN."""
    import polars as pl

    codes = {"pool": pools, "slo_class": classes, "status": list(STATUSES)}
    columns = {}
    for series in table.iter_columns():
        names = codes.get(series.name)
        if names is None:
            columns[series.name] = series.to_numpy()
        else:
            code = series.cast(pl.Enum(names)).to_physical().cast(pl.Int64)
            columns[series.name] = code.fill_null(-1).to_numpy()
    return columns
