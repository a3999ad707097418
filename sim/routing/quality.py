"""Routers that divide requests between a weak and a strong model by who would answer correctly."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from sim.errors import InputError, number
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import least_outstanding, side


class _WeakOrStrong(ABC):
    """Two sides, each a kind of site or one pool. Within a side, the pool with the fewest requests a replica is chosen.

    A request that its side cannot hold goes to the other.
    """

    balancer = "least_outstanding"
    name: str

    def __init__(self, weak: str, strong: str) -> None:
        if weak == strong:
            raise InputError("router.strong", strong, f"another side than router.weak ({weak})")
        self._names = (weak, strong)

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there."""
        self._weak, self._strong = (
            side(fleet, f"router.{key}", name) for key, name in zip(("weak", "strong"), self._names)
        )

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool of the weak or the strong side."""
        weak = least_outstanding(self._weak.holding(request))
        strong = least_outstanding(self._strong.holding(request))
        if weak is None or strong is None:
            return weak or strong
        return strong if self._needs_strong(request, fleet, weak, strong) else weak

    @abstractmethod
    def _needs_strong(self, request: Request, fleet: FleetView, weak: PoolView, strong: PoolView) -> bool: ...

    def _require_known(self, fleet: FleetView) -> None:
        for pool in (*self._weak.pools, *self._strong.pools):
            if math.isnan(fleet.quality.rate(pool.name)):
                accepted = f"a quality.task on which {pool.model_id} of pool {pool.name} has a score, or labels of it"
                raise InputError("router", self.name, accepted)


class QualityThreshold(_WeakOrStrong):
    """Sends a request to the strong side iff the predicted chance that only the strong model is right exceeds tau.

    The prediction is as good as `quality.router_auc` says. Where the answers of a request are unknown, it is strong.

    Args:
        weak, strong: each a kind of site or the name of a pool.
        threshold: tau, in [0, 1]; None chooses it by `share`.
        share: of all requests, that are to go to the strong side, in [0, 1]; tau is the quantile of the predictions.

    Source: Ong et al., "RouteLLM", arXiv 2406.18665; Ding et al., "Hybrid LLM", arXiv 2404.14618.
    """

    name = "quality_threshold"

    def __init__(
        self, weak: str = "edge", strong: str = "cloud", threshold: float | None = None, share: float | None = None
    ) -> None:
        super().__init__(weak, strong)
        if (threshold is None) == (share is None):
            accepted = "a chance in [0, 1], or null with router.share; one of the two"
            raise InputError("router.threshold", threshold, accepted)
        for key, value in (("threshold", threshold), ("share", share)):
            if value is not None:
                number(f"router.{key}", value, "a number in [0, 1], or null", low=0.0, high=1.0)
        self._threshold, self._share = threshold, share

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there and that something is known of their answers."""
        super().bind(fleet)
        self._require_known(fleet)
        self._taus: dict[tuple[str, str], float] = {}

    def _needs_strong(self, request: Request, fleet: FleetView, weak: PoolView, strong: PoolView) -> bool:
        pair = weak.name, strong.name
        tau = self._taus.get(pair)
        if tau is None:
            share = self._share
            tau = fleet.quality.win_threshold(*pair, share) if share is not None else self._threshold
            assert tau is not None
            self._taus[pair] = tau
        return not fleet.quality.predicted_win(request, *pair) <= tau  # NaN goes to the strong side


class QualityOracle(_WeakOrStrong):
    """Sends a request to the strong side iff the strong model answers it better than the weak one.

    The bound of all routers between the two: nobody can be right more often, or as often with fewer strong calls.

    Args:
        weak, strong: each a kind of site or the name of a pool.
    """

    name = "quality_oracle"

    def __init__(self, weak: str = "edge", strong: str = "cloud") -> None:
        super().__init__(weak, strong)

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there and that something is known of their answers."""
        super().bind(fleet)
        self._require_known(fleet)

    def _needs_strong(self, request: Request, fleet: FleetView, weak: PoolView, strong: PoolView) -> bool:
        quality = fleet.quality
        return not quality.correct(request, strong.name) <= quality.correct(request, weak.name)


class RandomSplit(_WeakOrStrong):
    """Sends a share of requests, drawn at random, to the strong side: what a router has to beat.

    Args:
        weak, strong: each a kind of site or the name of a pool.
        share: chance of the strong side, in [0, 1].
    """

    name = "random_split"

    def __init__(self, weak: str = "edge", strong: str = "cloud", share: float = 0.5) -> None:
        super().__init__(weak, strong)
        self._share = number("router.share", share, "a share in [0, 1]", low=0.0, high=1.0)

    def _needs_strong(self, request: Request, fleet: FleetView, weak: PoolView, strong: PoolView) -> bool:
        return fleet.rng.random() < self._share
