"""Clients that leave."""

from __future__ import annotations

from typing import Any

from simpy.events import Event

from sim.errors import number
from sim.fleet.leg import Pending
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView, Outcome, PoolView
from sim.routing.nested import Inner


class Timeout:
    """Lets another router or policy serve requests whose clients leave after a while.

    A request whose last token is not out by then has timed out: what is served for it is cancelled, and wasted.

    Args:
        router: the other one.
        patience_s: how long clients wait for the last token, after they sent the request [s].
    """

    completed: Any  # a method where the other learns

    def __init__(self, router: object, patience_s: float = 30.0) -> None:
        self._inner = Inner("router.router", router)
        self._patience_s = number("router.patience_s", patience_s, "a time > 0 s", above=0.0)
        self.balancer = self._inner.balancer
        if self._inner.learns:
            self.completed = self._tell

    @property
    def parts(self) -> tuple[Any, ...]:
        """The one that it holds."""
        return (self._inner.router,)

    def bind(self, fleet: FleetView) -> None:
        """Let the other look at the fleet."""
        self._inner.bind(fleet)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Go on as the other would, until patience ends."""
        left = fleet.wait(request.arrival_s + self._patience_s - fleet.now)
        steps, value = self._inner.follow(request, fleet), None
        while True:
            try:
                pending = steps.send(value)
            except StopIteration as stop:
                outcome: Any = stop.value
                return outcome  # type: ignore[no-any-return]
            step = _pending(pending)
            if step is None:  # nonsense: the journey says so
                value = yield pending
                continue
            yield fleet.race(step, left)
            if not step.done:
                steps.close()
                return "timed_out"
            value = step.value

    def _tell(self, request: Request, pool: PoolView, outcome: Outcome) -> None:
        self._inner.completed(request, outcome)


def _pending(step: Any) -> Pending | None:
    """What a policy yielded, as something to race; None if it is neither a pending nor a SimPy event to come."""
    if isinstance(step, Pending):
        return step
    if not isinstance(step, Event) or step.callbacks is None:
        return None
    pending = Pending()
    step.callbacks.append(lambda event: pending.settle(event.value))
    return pending
