"""A scenario at any rate: which key of its workload sets the rate, how long a trial is, where a search begins."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from scenarios.build import Scenario, build
from scenarios.build_fleet import SINGLE
from scenarios.compose import Job
from sim.errors import InputError
from sim.fleet.api import ApiPool
from sim.fleet.steady_state import steady_state
from sim.rng import Streams

REQUESTS = 4_000  #: of a trial, at least
#: A trial lasts so many times as a request of a full batch stays, at least: shorter ones fill no replica (assumed).
TURNOVERS = 30
WARM = 0.2  #: share of steady arrivals that find a fleet not yet as full as later ones do (assumed)
#: Mean power is taken over bins of this width [s]: about what upstream breakers and batteries average over (assumed).
BIN_S = 10.0
_RENEWAL = {f"sim.workload.arrivals.{name}" for name in ("Poisson", "Gamma", "Weibull", "ConstantRate")}
_COUNTED = {"sim.workload.synthetic.SyntheticWorkload", "sim.workload.labelled.LabelledTrace"}
_RATES = ("rate", "rate_scale")


@dataclass(frozen=True, slots=True)
class RateOf:
    """How a scenario is brought to a rate.

    Attributes:
        key: of the workload that is set, ``workload.rate`` or ``workload.rate_scale``.
        unit: requests a second for each unit of it; None where that has to be measured.
        steady: whether arrivals keep one rate from the first on.
        sized: further keys of a trial, the same at any rate.
        limit: most requests of a trial; None for no such bound.
        window_s: longest time in which they come, or infinite [s].
        warm: share of a window of steady arrivals before requests count; 0 keeps `warmup_s`.
        guess: value of the key to begin with.
        each: rate of one replica in closed form, by pool [1/s]; whole: that of the fleet.
    """

    key: str
    unit: float | None
    steady: bool
    sized: Mapping[str, Any]
    limit: int | None
    window_s: float
    warm: float
    guess: float
    each: Mapping[str, float]
    whole: float

    def without(self, held: float, removed: Mapping[str, int]) -> float:
        """Value of the key to begin with for a fleet that lacks replicas, from what the whole one holds."""
        lost = sum(count * self.each.get(pool, 0.0) for pool, count in removed.items())
        return held * (1.0 - lost / self.whole) if lost < self.whole else held

    def changes(self, value: float) -> dict[str, Any]:
        """Keys of the scenario at a value of the rate's key; equal requests at another rate only come closer."""
        changed = {self.key: value, **self.sized}
        if "workload.limit" in changed:
            changed["workload.limit"] = self.limit
        if self.warm:
            changed["warmup_s"] = self.warm * min(self.window_s, (self.limit or math.inf) / value)
        return changed


def rate_of(base: Job, search: Sequence[Path], requests: int | None) -> RateOf:
    """How to bring a scenario to a rate.

    Args:
        base: the scenario.
        search: folders of the user's own entries.
        requests: of a trial, as the user asks; None for as many as steady arrivals need, and the whole of others.

    Raises:
        InputError: its workload has no rate that could be set.
    """
    config = base.resolve()
    workload = config["workload"]
    name = _key(workload)
    own = {text.lstrip("+").partition("=")[0] for text in base.overrides}
    own_size = own & {"workload.limit", "workload.duration_s", "horizon_s"}
    if requests is not None and (own_size or "limit" not in workload):
        raise InputError(
            "requests", requests, f"no value, for {min(own_size or ['the workload'])} says how long a trial is"
        )
    counted = workload.get("_target_") in _COUNTED
    steady = counted and (workload.get("arrivals") or {}).get("_target_") in _RENEWAL
    scenario = build(config, search)
    each, closed, stay_s = _closed_form(scenario)
    unit = 1.0 if counted and name == "rate" else None
    came = unit or _rate(scenario) / float(workload[name])
    guess = closed / came if closed > 0.0 and came > 0.0 else float(workload[name])
    sizing: dict[str, Any] = {"timeline_bin_s": config.get("timeline_bin_s") or BIN_S}
    limit: int | None = workload.get("limit")
    window_s = min(workload.get("duration_s") or math.inf, config.get("horizon_s") or math.inf)
    if steady and not own_size:
        limit, window_s = requests or max(REQUESTS, math.ceil(TURNOVERS * stay_s * closed)), math.inf
        sizing |= {"workload.limit": limit, "workload.duration_s": None}
    elif requests is not None:
        limit = sizing["workload.limit"] = requests
    warm = WARM if steady and "warmup_s" not in own else 0.0
    return RateOf(f"workload.{name}", unit, steady, sizing, limit, window_s, warm, guess, each, closed)


