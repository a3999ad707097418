"""Routers that weigh several signals against each other, or predict what a reader would feel."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from sim.accounting.forecast import forecast_model
from sim.errors import InputError, number
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import Candidates
from sim.routing.slo import SLOGuard, require_known
from sim.units import JOULES_PER_KWH

#: what `Weighted` can weigh; of each, less is better
SIGNALS = ("load", "queue", "memory", "latency", "ttft", "cost", "energy", "carbon", "prefix")


class Weighted:
    """Sends a request where the weighted sum of signals is lowest; the first of equals.

    Each signal is divided by the highest of the pools that hold the request, so that units do not matter and all are
    in [0, 1]. Taking the lowest away as well would make every signal 0 or 1 where there are two pools.

    Args:
        weights: of signals by name; those left out weigh nothing. ``load`` unfinished requests a replica, ``queue``
            those waiting a replica, ``memory`` share of KV blocks in use, ``latency`` and ``ttft`` predicted times,
            ``cost`` USD, ``energy`` J and ``carbon`` forecast g of the request, ``prefix`` prompt tokens to compute.
        forecast: of carbon; see `sim.accounting.forecast`.
        margin, expected_output, batch: see `sim.routing.slo.SLOGuard`.
    """

    balancer = "least_outstanding"

    def __init__(
        self,
        weights: Mapping[str, float],
        forecast: object = "persistence",
        margin: float = 0.8,
        expected_output: int | None = None,
        batch: str = "full",
    ) -> None:
        if not isinstance(weights, Mapping):
            raise InputError("router.weights", weights, f"weights of {', '.join(SIGNALS)}")
        self._weights = {}
        for name, weight in weights.items():
            key = f"router.weights.{name}"
            if name not in SIGNALS:
                raise InputError(key, weight, f"no such signal; there are {', '.join(SIGNALS)}")
            if number(key, weight, "a weight >= 0", low=0.0):
                self._weights[name] = float(weight)
        if not self._weights:
            raise InputError("router.weights", dict(weights), "at least one weight > 0")
        self._model = forecast_model("router.forecast", forecast)
        self._guard = SLOGuard(margin, expected_output, batch)

    def bind(self, fleet: FleetView) -> None:
        """Check that what is weighed is known."""
        self._guard.bind(fleet)
        self._candidates = Candidates(fleet.pools)
        self._forecasts = dict(zip([pool.name for pool in fleet.pools], fleet.forecasts(self._model)))
        if "cost" in self._weights:
            unknown = (math.isnan(pool.work(1, 1).cost_usd) for pool in fleet.pools)
            require_known("weighted", "cost", fleet.pools, unknown)
        if "energy" in self._weights or "carbon" in self._weights:
            unknown = (math.isnan(pool.work(1, 1).energy_j) for pool in fleet.pools)
            require_known("weighted", "energy", fleet.pools, unknown)
        if "carbon" in self._weights:
            unknown = (math.isnan(each.at(fleet.now, fleet.now)) for each in self._forecasts.values())
            require_known("weighted", "grid", fleet.pools, unknown)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool of the lowest weighted sum."""
        pools = self._candidates.holding(request)
        if len(pools) < 2:
            return pools[0] if pools else None
        sums = [0.0] * len(pools)
        for name, weight in self._weights.items():
            values = self._read(name, pools, request, fleet)
            high = max(values)
            if high > 0.0:
                scale = weight / high
                for at, value in enumerate(values):
                    sums[at] += scale * value
        return pools[sums.index(min(sums))]

    def _read(self, name: str, pools: Sequence[PoolView], request: Request, fleet: FleetView) -> list[float]:
        guard = self._guard
        if name == "carbon":
            at, now = self._forecasts, fleet.now
            return [guard.work(p, request).energy_j * at[p.name].at(now, now) / JOULES_PER_KWH for p in pools]
        read = _READ.get(name)
        if read is not None:
            return [read(pool) for pool in pools]
        if name == "prefix":
            return [float(request.prompt - pool.prefix_tokens(request)) for pool in pools]
        if name in ("cost", "energy"):
            works = [guard.work(pool, request) for pool in pools]
            return [each.cost_usd if name == "cost" else each.energy_j for each in works]
        times = [guard.times(pool, request) for pool in pools]
        return [each.ttft_s if name == "ttft" else each.e2e_s for each in times]


_READ: dict[str, Callable[[PoolView], float]] = {
    "load": lambda pool: pool.outstanding / pool.replicas,
    "queue": lambda pool: pool.waiting / pool.replicas,
    "memory": lambda pool: pool.kv_use,
}


class QoEAware:
    """Sends a request where its predicted token-timeline QoE is highest; of equals, where its last token comes first.

    Preempting the running requests of fast readers is the engines' part: set ``engine.scheduler=andes`` with it.

    Args:
        expected_output: output length to predict with [tokens]; None uses the request's own.

    Source: after Liu et al., Andes, arXiv 2404.16283: QoE of text that is delivered at a steady pace.
    """

    balancer = "least_outstanding"

    def __init__(self, expected_output: int | None = None) -> None:
        self._guard = SLOGuard(1.0, expected_output, "present")

    def bind(self, fleet: FleetView) -> None:
        """Consider every pool."""
        self._guard.bind(fleet)
        self._candidates = Candidates(fleet.pools)

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the pool of the highest predicted QoE."""
        slo, output = fleet.slo_classes[request.slo_class], self._guard.output(request)
        best, highest = None, (-math.inf, -math.inf)
        for pool in self._candidates.holding(request):
            times = self._guard.times(pool, request)
            qoe = steady_qoe(times.ttft_s, times.tpot_s, output, slo.expected_ttft_s, slo.digest_tokens_per_s)
            if best is None or (qoe, -times.e2e_s) > highest:
                best, highest = pool, (qoe, -times.e2e_s)
        return best


class QoEPreemptive(QoEAware):
    """`QoEAware` with engines that serve and preempt by QoE as well, where a pool does not name an order of its own.

    Args:
        expected_output: output length to predict with [tokens]; None uses the request's own.

    Source: Liu et al., Andes, arXiv 2404.16283.
    """

    scheduler = "andes"


def steady_qoe(ttft_s: float, tpot_s: float, tokens: int, expected_s: float, speed: float) -> float:
    """Token-timeline QoE (`sim.qoe.token_qoe_v1`) of text delivered at a steady pace, in [0, 1].

    Tokens are digested at the slower of the delivery's pace and the reader's. With e the time of the last token, the
    areas are those under both curves up to e.

    Args:
        ttft_s, tpot_s: of the delivery [s].
        tokens: of output; expected_s: after which text is expected [s]; speed: of reading [tokens/s].
    """
    end_s = ttft_s + (tokens - 1) * tpot_s
    slope = speed if tpot_s * speed <= 1.0 else 1.0 / tpot_s
    expected = _ramp(end_s - expected_s, tokens, speed)
    return min(1.0, _ramp(end_s - ttft_s, tokens, slope) / expected) if expected > 0.0 else 1.0


def _ramp(seconds: float, height: float, slope: float) -> float:
    """Area under min(slope * t, height) for t from 0 to `seconds`."""
    if seconds <= 0.0:
        return 0.0
    rise = min(seconds, height / slope)
    return height * (seconds - rise) + slope * rise * rise / 2.0
