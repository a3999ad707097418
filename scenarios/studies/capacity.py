"""The highest load that latency bounds allow, and studies' runs side by side in two processes."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from scenarios.rate_search import Bracket, bracketed, geometric, halved
from scenarios.trials import PROCESSES
from sim.fleet.leg import COMPLETED
from sim.fleet.spec import Fleet, Pool, Site
from sim.results import Columns
from sim.routing.load import LeastOutstanding
from sim.simulation import run
from sim.workload.arrivals import Poisson
from sim.workload.lengths import LengthModel
from sim.workload.synthetic import SyntheticWorkload

A = TypeVar("A")
B = TypeVar("B")
_FLOOD_PER_S = 1e6  #: arrivals that are all there before anything of note is served [1/s]
_DOUBT = 0.2  #: share by which shorter runs may be off
_DOUBLING = (1.1, 1.1**2, 1.1**4, 1.1**8, 1.1**16)  #: steps away from where a search begins
_REACH = 1e5  #: times where it begins, and its inverse, beyond which nothing is searched
_FILLED = 0.25  #: share of a flood's answers after which its batch has the mix that it keeps


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a share of all requests must keep: time to the first token and time a token [s], each by itself."""

    ttft_s: float
    tpot_s: float
    share: float


@dataclass(frozen=True, slots=True)
class Load:
    """What comes.

    Attributes:
        lengths: of prompts and outputs.
        requests: of a run.
        warm: share of them that find engines not yet as full as later ones do; served, not counted.
        seed: of all that is drawn.
    """

    lengths: LengthModel
    requests: int
    warm: float
    seed: int


def counted(pool: Pool, load: Load, rate: float) -> Columns:
    """The requests that count of a run at `rate` [1/s], Poisson, by the balancer's fewest outstanding."""
    column = _run(pool, load, rate, load.warm * load.requests / rate)
    return {name: values[column["counted"]] for name, values in column.items()}


def holds(column: Columns, bounds: Bounds) -> bool:
    """Whether enough requests keep each bound; who was not served keeps none, one token takes no time a token."""
    done = column["status"] == COMPLETED
    quick = (column["ttft_s"] <= bounds.ttft_s) & done
    steady = (~(column["tpot_s"] > bounds.tpot_s)) & done
    return bool(len(done)) and min(float(quick.mean()), float(steady.mean())) >= bounds.share


def capacity(pool: Pool, load: Load, bounds: Bounds, most: float, steps: int) -> float:
    """Highest rate of Poisson arrivals at which a run holds the bounds, by `highest` [1/s]."""
    return highest(lambda rate: holds(counted(pool, load, rate), bounds), 0.0, most, steps)


def refined(pool: Pool, load: Load, bounds: Bounds, about: float, steps: int) -> float:
    """The same where shorter runs gave `about`: they see less of a queue that grows, so it is mostly too much [1/s]."""
    low = about * (1.0 - _DOUBT)
    sure = highest(lambda rate: holds(counted(pool, load, rate), bounds), low, about * (1.0 + 0.5 * _DOUBT), steps)
    return sure or capacity(pool, load, bounds, low, steps)


def highest(meets: Callable[[float], bool], low: float, high: float, steps: int) -> float:
    """Largest of the rates tried that meets, by bisection, to (high - low) / 2^steps; 0 if none does."""
    if meets(high):
        return high
    if low > 0.0 and not meets(low):
        return 0.0
    width = (high - low) * 0.5**steps
    return halved(meets, Bracket(low, high), lambda low, high: high - low <= width * (1.0 + 1e-9)).held


def around(meets: Callable[[float], bool], start: float, resolution: float) -> float:
    """Highest rate that meets, from `start` in steps that double, then halved; to a share `resolution` of it.

    0 if none does down to a hundred-thousandth of `start`.
    """
    found = bracketed(meets, start, _DOUBLING, _REACH)
    if not found.held or math.isinf(found.not_held):
        return found.held
    return halved(meets, found, lambda low, high: high <= low * (1.0 + resolution), geometric).held


def flooded(pool: Pool, load: Load) -> float:
    """Output tokens a second of a replica that has all of its requests waiting from the start.

    Counted between the moment at which a quarter of the answers is out and the one at which the last prompt is begun:
    neither the filling nor the emptying of the batch.
    """
    column = _run(pool, load, _FLOOD_PER_S, 0.0)
    ended = column["arrival_s"] + column["e2e_s"]
    begun = column["arrival_s"] + column["queue_s"]
    start, end = float(np.quantile(ended, _FILLED)), float(begun.max())
    if end <= start:  # all fit the batch at once
        start, end = 0.0, float(ended.max())
    within = (ended > start) & (ended <= end)
    return float(column["output_tokens"][within].sum()) / (end - start)


def _run(pool: Pool, load: Load, rate: float, warmup_s: float) -> Columns:
    workload = SyntheticWorkload(Poisson(rate), load.lengths, limit=load.requests)
    fleet = Fleet((Site(pool.name, "cloud", (pool,)),))
    return run(fleet, workload, LeastOutstanding(), seed=load.seed, warmup_s=warmup_s).requests


def side_by_side(work: Callable[[A], B], items: Sequence[A], processes: int = PROCESSES) -> list[B]:
    """`work` of each item, in order; in so many processes where there are enough items. `work` is a plain function."""
    if processes <= 1 or len(items) < 2:
        return [work(item) for item in items]
    # Spawned, not forked: threads of libraries that have been imported do not survive a fork.
    executor = ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn"))
    try:
        return list(executor.map(work, items))
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
