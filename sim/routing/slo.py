"""Routers that take the cheapest, the cleanest or the oldest of the pools predicted to meet a request's SLO."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from sim.accounting.forecast import forecast_model
from sim.errors import InputError, number
from sim.fleet.estimates import Times, Work
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates, check_expected_output, least_outstanding
from sim.units import JOULES_PER_KWH

BATCHES = ("full", "present")
_BUCKETS = 4  # sizes of requests that one full batch stands for: so many a factor of two of prompt and of output


class SLOGuard:
    """Predicts whether pools meet requests' SLOs, and what the requests take there.

    Args:
        margin: share of a bound that a prediction may take.
        expected_output: output length to predict with [tokens]; None uses the request's own.
        batch: the batch in which a request's share of work is reckoned: ``full``, the largest that holds its TPOT, as
            in a pool in demand; or ``present``, that of the moment.
    """

    def __init__(self, margin: float, expected_output: int | None, batch: str) -> None:
        self.margin = number("router.margin", margin, "a share > 0 of a bound, such as 0.8", above=0.0)
        self.expected_output = check_expected_output(expected_output)
        if batch not in BATCHES:
            raise InputError("router.batch", batch, " | ".join(BATCHES))
        self._full = batch == "full"

    def bind(self, fleet: FleetView) -> None:
        """Take the SLO classes of the workload."""
        bounds = [(each.ttft_s, each.tpot_s, each.e2e_s) for each in fleet.slo_classes]
        self._per_bound = [tuple(1.0 / (bound * self.margin) for bound in row) for row in bounds]
        self._tpot_s = [each.tpot_s * self.margin for each in fleet.slo_classes]
        self._batches: dict[tuple[str, int, int, int], int] = {}

    def output(self, request: Request) -> int:
        """Output tokens to reckon with."""
        return request.output if self.expected_output is None else self.expected_output

    def times(self, pool: PoolView, request: Request, cached: int = 0) -> Times:
        """Predicted times at a pool."""
        return pool.times(request.prompt, self.output(request), cached)

    def lateness(self, request: Request, times: Times) -> float:
        """The largest of the predicted times over their bounds; at most 1 if the SLO is predicted to be met."""
        ttft, tpot, e2e = self._per_bound[request.slo_class]
        return max(times.ttft_s * ttft, times.tpot_s * tpot if self.output(request) > 1 else 0.0, times.e2e_s * e2e)

    def least_late(self, pools: Sequence[PoolView], request: Request) -> PoolView | None:
        """The pool that is predicted to miss the SLO by least, or to meet it by most; None if there is no pool."""
        best, least = None, math.inf
        for pool in pools:
            lateness = self.lateness(request, self.times(pool, request))
            if best is None or lateness < least:
                best, least = pool, lateness
        return best

    def work(self, pool: PoolView, request: Request) -> Work:
        """Predicted share of work at a pool."""
        output = self.output(request)
        return pool.work(request.prompt, output, 0, self._batch(pool, request, output) if self._full else None)

    def _batch(self, pool: PoolView, request: Request, output: int) -> int:
        """The full batch of requests of about this size, of which one of its bucket was asked for."""
        bucket = int(math.log2(request.prompt) * _BUCKETS), int(math.log2(output) * _BUCKETS)
        key = pool.name, request.slo_class, *bucket
        known = self._batches.get(key)
        if known is None:
            prompt, most = (max(1, round(2.0 ** ((each + 0.5) / _BUCKETS))) for each in bucket)
            known = self._batches[key] = pool.full_batch(prompt, most, self._tpot_s[request.slo_class])
        return known


class _LeastUnderSLO(ABC):
    """Of the pools predicted to meet the SLO, the one with the lowest score, of equals the one that is least late;
    where there is none, the one that is predicted to miss it by least.
    """

    balancer = "least_outstanding"

    def __init__(self, margin: float = 0.8, expected_output: int | None = None, batch: str = "full") -> None:
        self._guard = SLOGuard(margin, expected_output, batch)

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool that may be chosen."""
        self._guard.bind(fleet)
        self._candidates = Candidates(self._eligible(fleet))

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool of lowest score among those that are on time."""
        pools = self._candidates.holding(request)
        best, _ = self._least(pools, request, fleet)
        return best if best is not None else self._guard.least_late(pools, request)

    def _least(self, pools: Sequence[PoolView], request: Request, fleet: FleetView) -> tuple[PoolView | None, float]:
        """The pool of lowest score that is on time, and its score; None and infinity if none is."""
        guard, best, lowest, least = self._guard, None, math.inf, math.inf
        for pool in pools:
            lateness = guard.lateness(request, guard.times(pool, request))
            if lateness <= 1.0:
                score = self._score(pool, request, fleet)
                if best is None or score < lowest or (score == lowest and lateness < least):
                    best, lowest, least = pool, score, lateness
        return best, lowest

    def _eligible(self, fleet: FleetView) -> Sequence[PoolView]:
        return fleet.pools

    @abstractmethod
    def _score(self, pool: PoolView, request: Request, fleet: FleetView) -> float: ...


def require_known(router: str, what: str, pools: Iterable[PoolView], unknown: Iterable[bool]) -> None:
    """Check that what a router compares is known of every pool; unknown ones could not be ranked.

    Raises:
        InputError: it is not; the message names the pools.
    """
    missing = [pool.name for pool, each in zip(pools, unknown) if each]
    if missing:
        raise InputError("router", router, f"a fleet whose {what} is known; it is not of: {', '.join(missing)}")


class MinCostSLO(_LeastUnderSLO):
    """Sends a request to the pool where its share of the cost is lowest, among those predicted to meet its SLO.

    Cost is rent or ownership of the replica seconds that the request takes, and electricity, in the batch that a pool
    can run at under the SLO: what the pool costs for each request of this size once it is in demand. Cheap pools fill
    up to their SLO, and the rest spills over to dearer ones.

    Source: after Griggs et al., Melange: Cost Efficient Large Language Model Serving by Exploiting GPU Heterogeneity,
    arXiv 2404.14527: cost of a request by size at the largest load under an SLO. Its integer program, which sizes the
    fleet beforehand, is left out.
    """

    def bind(self, fleet: FleetView) -> None:
        """Check that every pool has a price."""
        super().bind(fleet)
        require_known("min_cost_slo", "cost", fleet.pools, (math.isnan(p.work(1, 1).cost_usd) for p in fleet.pools))

    def _score(self, pool: PoolView, request: Request, fleet: FleetView) -> float:
        return self._guard.work(pool, request).cost_usd


class CarbonSLO(_LeastUnderSLO):
    """Sends a request where its carbon is forecast to be lowest, of pools that are predicted on time and good enough.

    Args:
        margin, expected_output, batch: see `SLOGuard`.
        forecast: what is known of the grids: ``persistence``, ``noisy`` or ``oracle``; see `sim.accounting.forecast`.
        embodied: also count the request's share of embodied carbon.
        accuracy_floor: lowest score of a model that may answer, in [0, 1]; None for no floor. A model of unknown score
            does not pass one.
        benchmark: whose scores count.

    Source: after GAR, arXiv 2605.11603 (lowest forecast carbon under a bound of latency and a floor of accuracy) and,
    across regions, SLIT, arXiv 2505.23554.
    """

    def __init__(
        self,
        margin: float = 0.8,
        expected_output: int | None = None,
        batch: str = "full",
        forecast: object = "persistence",
        embodied: bool = False,
        accuracy_floor: float | None = None,
        benchmark: str = "mmlu",
    ) -> None:
        super().__init__(margin, expected_output, batch)
        self._model = forecast_model("router.forecast", forecast)
        if not isinstance(embodied, bool):
            raise InputError("router.embodied", embodied, "true | false")
        self._embodied, self._benchmark = embodied, benchmark
        self._floor = None
        if accuracy_floor is not None:
            accepted = "a score in [0, 1], or null for no floor"
            self._floor = number("router.accuracy_floor", accuracy_floor, accepted, low=0.0, high=1.0)

    def bind(self, fleet: FleetView) -> None:
        """Check that grids, where asked for embodied carbon, and the quality of some pool are known."""
        super().bind(fleet)
        pools = self._candidates.pools
        known = dict(zip([pool.name for pool in fleet.pools], fleet.forecasts(self._model)))
        self._forecasts = {pool.name: known[pool.name] for pool in pools}
        unknown = (math.isnan(self._forecasts[pool.name].at(fleet.now, fleet.now)) for pool in pools)
        require_known("carbon_slo", "grid", pools, unknown)
        require_known("carbon_slo", "energy", pools, (math.isnan(pool.work(1, 1).energy_j) for pool in pools))
        if self._embodied:
            unknown = (math.isnan(pool.work(1, 1).embodied_g) for pool in pools)
            require_known("carbon_slo", "embodied carbon", pools, unknown)

    def _eligible(self, fleet: FleetView) -> Sequence[PoolView]:
        if self._floor is None:
            return fleet.pools
        scores = {pool.name: pool.served_quality.get(self._benchmark, -1.0) for pool in fleet.pools}
        good = [pool for pool in fleet.pools if scores[pool.name] >= self._floor]
        if not good:
            known = ", ".join(f"{name} {'unknown' if score < 0.0 else f'{score:g}'}" for name, score in scores.items())
            accepted = f"a floor that a pool of this fleet reaches on {self._benchmark} ({known})"
            raise InputError("router.accuracy_floor", self._floor, accepted)
        return good

    def _score(self, pool: PoolView, request: Request, fleet: FleetView) -> float:
        work, now = self._guard.work(pool, request), fleet.now
        grams = work.energy_j * self._forecasts[pool.name].at(now, now) / JOULES_PER_KWH
        return grams + work.embodied_g if self._embodied else grams


class OldXPUOffload(CarbonSLO):
    """Sends a request to an old xPU where that is predicted to meet its SLO at less carbon, embodied carbon included,
    than the least loaded of the newer ones; else to that.

    Args:
        old: ids of the xPUs that count as old.
        margin, expected_output, batch, forecast: as for `CarbonSLO`.

    Source: after GreenLLM, arXiv 2412.20322, for whole requests; its split of prefill and decode between new and old
    GPUs is left out.
    """

    def __init__(
        self,
        old: Sequence[str],
        margin: float = 0.8,
        expected_output: int | None = None,
        batch: str = "full",
        forecast: object = "persistence",
    ) -> None:
        super().__init__(margin, expected_output, batch, forecast, embodied=True)
        accepted = "a list of at least one id of an xPU, such as [t4, v100_sxm_32gb]"
        if isinstance(old, str) or not isinstance(old, Sequence) or not old or not all(isinstance(e, str) for e in old):
            raise InputError("router.old", old, accepted)
        self._names = tuple(old)

    def bind(self, fleet: FleetView) -> None:
        """Check that old and newer xPUs are there, besides what `CarbonSLO` checks."""
        there = sorted({pool.xpu_id for pool in fleet.pools if pool.xpu_id})
        for name in self._names:
            if name not in there:
                raise InputError("router.old", name, f"xPUs of this fleet: {' | '.join(there)}")
        super().bind(fleet)
        self._old = Candidates([pool for pool in fleet.pools if pool.xpu_id in self._names])
        self._new = Candidates([pool for pool in fleet.pools if pool.xpu_id not in self._names])
        if not self._new.pools:
            raise InputError("router.old", list(self._names), f"fewer than all xPUs of this fleet: {' | '.join(there)}")

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return an old pool if it is on time and cleaner, else the least loaded newer one that holds the request."""
        old, grams = self._least(self._old.holding(request), request, fleet)
        new = least_outstanding(self._new.holding(request))
        if new is None:
            return old if old is not None else self._guard.least_late(self._old.holding(request), request)
        return old if old is not None and grams < self._score(new, request, fleet) else new
