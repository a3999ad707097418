"""Routers that compare load per replica."""

from __future__ import annotations

import math

from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, least_outstanding, replica_at


class LeastOutstanding:
    """Sends a request where the fewest requests a replica are unfinished; the first of equals."""

    balancer = "least_outstanding"

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the least loaded pool."""
        return least_outstanding(self._candidates.holding(request))


class LeastTokens:
    """Sends a request where the fewest tokens a replica are unfinished: join the shortest queue, in units of work."""

    balancer = "least_tokens"

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool with the fewest prompt + output tokens a replica, the first of equals."""
        best, lowest = None, math.inf
        for pool in self._candidates.holding(request):
            load = pool.outstanding_tokens / pool.replicas
            if load < lowest:
                best, lowest = pool, load
        return best


class PowerOfTwo:
    """Draws two different replicas at random and takes the pool that is less loaded; the first drawn of equals.

    Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001.
    """

    balancer = "power_of_two"

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the less loaded of two random pools."""
        pools = self._candidates.holding(request)
        if not pools:
            return None
        if len(pools) == 1:
            return pools[0]
        replicas = sum([pool.replicas for pool in pools])
        first = int(fleet.rng.random() * replicas)
        second = int(fleet.rng.random() * (replicas - 1))
        second += second >= first  # the second draw skips the first replica
        one, two = replica_at(pools, first), replica_at(pools, second)
        return two if two.outstanding * one.replicas < one.outstanding * two.replicas else one
