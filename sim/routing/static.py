"""Routers that do not look at load: one kind of site, in turn, or at random."""

from __future__ import annotations

from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, least_outstanding, replica_at, require_kind


class _OneKind:
    """Sends everything to one kind of site; within it, to the pool with the fewest requests a replica."""

    balancer = "least_outstanding"
    kind: str

    def bind(self, fleet: FleetView) -> None:
        """Check that the fleet has such a site."""
        self._candidates = require_kind(fleet, self.kind, f"{self.kind}_only")

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the least loaded pool of the kind that can hold the request."""
        return least_outstanding(self._candidates.holding(request))


class CloudOnly(_OneKind):
    """Sends everything to the cloud."""

    kind = "cloud"


class EdgeOnly(_OneKind):
    """Sends everything to the edge."""

    kind = "edge"


class DeviceOnly(_OneKind):
    """Keeps everything on devices."""

    kind = "device"


class RoundRobin:
    """Takes pools in turn, each as often as it has replicas, and evenly mixed (smooth weighted round robin).

    Every pool gains its replicas in credit; the one with the most credit is chosen and pays the sum. Weights 2 and 1
    give A B A A B A, not A A B.

    Source: the smooth weighted round robin of the nginx web server.
    """

    balancer = "round_robin"

    def bind(self, fleet: FleetView) -> None:
        """Start with equal credit."""
        self._credit = [0] * len(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool whose turn it is among those that can hold the request."""
        tokens = request.prompt + request.output
        credit = self._credit
        chosen, total = -1, 0
        for index, pool in enumerate(fleet.pools):
            if pool.max_tokens >= tokens:
                total += pool.replicas
                credit[index] += pool.replicas
                if chosen < 0 or credit[index] > credit[chosen]:
                    chosen = index
        if chosen < 0:
            return None
        credit[chosen] -= total
        return fleet.pools[chosen]


class Random:
    """Draws a replica of the whole fleet at random, so a pool's chance is its number of replicas."""

    balancer = "random"

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool of a random replica."""
        pools = self._candidates.holding(request)
        if not pools:
            return None
        replicas = sum([pool.replicas for pool in pools])
        return replica_at(pools, int(fleet.rng.random() * replicas))
