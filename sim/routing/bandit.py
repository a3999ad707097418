"""A router that learns from what became of its requests which pool serves them with least energy, and in time."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.errors import number
from sim.request import Request
from sim.routing.base import FleetView, Outcome, PoolView
from sim.routing.candidates import Candidates
from sim.routing.slo import require_known


@dataclass(slots=True)
class Arm:
    """What is known of one pool for one context: requests sent, ended and late, and their mean joules a token."""

    sent: int = 0
    ended: int = 0
    late: int = 0
    joules: float = 0.0


class Bandit:
    """Constrained upper confidence bounds: the pool of least energy a token among those that may still be on time.

    Pools are the arms; requests of an SLO class and of a size (a factor of four of prompt + output tokens) are a
    context that learns for itself. An arm's energy and its share of late requests are taken at the hopeful end of their
    confidence intervals: arms that are little known are tried, and those that are too often late are left. Where none
    may be on time, the one that is late least often is taken. Predictions are not used.

    Args:
        late: share of requests that may miss their SLO.
        exploration: width of the confidence intervals, in those of UCB1; 0 never looks back.

    Source: after PerLLM, arXiv 2405.14636: constraint satisfaction upper confidence bound (CS-UCB). Its reward is taken
    to be saved energy; the confidence bound is that of UCB1 (Auer, Cesa-Bianchi, Fischer, Machine Learning 2002).
    """

    balancer = "least_outstanding"

    def __init__(self, late: float = 0.05, exploration: float = 0.1) -> None:
        self._late = number("router.late", late, "a share in [0, 1]", low=0.0, high=1.0)
        self._exploration = number("router.exploration", exploration, "a number >= 0", low=0.0)

    def bind(self, fleet: FleetView) -> None:
        """Know nothing yet."""
        require_known("bandit", "energy", fleet.pools, (math.isnan(p.work(1, 1).energy_j) for p in fleet.pools))
        self._candidates = Candidates(fleet.pools)
        self._bounds = [(each.ttft_s, each.tpot_s, each.e2e_s) for each in fleet.slo_classes]
        self._arms: dict[tuple[int, int], dict[str, Arm]] = {}
        self._names = [pool.name for pool in fleet.pools]
        self._largest = 0.0  # mean joules a token of the dearest arm seen: the scale of the intervals

    def _context(self, request: Request) -> dict[str, Arm]:
        key = request.slo_class, int(math.log2(request.prompt + request.output)) // 2
        arms = self._arms.get(key)
        if arms is None:
            arms = self._arms[key] = {name: Arm() for name in self._names}
        return arms

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        """Return the most promising pool, and count the request as sent there."""
        arms, best, lowest = self._context(request), None, (math.inf, math.inf)
        log = math.log(1 + sum(arm.sent for arm in arms.values()))
        for pool in self._candidates.holding(request):
            arm = arms[pool.name]
            # those under way narrow the interval too: else all would go to an unknown arm until its first one ends
            width = self._exploration * math.sqrt(2.0 * log / arm.sent) if arm.sent else math.inf
            late = max(0.0, arm.late / arm.ended - width) if arm.ended else 0.0
            energy = (arm.joules if arm.ended else 0.0) - width * self._largest if arm.sent else -math.inf
            rank = max(0.0, late - self._late), energy
            if best is None or rank < lowest:
                best, lowest = pool, rank
        if best is not None:
            arms[best.name].sent += 1
        return best

    def completed(self, request: Request, pool: PoolView, outcome: Outcome) -> None:
        """Learn from a request."""
        arm = self._context(request)[pool.name]
        ttft_s, tpot_s, e2e_s = self._bounds[request.slo_class]
        arm.ended += 1
        arm.late += outcome.ttft_s > ttft_s or outcome.tpot_s > tpot_s or outcome.e2e_s > e2e_s
        arm.joules += (outcome.energy_j / (request.prompt + request.output) - arm.joules) / arm.ended
        self._largest = max(self._largest, arm.joules)
