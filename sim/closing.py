"""The end of a run: engines are halted, books are closed, tables are built."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np

from sim.accounting.ledger import close_totals, request_columns
from sim.accounting.links import link_totals
from sim.accounting.settlement import settle_sites
from sim.live import LiveRun
from sim.observer import COMPLETED
from sim.results import Result
from sim.tables import answer_quality, request_table, span_table, timeline_table


def close_books(run: LiveRun, warmup_s: float, drain: bool, started: float) -> Result:
    """Halt the engines, close the books and build the tables.

    Args:
        run: whose loop has ended.
        warmup_s, drain: as of `sim.run`.
        started: wall clock when it began [s].
    """
    observer, end_s = run.observer, _halted(run, drain)
    observer.close(end_s)
    observer.fold()
    if run.journeys is not None:
        run.journeys.close_open()
    records = observer.table()
    useful = records["status"] == COMPLETED if run.journeys is None else run.journeys.useful()
    records["useful"] = useful.astype(np.float64)
    if run.journeys is not None:
        up_down = run.journeys.traffic(run.pools, records)
        records["client_bytes"] = np.add(*up_down)
    unknown = np.full(len(useful), np.nan)  # of legs; of requests once their journeys are put together
    quality = unknown if run.journeys is not None else answer_quality(records, run.pools, run.quality)
    found = observer.hidden, observer.speech
    requests = request_table(records, observer.slo_classes, warmup_s, run.horizon_s, quality, *found)
    requests |= request_columns(records, run.pools, end_s)
    del records, useful, quality  # large, and not needed any more
    totals = [close_totals(pool, requests, observer.steps[pool.index], end_s) for pool in run.pools]
    unaccounted: Callable[[str], tuple[str, ...]] = getattr(run.router, "unaccounted", lambda name: ())
    for each in totals:
        each.incomplete += unaccounted(each.name)
    sites = settle_sites(run.pools, observer.series, totals, end_s, run.streams)
    legs = None
    if run.journeys is not None:
        run.journeys.count_traffic(totals, requests["pool"], *up_down)
        legs = run.journeys.leg_table(requests)
        requests = run.journeys.request_table(requests, warmup_s, run.horizon_s)
    observed = (run.horizon_s if math.isfinite(run.horizon_s) else end_s) - warmup_s
    return Result(
        requests=requests,
        timeline=timeline_table(observer, run.pools, end_s),
        spans=span_table(observer),
        pools=totals,
        slo_classes=observer.slo_classes,
        gaps={key: gaps.sample() for key, gaps in observer.gaps.items()},
        end_s=end_s,
        warmup_s=warmup_s,
        horizon_s=run.horizon_s,
        observed_s=max(observed, 0.0),
        seed=run.seed,
        wall_s=time.perf_counter() - started,
        task=run.quality.task,
        links=[link_totals(link, run.sites, end_s) for link in run.network.links],
        legs=legs,
        sites=sites,
        sessions=None if run.feed is None else run.feed.loop.counts(),
    )


def _halted(run: LiveRun, drain: bool) -> float:
    """Halt the engines at the end of the run, which is returned [s]."""
    end_s = run.horizon_s
    if drain:
        last = max(engine.end_s for pool in run.pools for engine in pool.engines)
        end_s = max(last, run.horizon_s if math.isfinite(run.horizon_s) else 0.0)
    for pool in run.pools:
        for engine in pool.engines:
            engine.halt(end_s)
    return end_s
