"""One deployment under bounds of latency: what is simulated, and how rates are searched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.studies.capacity import Bounds, Load, capacity, counted, flooded, refined, side_by_side
from sim.fleet.spec import Pool
from sim.workload.lengths import Independent, LogNormal

OFFLINE, SERVER, INTERACTIVE = "offline", "server", "interactive"
MODES = (OFFLINE, SERVER, INTERACTIVE)
ABOVE = 1.1  #: times the offline rate, up to which rates are searched
#: Times that logs tell: a column of the requests, and what is taken of it.
TIMES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "ttft_mean": ("ttft_s", np.nanmean),
    "ttft_p99": ("ttft_s", partial(np.nanpercentile, q=99)),
    "tpot_mean": ("tpot_s", np.nanmean),
    "tpot_p99": ("tpot_s", partial(np.nanpercentile, q=99)),
}


@dataclass(frozen=True, slots=True)
class Setup:
    """All that decides an answer, so that one thing at a time can be varied.

    Attributes:
        pool: of all replicas.
        prompt, output: laws of the lengths.
        bounds: of the server and the interactive mode.
        requests: of a run of all replicas; a flood takes as many for one.
        tried: of the shorter runs that look for the best setting of the engine.
        warm, seed: as in a `Load`.
        steps: of the search for a rate.
    """

    pool: Pool
    prompt: LogNormal
    output: LogNormal
    bounds: Mapping[str, Bounds]
    requests: int
    tried: int
    warm: float
    seed: int
    steps: int

    @property
    def load(self) -> Load:
        """The requests of a run."""
        return Load(Independent(self.prompt, self.output), self.requests, self.warm, self.seed)

    @property
    def mean_output(self) -> float:
        """Mean tokens of an answer, over so many draws that their own error does not matter."""
        grid = (np.arange(100_000) + 0.5) / 100_000
        return float(self.output.quantile(grid).mean())

    def with_batch(self, batch: tuple[int, int]) -> Setup:
        """The same with another (max_num_seqs, max_num_batched_tokens)."""
        engine = replace(self.pool.engine, max_num_seqs=batch[0], max_num_batched_tokens=batch[1])
        return replace(self, pool=replace(self.pool, engine=engine))

    def offline(self) -> float:
        """Output tokens a second of all replicas with everything there from the start."""
        return flooded(replace(self.pool, replicas=1), self.load) * self.pool.replicas

    def bounded(self, mode: str, most: float, about: float = 0.0) -> float:
        """Output tokens a second within a mode's bounds, at most `most`; around `about` where shorter runs gave it."""
        bounds, mean = self.bounds[mode], self.mean_output
        if about:
            return refined(self.pool, self.load, bounds, about / mean, self.steps // 2) * mean
        return capacity(self.pool, self.load, bounds, most / mean, self.steps) * mean


@dataclass(frozen=True, slots=True)
class Logged:
    """What a log says of a mode: requests a second, and times by name, a key of `TIMES` [s]."""

    rate: float
    times: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Study:
    """A preset, read.

    Attributes:
        title, setup: what is simulated.
        batches: settings of the engine that are tried in each mode, as submitters do.
        published: tokens a second by mode.
        logs: times at the published rates, by mode with bounds.
        within: how far a number may be off and still count as the same, as a share.
        usd_per_hour: of one xPU, or None.
        processes: side by side.
        search: further folders of entries.
    """

    title: str
    setup: Setup
    batches: list[tuple[int, int]]
    published: Mapping[str, float]
    logs: Mapping[str, Logged]
    within: float
    usd_per_hour: float | None
    processes: int
    search: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Tokens a second: in each mode, with which setting of the engine, and of shorter runs with each setting; and
    times at the rates of the logs, by mode and name [s]."""

    tokens_per_s: Mapping[str, float]
    batch: Mapping[str, tuple[int, int]]
    tried: Mapping[str, Mapping[tuple[int, int], float]]
    logged: Mapping[str, Mapping[str, float]]

    def premium(self, dear: str, cheap: str) -> float:
        """How many times a token costs more in a mode than in another; infinite where it cannot be served."""
        return self.tokens_per_s[cheap] / self.tokens_per_s[dear] if self.tokens_per_s[dear] else math.inf


def explore(study: Study) -> Found:
    """Each mode under each setting of the engine in shorter runs, then with the best one in full."""
    short = replace(study.setup, requests=study.setup.tried)
    setups = [short.with_batch(batch) for batch in study.batches]
    offline = side_by_side(Setup.offline, setups, study.processes)
    most = ABOVE * max(offline)
    cases = [(setup, mode, most, 0.0) for mode in MODES[1:] for setup in setups]
    values = [*offline, *side_by_side(bounded, cases, study.processes)]
    n = len(setups)
    tried = {mode: dict(zip(study.batches, values[i * n : (i + 1) * n])) for i, mode in enumerate(MODES)}
    best = {mode: max(found, key=lambda batch: found[batch]) for mode, found in tried.items()}
    full = [(study.setup.with_batch(best[mode]), mode, most, tried[mode][best[mode]]) for mode in MODES]
    rates = dict(zip(MODES, side_by_side(bounded, full, study.processes)))
    at_logs = [(study.setup.with_batch(best[mode]), log.rate) for mode, log in study.logs.items()]
    return Found(rates, best, tried, dict(zip(study.logs, side_by_side(times_at, at_logs, study.processes))))


def times_at(case: tuple[Setup, float]) -> dict[str, float]:
    """TIMES of a setup at a rate [s]."""
    setup, rate = case
    column = counted(setup.pool, setup.load, rate)
    return {name: float(of(column[key])) for name, (key, of) in TIMES.items()}


def bounded(case: tuple[Setup, str, float, float]) -> float:
    """Tokens a second of a setup in a mode, with the arguments of `Setup.bounded`."""
    setup, mode, most, about = case
    return setup.offline() if mode == OFFLINE else setup.bounded(mode, most, about)
