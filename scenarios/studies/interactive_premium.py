"""What tight latency bounds cost: one deployment offline, under server bounds and under interactive ones."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.study import Outcome
from scenarios.deployment import pool_of
from scenarios.entries import Catalogue
from scenarios.schema import Section, anything, boolean, integer, list_of, number, text
from scenarios.size_inputs import scenario_file
from scenarios.studies.capacity import Bounds, Load, capacity, flooded, refined, side_by_side
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.workload.lengths import Independent, LogNormal

OFFLINE, SERVER, INTERACTIVE = "offline", "server", "interactive"
MODES = (OFFLINE, SERVER, INTERACTIVE)
ABOVE = 1.1  #: times the offline rate, up to which rates are searched
_COUNT = integer(1)
POSITIVE = number("a number > 0", above=0.0)
_SHARE = number("a share in (0, 1)", above=0.0, high=1.0)


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
        import numpy as np

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
class Study:
    """A preset, read.

    Attributes:
        title, setup: what is simulated.
        batches: settings of the engine that are tried in each mode, as submitters do.
        published: tokens a second by mode.
        within: how far a number may be off and still count as the same, as a share.
        usd_per_hour: of one xPU, or None.
        processes: side by side.
        search: further folders of entries.
    """

    title: str
    setup: Setup
    batches: list[tuple[int, int]]
    published: Mapping[str, float]
    within: float
    usd_per_hour: float | None
    processes: int
    search: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """Tokens a second: in each mode, with which setting of the engine, and of shorter runs with each setting."""

    tokens_per_s: Mapping[str, float]
    batch: Mapping[str, tuple[int, int]]
    tried: Mapping[str, Mapping[tuple[int, int], float]]

    def premium(self, dear: str, cheap: str) -> float:
        """How many times a token costs more in a mode than in another; infinite where it cannot be served."""
        return self.tokens_per_s[cheap] / self.tokens_per_s[dear] if self.tokens_per_s[dear] else math.inf


def run(preset: Section, search: tuple[Path, ...]) -> Outcome:
    """Simulate all of a preset.

    Raises:
        InputError: an input that cannot be used.
    """
    from scenarios.studies import interactive_premium_tables as tables
    from scenarios.studies import interactive_premium_varied as varied

    study = read(preset, search)
    ways = varied.read(preset, study)
    preset.finish()
    found = explore(study)
    moved = varied.moved(study, found, ways)
    return Outcome(
        study.title,
        tables.claims(study, found, moved),
        [*tables.tables(study, found), *varied.tables(moved)],
        [tables.bars(study, found), *varied.charts(moved)],
        tables.notes(study),
    )


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
    return Found(dict(zip(MODES, side_by_side(bounded, full, study.processes))), best, tried)


def bounded(case: tuple[Setup, str, float, float]) -> float:
    """Tokens a second of a setup in a mode, with the arguments of `Setup.bounded`."""
    setup, mode, most, about = case
    return setup.offline() if mode == OFFLINE else setup.bounded(mode, most, about)


def read(preset: Section, search: tuple[Path, ...]) -> Study:
    """The preset as objects; what is varied is left to be read."""
    preset.need("program", text)
    keys = ("model", "xpu", "precision")
    stated: dict[str, Any] = {key: preset.need(key, text) for key in keys}
    stated |= {"kv_precision": preset.get("kv_precision", text, None)}
    stated |= {key: preset.need(key, _COUNT) for key in ("tp", "replicas")}
    batches = [_batch(f"batches[{i}]", each) for i, each in enumerate(preset.need("batches", list_of(anything)))]
    if not batches:
        raise InputError("batches", [], "a list of at least one [max_num_seqs, max_num_batched_tokens]")
    engine = {"async_scheduling": preset.need("async_scheduling", boolean)}
    engine |= dict(zip(("max_num_seqs", "max_num_batched_tokens"), batches[0]))
    setup = Setup(
        pool_of(stated | {"engine": engine}, {}, search),
        law(preset.child("prompt")),
        law(preset.child("output")),
        _bounds(preset, search),
        preset.need("requests", integer(100)),
        preset.need("tried_requests", integer(100)),
        preset.need("warm", _SHARE),
        preset.need("seed", integer()),
        preset.need("steps", _COUNT),
    )
    published = preset.child("published")
    known = {mode: published.need(mode, POSITIVE) for mode in MODES}
    published.finish()
    price = Catalogue(search).entry("xpu", stated["xpu"], "xpu").values.get("rent_usd_per_hour")
    return Study(
        preset.need("title", text),
        setup,
        batches,
        known,
        preset.need("within", _SHARE),
        price,
        preset.need("processes", _COUNT),
        search,
    )


def law(section: Section, scale: float = 1.0) -> LogNormal:
    """A log-normal law of lengths from its median, 99th percentile and maximum [tokens]."""
    median, p99 = (section.need(key, POSITIVE) for key in ("median", "p99"))
    most = section.need("maximum", _COUNT)
    section.finish()
    if not median <= p99:
        raise InputError(section.path("p99"), p99, f"at least the median ({median:g})")
    return LogNormal(median=median * scale, p99=p99 * scale, maximum=most)


def _batch(key: str, value: object) -> tuple[int, int]:
    pair = list_of(_COUNT)(key, value)
    if len(pair) != 2 or pair[0] > pair[1]:
        raise InputError(key, value, "[max_num_seqs, max_num_batched_tokens], the second at least the first")
    return pair[0], pair[1]


def _bounds(preset: Section, search: tuple[Path, ...]) -> dict[str, Bounds]:
    """Bounds of the two modes: an entry of conf/slo each, whose one class says them."""
    share = preset.need("share", _SHARE)
    bounds = {}
    for mode in MODES[1:]:
        name = preset.need(mode, text)
        first = scenario_file("slo", name, mode, search)["classes"][0]
        limits = [first.get(key) or math.inf for key in ("ttft_s", "tpot_s")]
        bounds[mode] = Bounds(limits[0], limits[1], share)
    return bounds
