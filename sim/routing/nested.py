"""What a router or policy that holds others needs: the others, and views of a fleet for them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sim.accounting.forecast import Forecast, ForecastModel
from sim.errors import InputError, provider
from sim.fleet.leg import Leg
from sim.journey import Journey, Steps, follow
from sim.request import Request
from sim.routing.base import FleetView, Outcome

_INNER = "a router or policy of its own, such as {_target_: sim.routing.load.LeastOutstanding}"


class FleetOf:
    """A fleet as an inner router sees it: with these pools; all else is the whole fleet's.

    Args:
        fleet: the whole one.
        pools: those that the inner router sees, or what stands for them.
    """

    def __init__(self, fleet: FleetView, pools: Sequence[Any]) -> None:
        self._fleet, self.pools = fleet, list(pools)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._fleet, name)

    def forecasts(self, model: ForecastModel) -> list[Forecast]:
        """Forecasts of carbon intensity, one a pool that is seen."""
        known = dict(zip([pool.name for pool in self._fleet.pools], self._fleet.forecasts(model)))
        return [known[pool.name] for pool in self.pools]


class JourneyOf(FleetOf):
    """A request's journey as an inner policy sees it: with these pools, which may stand for others (`live`)."""

    _fleet: Any

    def serve(self, pool: Any, **how: Any) -> Leg:
        """See `Journey.serve`."""
        leg: Leg = self._fleet.serve(getattr(pool, "live", pool), **how)
        return leg

    @property
    def request(self) -> Request:
        """See `Journey.request`."""
        request: Request = self._fleet.request
        return request

    @request.setter
    def request(self, request: Request) -> None:
        self._fleet.request = request

    @property
    def escalations(self) -> int:
        """See `Journey.escalations`."""
        return int(self._fleet.escalations)

    @escalations.setter
    def escalations(self, count: int) -> None:
        self._fleet.escalations = count


class Inner:
    """A router or policy inside another: with or without the methods that it may leave out.

    Args:
        key: of the configuration, for errors.
        router: an object with `choose` or `handle`.

    Attributes:
        is_policy: whether it is a policy; learns: whether it wants to know what becomes of requests.
        balancer: how it lets pools balance.
    """

    def __init__(self, key: str, router: object) -> None:
        self.is_policy = hasattr(router, "handle")
        self.router: Any = provider(key, router, ["handle" if self.is_policy else "choose"], _INNER)
        self.balancer: str = getattr(router, "balancer", None) or "least_outstanding"
        self._completed: Any = getattr(router, "completed", None)
        self.learns = self._completed is not None
        self._sent: dict[int, Any] = {}  # requests under way, where it wants to know what becomes of them

    def bind(self, fleet: FleetView, pools: Sequence[Any] | None = None) -> None:
        """Show it the pools it may choose from; None for all."""
        self._pools = fleet.pools if pools is None else list(pools)
        self._view: Any = fleet if pools is None else FleetOf(fleet, pools)
        self._whole = pools is None
        self._sent.clear()
        bind = getattr(self.router, "bind", None)
        if bind is not None:
            bind(self._view)

    def choose(self, request: Request, fleet: FleetView | None = None) -> Any:
        """Ask it, if it is a router; the pool is one of those it was shown, or None."""
        pool = self.router.choose(request, self._view)
        if self._completed is not None and pool is not None:
            self._sent[request.id] = pool
        return pool

    def follow(self, request: Request, fleet: Journey) -> Steps:
        """Let it lead a request on its journey."""
        if not self.is_policy:
            return follow(self, request, JourneyOf(fleet, self._pools))  # type: ignore[arg-type]
        view: Any = fleet if self._whole else JourneyOf(fleet, self._pools)
        return follow(self.router, request, view)

    def completed(self, request: Request, outcome: Outcome) -> None:
        """Tell it what became of a request, if it chose its pool and wants to know."""
        pool = self._sent.pop(request.id, None)
        if pool is not None:
            self._completed(request, pool, outcome)


def check_nesting(router: Any, above: tuple[Any, ...] = ()) -> None:
    """Refuse a router or policy that holds itself, through however many others.

    Raises:
        InputError: it does.
    """
    for part in getattr(router, "parts", ()):
        if part is router or any(part is each for each in above):
            raise InputError("router", type(part).__name__, "routers and policies that do not hold one another in turn")
        check_nesting(part, (*above, router))
