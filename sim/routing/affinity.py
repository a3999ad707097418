"""Routers that send requests where something they need is already: a prefix computed, an adapter loaded."""

from __future__ import annotations

import math
from collections.abc import Sequence

from sim.errors import InputError, number
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, least_outstanding
from sim.routing.slo import SLOGuard


class PrefixAffinity:
    """Sends a request where its first token is predicted first, given what is computed there of its prefix.

    Within pools, the balancer `prefix_affinity` does the like with replicas. A request that is predicted to miss its
    SLO everywhere can be rejected at once, so that it takes no work from those that can still be served in time.

    Args:
        reject: reject requests that are predicted to miss a bound everywhere.
        margin: share of a bound that a prediction may take before a request is rejected.
        expected_output: output length to predict with [tokens]; None uses the request's own.

    Source: after Mooncake, arXiv 2407.00079: cache-aware scheduling (algorithm 1), early rejection by predicted load.
    """

    balancer = "prefix_affinity"

    def __init__(self, reject: bool = True, margin: float = 1.0, expected_output: int | None = None) -> None:
        if not isinstance(reject, bool):
            raise InputError("router.reject", reject, "true | false")
        self._reject = reject
        self._guard = SLOGuard(margin, expected_output, "present")

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._guard.bind(fleet)
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool of the earliest first token; None if it would be late and may be rejected."""
        guard, best, earliest, late = self._guard, None, math.inf, True
        for pool in self._candidates.holding(request):
            times = guard.times(pool, request, min(pool.prefix_tokens(request), request.prompt - 1))
            misses = self._reject and guard.lateness(request, times) > 1.0
            if best is None or (misses, times.ttft_s) < (late, earliest):
                best, earliest, late = pool, times.ttft_s, misses
        return None if late and self._reject else best


class AdapterAffinity:
    """Sends a request to the least loaded pool that has its adapter loaded, unless that is overloaded.

    Others, and those for the base model, go to the least loaded pool.

    Within pools, the balancer `adapter_affinity` does the same with replicas. Requests for adapters go to pools with
    slots for them, while one of those can hold them.

    Args:
        slack: requests a replica that a pool with the adapter may have more than the least loaded one.

    Source: after Punica, arXiv 2310.18547, and S-LoRA, arXiv 2311.03285: requests join others of what is loaded.
    """

    balancer = "adapter_affinity"

    def __init__(self, slack: float = 4.0) -> None:
        self._slack = number("router.slack", slack, "a number of requests >= 0 a replica", low=0.0)

    def bind(self, fleet: FleetView) -> None:
        """Check that there are slots for adapters."""
        self._all = Candidates(fleet.pools)
        self._slotted = Candidates([pool for pool in fleet.pools if pool.adapter_slots])
        if not self._slotted.pools:
            names = ", ".join(pool.name for pool in fleet.pools)
            accepted = f"a fleet in which a pool has engine.adapter_slots; there are none in: {names}"
            raise InputError("router", "adapter_affinity", accepted)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the least loaded pool with the adapter if it is not overloaded, else the least loaded one."""
        adapter = request.traits.adapter
        pools: Sequence[PoolView] = self._slotted.holding(request) if adapter else ()
        least = least_outstanding(pools or self._all.holding(request))
        if least is None or not pools:
            return least
        loaded = least_outstanding([pool for pool in pools if pool.adapter_holders(adapter)])
        most = least.outstanding / least.replicas + self._slack
        return loaded if loaded is not None and loaded.outstanding / loaded.replicas <= most else least