def _key(workload: Mapping[str, Any]) -> str:
    """``rate`` or ``rate_scale``, whichever sets the workload's rate."""
    for name in _RATES:
        if isinstance(workload.get(name), int | float):
            return name
    for name in _RATES:
        if name in workload:
            raise InputError(f"workload.{name}", workload[name], f"a number, so that it can be scaled: {name}=1")
    raise InputError(
        "workload", workload.get("_target_"), "a workload with a rate, or a rate_scale, that can be scaled"
    )


def _first(scenario: Scenario) -> tuple[np.ndarray[Any, Any], float, float]:
    """Arrivals of the first requests, and their mean prompt and output."""
    batch = next(iter(scenario.workload.batches(Streams(scenario.settings.seed))))
    return batch.arrival_s, float(batch.prompt_tokens.mean()), float(batch.output_tokens.mean())


def _rate(scenario: Scenario) -> float:
    """About the rate of the first requests [1/s]; 0 where it cannot be told."""
    arrival = _first(scenario)[0]
    return len(arrival) / float(arrival[-1]) if len(arrival) > 1 and arrival[-1] > 0.0 else 0.0


def _closed_form(scenario: Scenario) -> tuple[dict[str, float], float, float]:
    """Rates of one replica by pool and of all [1/s], and the longest stay in one [s], under the strictest bounds.

    No more than where a search begins: a pool that it does not know, or that nothing is sent to, makes a poor guess.
    """
    _, prompt, output = _first(scenario)
    classes = scenario.workload.slo_classes
    tpot_s, ttft_s = (min(getattr(each, name) for each in classes) for name in ("tpot_s", "ttft_s"))
    each: dict[str, float] = {}
    rate = stay_s = 0.0
    for site in scenario.fleet.sites:
        for pool in site.pools:
            if isinstance(pool, ApiPool):
                accepted = "pools of replicas: an API's capacity is its provider's, and cannot be found by simulation"
                raise InputError(f"fleet.sites.{site.name}.pools", pool.name, accepted)
            try:
                state = steady_state(pool, prompt, output, tpot_s, ttft_s)
            except InputError:
                continue
            each[pool.name] = state.requests_per_s * pool.dp
            rate += each[pool.name] * pool.replicas
            if state.requests_per_s > 0.0:
                stay_s = max(stay_s, output * state.token_s)
    return each, rate, stay_s


def fewer(config: Mapping[str, Any], removed: Mapping[str, int]) -> dict[str, Any]:
    """A configuration with so many replicas fewer in pools by name, and rent as for days on end.

    A trial lasts minutes, but what it is about stands for days: started units of billing (``billing_unit_s``) would
    weigh too much.
    """
    fleet = dict(config["fleet"])
    if "sites" not in fleet:
        return {**config, "fleet": _pool(fleet, removed.get(SINGLE, 0))}
    sites = {}
    for name, site in fleet["sites"].items():
        pools = (site or {}).get("pools") or {}
        made = {key: pool and _pool(pool, removed.get(key, 0)) for key, pool in pools.items()}
        sites[name] = site and {**site, "pools": made}
    return {**config, "fleet": {**fleet, "sites": sites}}


def _pool(pool: Mapping[str, Any], removed: int) -> dict[str, Any]:
    cost = pool.get("cost")
    cost = {"type": cost} if isinstance(cost, str) else cost
    if isinstance(cost, Mapping) and cost.get("type") in ("rent", "reserved", "spot"):
        cost = {**cost, "billing_unit_s": 0}
    replicas = {"replicas": pool.get("replicas", 1) - removed} if removed else {}
    return {**pool, **replicas, "cost": cost}
