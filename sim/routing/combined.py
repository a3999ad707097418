"""Routers that hold others: they narrow or blur what those see, and leave the choice to them.

Any router or policy can stand inside, another combination too. Each is bound to a view of its own of the same fleet.
One that holds a policy is a policy itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Any

from sim.errors import InputError, number
from sim.fleet.estimates import Times, Work
from sim.fleet.spec import SITE_KINDS
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView, Outcome, PoolView
from sim.routing.candidates import check_kind
from sim.routing.nested import Inner


class PrivacyPin:
    """Keeps private requests at sites of certain kinds, by one router, and sends all others anywhere, by another.

    A private request that those sites cannot hold is rejected, never sent elsewhere.

    Args:
        private: router or policy of private requests; it sees the allowed pools alone.
        other: router or policy of all others; it sees the whole fleet, and says how pools balance.
        kinds: kinds of the sites that private requests may be served at.

    Source: after PRISM, arXiv 2511.22788: sensitive requests stay at the edge. Its semi-private collaboration, in which
    the cloud sketches and the edge refines, is left out.
    """

    handle: Any  # a method where one of the two is a policy

    def __init__(self, private: object, other: object, kinds: Sequence[str] = ("device", "edge")) -> None:
        self._private, self._other = Inner("router.private", private), Inner("router.other", other)
        if isinstance(kinds, str) or not isinstance(kinds, Sequence) or not kinds:
            raise InputError("router.kinds", kinds, f"a list of at least one of {' | '.join(SITE_KINDS)}")
        self._kinds = [check_kind("router.kinds", kind) for kind in kinds]
        self.balancer = self._other.balancer
        if self._private.is_policy or self._other.is_policy:
            self.handle = self._handle

    @property
    def parts(self) -> tuple[Any, ...]:
        """The two that it holds."""
        return self._private.router, self._other.router

    def bind(self, fleet: FleetView) -> None:
        """Check that private requests have somewhere to go."""
        allowed = [pool for pool in fleet.pools if pool.site_kind in self._kinds]
        if not allowed:
            there = ", ".join(sorted({pool.site_kind for pool in fleet.pools}))
            accepted = f"a fleet with a site of kind {' or '.join(self._kinds)}; this one has: {there}"
            raise InputError("router", "privacy_pin", accepted)
        self._private.bind(fleet, allowed)
        self._other.bind(fleet)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return what the router in charge chooses."""
        pool: PoolView | None = (self._private if request.traits.private else self._other).choose(request)
        return pool

    def _handle(self, request: Request, fleet: Journey) -> Steps:
        return (self._private if request.traits.private else self._other).follow(request, fleet)

    def completed(self, request: Request, pool: PoolView, outcome: Outcome) -> None:
        """Tell the router that chose."""
        (self._private if request.traits.private else self._other).completed(request, outcome)


class StalePool:
    """A pool with the loads of a while ago; all else is the pool's own."""

    def __init__(self, live: Any) -> None:
        self.live = live
        self.take(self.read())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.live, name)

    def read(self) -> tuple[int, int, int, int, float]:
        """The loads of this moment."""
        live = self.live
        return live.outstanding, live.outstanding_tokens, live.output_tokens, live.waiting, live.kv_use

    def take(self, loads: tuple[int, int, int, int, float]) -> None:
        """Show these loads."""
        self.outstanding, self.outstanding_tokens, self.output_tokens, self.waiting, self.kv_use = loads

    def kv_exceeds(self, share: float) -> bool:
        """See `PoolView.kv_exceeds`."""
        return self.kv_use > share

    @property
    def power_w(self) -> float:
        """See `PoolView.power_w`."""
        return float(self.live.estimator.power_w(self))

    def predicted_latency_s(self, prompt: int, output: int) -> float:
        """See `PoolView.predicted_latency_s`."""
        return self.times(prompt, output).e2e_s

    def times(self, prompt: int, output: int, cached: int = 0) -> Times:
        """See `PoolView.times`."""
        times: Times = self.live.estimator.times(self, prompt, output, cached)
        return times

    def work(self, prompt: int, output: int, cached: int = 0, batch: int | None = None) -> Work:
        """See `PoolView.work`."""
        estimator = self.live.estimator
        work: Work = estimator.work(prompt, output, cached, estimator.present_batch(self) if batch is None else batch)
        return work


class Stale:
    """Lets another router see loads as they were a while ago, as one does that polls its pools over a network.

    Loads are read when a request arrives, at most every `every_s`; the router sees the latest reading that is at least
    `staleness_s` old. Its own choices since then are not in it. Prefixes, adapters and forecasts are not delayed.

    Args:
        router: the other router or policy.
        staleness_s: age of what it sees [s].
        every_s: time between two readings [s]; None for a tenth of `staleness_s`.
    """

    handle: Any  # a method where the other is a policy

    def __init__(self, router: object, staleness_s: float = 1.0, every_s: float | None = None) -> None:
        self._inner = Inner("router.router", router)
        self._staleness_s = number("router.staleness_s", staleness_s, "a time >= 0 s", low=0.0)
        self._every_s = 0.1 * self._staleness_s
        if every_s is not None:
            self._every_s = number("router.every_s", every_s, "a time >= 0 s, or null", low=0.0)
        self.balancer = self._inner.balancer
        if self._inner.is_policy:
            self.handle = self._handle

    @property
    def parts(self) -> tuple[Any, ...]:
        """The one that it holds."""
        return (self._inner.router,)

    def bind(self, fleet: FleetView) -> None:
        """Show the inner router pools without load."""
        self._pools = [StalePool(pool) for pool in fleet.pools]
        self._readings: deque[tuple[float, list[tuple[int, int, int, int, float]]]] = deque()
        self._next_s = 0.0
        self._inner.bind(fleet, self._pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool that the inner router chooses by what it knows."""
        self._read(fleet)
        chosen = self._inner.choose(request)
        return None if chosen is None else chosen.live

    def _handle(self, request: Request, fleet: Journey) -> Steps:
        self._read(fleet)
        return self._inner.follow(request, fleet)

    def _read(self, fleet: FleetView) -> None:
        """Read the loads if it is time, and show those that are old enough."""
        now, readings = fleet.now, self._readings
        if now >= self._next_s:
            self._next_s = now + self._every_s
            readings.append((now, [pool.read() for pool in self._pools]))
        seen = None
        while readings and readings[0][0] <= now - self._staleness_s:
            seen = readings.popleft()[1]
        if seen is not None:
            for pool, loads in zip(self._pools, seen):
                pool.take(loads)

    def completed(self, request: Request, pool: PoolView, outcome: Outcome) -> None:
        """Tell the inner router."""
        self._inner.completed(request, outcome)
