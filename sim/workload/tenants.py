"""Who sends requests: several tenants that share one workload, and how urgent each one's requests are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.errors import InputError
from sim.workload import checks
from sim.workload.lengths import IntArray
from sim.workload.popularity import Popularity

BY = ("request", "tenant", "class")


class Tenants:
    """Each request belongs to one tenant, drawn by its share of the rate.

    Args:
        count: how many; None takes as many as there are weights.
        popularity: ``uniform``, ``zipf`` or one weight a tenant.
        exponent: of Zipf's law; None is 1.
    """

    def __init__(
        self,
        count: int | None = None,
        popularity: str | Sequence[float] = "uniform",
        exponent: float | None = None,
    ) -> None:
        self._popularity = Popularity("workload.tenants", count, popularity, exponent)
        self.count = self._popularity.count

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw the tenants of `n` requests, from 0."""
        return self._popularity.draw(rng, n)


class Priorities:
    """How urgent requests are: smaller is served first, where a scheduler looks at it.

    Args:
        levels: whole numbers. By tenant, one each; by class, one an SLO class; by request, those to draw from.
        weights: of the levels, by request only; None draws all alike.
        by: ``request``, ``tenant`` or ``class``.
    """

    def __init__(self, levels: Sequence[int], weights: Sequence[float] | None = None, by: str = "request") -> None:
        key = "workload.priorities"
        if by not in BY:
            raise InputError(f"{key}.by", by, " | ".join(BY))
        if isinstance(levels, str) or not isinstance(levels, Sequence) or not levels:
            raise InputError(f"{key}.levels", levels, "a list of whole numbers; smaller is served first")
        if weights is not None and by != "request":
            raise InputError(f"{key}.weights", weights, "null, unless by is request")
        self.by = by
        self.levels = np.array([checks.whole(f"{key}.levels", level, -(10**6), 10**6) for level in levels])
        if isinstance(weights, str):
            raise InputError(f"{key}.weights", weights, f"{len(levels)} weights >= 0, one a level, or null")
        table = "uniform" if weights is None else weights
        self._popularity = Popularity(key, len(levels), table, names=("levels", "weights"))

    def draw(self, rng: np.random.Generator, slo_class: IntArray, tenant: IntArray | None) -> IntArray:
        """The priorities of requests of these SLO classes and tenants."""
        if self.by == "request":
            return self.levels[self._popularity.draw(rng, len(slo_class))]
        holder = slo_class if self.by == "class" else tenant
        if holder is None:
            raise InputError("workload.priorities.by", self.by, "request | class, unless workload.tenants is given")
        if len(holder) and (most := int(holder.max())) >= len(self.levels):
            noun = "SLO class" if self.by == "class" else "tenant"
            accepted = f"a level for every {noun} (number {most}, from 0, occurs)"
            raise InputError("workload.priorities.levels", self.levels.tolist(), accepted)
        return self.levels[holder]
