"""The search for one fleet's capacity: trials of all seeds at a rate, rates until the bracket is narrow."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from analysis.capacity import Load, load, over_seeds
from analysis.capacity_answer import Capacity
from scenarios.capacity_rate import SINGLE, RateOf, fewer
from scenarios.compose import Job
from scenarios.rate_search import FACTORS, Bracket, bracketed, halved
from scenarios.trials import Runner, Trial
from sim.errors import InputError

PRECISION = 0.02  #: width of the bracket in the end, as a share of its upper end
SCOUT, LEAST = 4, 1_000  #: how many times shorter than the others the first trials are, and their fewest requests
_NEAR = (1.02, 1.02, 1.04, 1.1, *FACTORS)  #: steps from a guess that is good
#: Arrivals whose rate moves by less than this power of their key's are not set by it.
_FOLLOWS = 0.5


class Finder:
    """Searches the capacity of one fleet.

    Args:
        run: does the trials.
        base: the scenario.
        rate: how it is brought to a rate.
        removed: replicas that the fleet lacks, by pool.
        seeds: common to all rates and fleets.
        search: folders of the user's own entries.
        target: share of requests that have to be within their SLO.
        name: of the fleet.
        quiet: says nothing on standard error.
    """

    def __init__(
        self,
        run: Runner,
        base: Job,
        rate: RateOf,
        removed: Mapping[str, int],
        seeds: Sequence[int],
        search: tuple[Path, ...],
        target: float,
        name: str,
        quiet: bool,
    ) -> None:
        self._run, self._base, self._rate, self._removed = run, base, rate, removed
        self._seeds, self._search, self._target, self._name, self._quiet = seeds, search, target, name, quiet
        self._unit = rate.unit
        self._incomplete: dict[str, None] = {}

    def find(self, replicas: Mapping[str, int], guess: float) -> Capacity:
        """The bracket of the highest value of the rate's key that is held, from a guess.

        Steady arrivals are searched with short trials first, which call rates held that longer ones do not: a good
        guess for few long ones.

        Raises:
            InputError: the fleet cannot serve the workload, or the key does not move its rate.
        """
        scouted: dict[float, Load] = {}
        limit = (self._rate.limit or 0) // SCOUT
        if self._rate.steady and limit >= LEAST:
            found = self._search_rates(replace(self._rate, limit=limit), scouted, guess, FACTORS)
            if found.held == 0.0:  # longer trials would not hold any rate either
                return self._answer(replicas, found, scouted, {})
            guess = found.held
        tried: dict[float, Load] = {}
        bracket = self._search_rates(self._rate, tried, guess, _NEAR if scouted else FACTORS)
        return self._answer(replicas, bracket, tried, scouted)

    def _answer(
        self, replicas: Mapping[str, int], bracket: Bracket, tried: Mapping[float, Load], scouted: Mapping[float, Load]
    ) -> Capacity:
        return Capacity(
            self._name,
            dict(replicas),
            tried.get(bracket.held),
            tried.get(bracket.not_held),
            [tried[value] for value in sorted(tried)],
            [scouted[value] for value in sorted(scouted)],
            tuple(self._incomplete),
        )

    def _search_rates(self, rate: RateOf, tried: dict[float, Load], guess: float, factors: Sequence[float]) -> Bracket:
        """A bracket as narrow as asked for, where there is one; keeps every load."""

        def holds(value: float) -> bool:
            load = self._try(rate, value)
            self._check_rate(load, tried)
            tried[value] = load
            return load.holds(self._target)

        bracket = bracketed(holds, guess, factors)
        if bracket.held > 0.0 and math.isfinite(bracket.not_held):
            bracket = halved(holds, bracket, lambda low, high: high - low <= PRECISION * high)
        return bracket

    def _try(self, rate: RateOf, value: float) -> Load:
        """Every seed at a value of the rate's key."""
        changed = fewer(self._base.resolve(rate.changes(value)), self._removed)
        trials = [Trial(self._name, {**changed, "seed": seed}, self._search, load) for seed in self._seeds]
        rows = []
        for outcome in self._run.run(trials, f"{self._name}: "):
            if outcome.row is None:
                raise InputError("fleet", self._name, f"one that can serve this workload ({outcome.refused})")
            rows.append(outcome.row)
            self._incomplete |= dict.fromkeys(outcome.incomplete)
        came = sum(row["requests"] or 0.0 for row in rows) / max(sum(row["window_s"] or 0.0 for row in rows), 1e-9)
        if self._unit is None:
            self._unit = came / value
        tried = over_seeds(value, self._unit * value, came, rows, rate.steady)
        if not self._quiet:
            said = "held" if tried.holds(self._target) else "not held"
            text = f"{self._name}: {tried.rate:.4g} requests/s, {100 * tried.attainment:.1f} % within the SLO: {said}"
            print(text, file=sys.stderr, flush=True)
        return tried

    def _check_rate(self, tried: Load, others: Mapping[float, Load]) -> None:
        """Refuse a key that arrivals do not follow, such as the rate of a file that has arrivals of its own."""
        for other in others.values():
            asked, came = math.log(tried.value / other.value), math.log(tried.came / other.came)
            if came / asked < _FOLLOWS:
                accepted = "a key that sets this workload's rate; its arrivals do not follow it"
                raise InputError(self._rate.key, tried.value, accepted)


def replicas_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Replicas by pool of a resolved configuration."""
    fleet = config["fleet"]
    if "sites" not in fleet:
        return {SINGLE: int(fleet.get("replicas") or 1)}
    pools = [site.get("pools") or {} for site in fleet["sites"].values() if site]
    return {name: int(pool.get("replicas") or 1) for each in pools for name, pool in each.items() if pool}
