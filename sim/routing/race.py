"""Policies that let two places work on the same request."""

from __future__ import annotations

from sim.errors import InputError, number
from sim.fleet.leg import Leg
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView
from sim.routing.candidates import check_kind, least_outstanding, require_kind


class HedgedRace:
    """Sends a request to one place, and after a wait to a second one too; whoever has the first token goes on.

    The loser is cancelled, and what it did is wasted. Short prompts may go to the second place at once.

    Args:
        first, second: kinds of the sites that race.
        wait_s: how long the first may take to its first token before the second starts [s].
        short_prompt: prompts of at most so many tokens start at both at once; 0 for none.

    Source: DiSCo, arXiv 2502.11417: device and server race for the first token, the device after a wait, or at once
    for short prompts.
    """

    balancer = "least_outstanding"

    def __init__(self, first: str = "cloud", second: str = "edge", wait_s: float = 0.5, short_prompt: int = 0) -> None:
        self._kinds = check_kind("router.first", first), check_kind("router.second", second)
        if first == second:
            raise InputError("router.second", second, f"another kind of site than router.first ({first})")
        self._wait_s = number("router.wait_s", wait_s, "a time >= 0 s", low=0.0)
        self._short = number("router.short_prompt", short_prompt, "a number of tokens >= 0", low=0.0)

    def bind(self, fleet: FleetView) -> None:
        """Check that both kinds of site are there."""
        self._first, self._second = (require_kind(fleet, kind, "hedged_race") for kind in self._kinds)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Serve at whichever place has the first token first."""
        pools = [least_outstanding(each.holding(request)) for each in (self._first, self._second)]
        here = [pool for pool in pools if pool is not None]
        if not here:
            return "rejected"
        leg = fleet.serve(here[0])
        wait_s = 0.0 if request.prompt <= self._short else self._wait_s
        if len(here) > 1:
            yield fleet.race(leg.first, fleet.wait(wait_s))
            if not leg.first.done or (leg.done and not leg.ok):
                other = fleet.serve(here[1])
                winner = yield fleet.race(leg.first, other.first)
                lead: Leg = winner.value
                if lead.done and not lead.ok:  # it failed: the other goes on alone
                    lead = other if lead is leg else leg
                fleet.cancel(other if lead is leg else leg)
                leg = lead
        yield leg
        return leg
