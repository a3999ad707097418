"""Routers that divide requests between two kinds of site, such as edge and cloud."""

from __future__ import annotations

from sim.errors import InputError, number
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, check_kind, least_outstanding, require_kind


class Spillover:
    """Fills the preferred kind of site first; what finds it full spills over to the others.

    A preferred pool has room while none of its limits is exceeded. Among pools with room, and among those that take
    the overflow, the one with the fewest requests a replica is chosen. A request that only one side can hold goes
    there in any case.

    Args:
        prefer: kind of the sites to fill first.
        waiting_per_replica: most requests that may wait for a place in a batch, per replica.
        kv_watermark: largest share of the KV cache in use, in [0, 1].
        outstanding_per_replica: most requests sent there and unfinished, per replica; None sets no limit. It bounds
            the batch, and so the time per token, before anything waits.
    """

    balancer = "least_outstanding"

    def __init__(
        self,
        prefer: str = "edge",
        waiting_per_replica: float = 0.0,
        kv_watermark: float = 0.9,
        outstanding_per_replica: float | None = None,
    ) -> None:
        self._prefer = check_kind("router.prefer", prefer)
        self._waiting = number("router.waiting_per_replica", waiting_per_replica, "a number >= 0", low=0.0)
        self._kv_use = number("router.kv_watermark", kv_watermark, "a share in [0, 1]", low=0.0, high=1.0)
        self._outstanding = float("inf")
        if outstanding_per_replica is not None:
            key, accepted = "router.outstanding_per_replica", "a number > 0, or null for no limit"
            self._outstanding = number(key, outstanding_per_replica, accepted, above=0.0)

    def bind(self, fleet: FleetView) -> None:
        """Check that there is a preferred pool and one for the overflow."""
        self._preferred = require_kind(fleet, self._prefer, "spillover")
        self._others = Candidates([pool for pool in fleet.pools if pool.site_kind != self._prefer])
        if not self._others.pools:
            accepted = f"a fleet with a site besides {self._prefer}, to take the overflow; this one has: {self._prefer}"
            raise InputError("router", "spillover", accepted)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return a preferred pool with room, else one of the others, else a preferred one that is full."""
        preferred = self._preferred.holding(request)
        for pool in sorted(preferred, key=lambda pool: pool.outstanding / pool.replicas):
            if self._has_room(pool):
                return pool
        other = least_outstanding(self._others.holding(request))
        return other if other is not None else least_outstanding(preferred)

    def _has_room(self, pool: PoolView) -> bool:
        replicas = pool.replicas
        return (
            pool.outstanding < self._outstanding * replicas
            and pool.waiting <= self._waiting * replicas
            and not pool.kv_exceeds(self._kv_use)  # last: it may ask replicas
        )


class LengthThreshold:
    """Sends short requests to one kind of site and long ones to another.

    A request is short if neither its prompt nor, where an output threshold is given, its output exceeds the
    threshold. One that its side cannot hold goes to the other. Within a side, the pool with the fewest requests a
    replica is chosen.

    Args:
        prompt_tokens: longest prompt of a short request [tokens].
        output_tokens: longest output of a short request [tokens], which takes a perfect forecast; None ignores it.
        short, long: kinds of the sites for short and for long requests.

    Source: Wilkins, Keshav, Mortier, "Hybrid Heterogeneous Clusters Can Lower the Energy Consumption of LLM Inference
    Workloads", arXiv 2407.00010, with the thresholds given instead of optimised.
    """

    balancer = "least_outstanding"

    def __init__(
        self, prompt_tokens: int, output_tokens: int | None = None, short: str = "edge", long: str = "cloud"
    ) -> None:
        accepted = "a number of tokens >= 0"
        self._prompt = number("router.prompt_tokens", prompt_tokens, accepted, low=0.0)
        self._output = float("inf")
        if output_tokens is not None:
            self._output = number("router.output_tokens", output_tokens, f"{accepted}, or null", low=0.0)
        self._short_kind = check_kind("router.short", short)
        self._long_kind = check_kind("router.long", long)
        if short == long:
            raise InputError("router.long", long, f"another kind of site than router.short ({short})")

    def bind(self, fleet: FleetView) -> None:
        """Check that both kinds of site are there."""
        self._short = require_kind(fleet, self._short_kind, "length_threshold")
        self._long = require_kind(fleet, self._long_kind, "length_threshold")

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return a pool of the request's side, or of the other where its own cannot hold it."""
        is_short = request.prompt <= self._prompt and request.output <= self._output
        own, other = (self._short, self._long) if is_short else (self._long, self._short)
        pool = least_outstanding(own.holding(request))
        return pool if pool is not None else least_outstanding(other.holding(request))
