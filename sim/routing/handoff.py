"""Policies in which one place begins an answer and another one goes on: split by phase, or by what a token costs."""

from __future__ import annotations

import math
from typing import Any

from sim.errors import InputError, number, whole
from sim.fleet.leg import Leg
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView
from sim.routing.candidates import check_kind, least_outstanding, require_kind, side
from sim.routing.slo import require_known

LEAST_WAIT_S = 1e-3  #: between two looks at how far an answer is [s]


class PrefillDecodeSplit:
    """Computes prompts in one pool and decodes in another, on other hardware, maybe at another site.

    The first token comes from the prefill side. Then the prompt's KV cache goes over the link that joins the two sites
    (at no cost within one site), and the decode side goes on from there. Prompts go to the pool with the fewest tokens
    outstanding, answers to the one with the fewest requests. A request that one of the sides cannot hold, or whose
    decode side fails, ends as the other policies' do: rejected, or failed.

    Args:
        prefill, decode: a kind of site or a pool each; all of them serve the same model with the same KV format.

    Source: Splitwise, arXiv 2311.18677; DistServe, arXiv 2401.09670. Within one pool, `prefill_replicas` does the same
    with back-pressure.
    """

    balancer = "least_outstanding"

    def __init__(self, prefill: str = "edge", decode: str = "cloud") -> None:
        self._names = prefill, decode
        if prefill == decode:
            raise InputError("router.decode", decode, f"another side than router.prefill ({prefill})")

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there, apart, of one model, and joined."""
        self._prefill, self._decode = (
            side(fleet, f"router.{key}", name) for key, name in zip(("prefill", "decode"), self._names)
        )
        every = [*self._prefill.pools, *self._decode.pools]
        require_known("prefill_decode_split", "KV cache", every, (math.isnan(p.kv_bytes_per_token) for p in every))
        served = {(pool.model_id, pool.kv_format) for each in (self._prefill, self._decode) for pool in each.pools}
        if len(served) > 1:
            there = ", ".join(sorted(f"{model} with KV in {form}" for model, form in served))
            raise InputError("router", "prefill_decode_split", f"pools of one model and KV format; there are: {there}")
        for one in self._prefill.pools:
            for other in self._decode.pools:
                if one is other:
                    raise InputError("router.decode", self._names[1], f"pools that do not prefill, unlike {one.name}")
                if not fleet.linked(one.site_name, other.site_name):
                    accepted = f"a link that joins {one.site_name} and {other.site_name}, for KV caches"
                    raise InputError("fleet.links", None, accepted)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Compute the prompt, move its KV cache, and decode."""
        prompts, answers = self._prefill.holding(request), self._decode.holding(request)
        if not prompts or not answers:
            return "rejected"
        first: Any = min(prompts, key=lambda pool: pool.outstanding_tokens / pool.replicas)
        begun: Leg = yield fleet.serve(first, output=1, keep=True)
        if not begun.ok or request.output == 1:
            return begun
        other: Any = least_outstanding(self._decode.holding(request))
        if other is None:
            return "failed"
        rest: Leg = yield fleet.serve(
            other,
            prompt=request.prompt + 1,
            output=request.output - 1,
            cached=request.prompt,
            source=first.site_name,
            nbytes=request.prompt * first.kv_bytes_per_token,
            keep=True,
        )
        if not rest.ok:
            return rest.outcome
        return fleet.answer(fleet.stream(begun), fleet.stream(rest))


class TokenMigration:
    """Begins where tokens are dear and quick, and goes on where they are cheap, behind a buffer that hides the change.

    The dear place's tokens come faster than its user reads. Once as many are out as the user reads while the cheap
    place gets prompt and tokens so far and computes them, it takes over and the dear one stops: B = r_c t_m tokens
    ahead, with r_c the reading speed of the request's SLO class and t_m the predicted time to the cheap place's first
    token. With a race both begin, and an answer whose first token is the cheap place's stays there.

    Args:
        dear, cheap: kinds of the sites; both have to serve the same model for the text to go on as it began.
        race_s: how long after the dear place the cheap one starts to race it for the first token [s]; None for no race.
        margin: factor on the buffer; 0 changes at once, and lets the user wait.
        least_left: answers with fewer tokens left than this are finished where they are [tokens].

    Source: DiSCo, arXiv 2502.11417: token-level migration with a buffer of B = r_c * t_m.
    """

    balancer = "least_outstanding"

    def __init__(
        self,
        dear: str = "cloud",
        cheap: str = "edge",
        race_s: float | None = None,
        margin: float = 1.0,
        least_left: int = 1,
    ) -> None:
        self._kinds = check_kind("router.dear", dear), check_kind("router.cheap", cheap)
        if dear == cheap:
            raise InputError("router.cheap", cheap, f"another kind of site than router.dear ({dear})")
        accepted = "a time >= 0 s, or null for no race"
        self._race_s = None if race_s is None else number("router.race_s", race_s, accepted, low=0.0)
        self._margin = number("router.margin", margin, "a factor >= 0", low=0.0)
        self._left = whole("router.least_left", least_left, "a whole number of at least 1 token", low=1)

    def bind(self, fleet: FleetView) -> None:
        """Check that both kinds of site are there."""
        self._dear, self._cheap = (require_kind(fleet, kind, "token_migration") for kind in self._kinds)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Begin at the dear place, or at both, and change places once the user has enough to read."""
        dear, cheap = (least_outstanding(each.holding(request)) for each in (self._dear, self._cheap))
        if dear is None or cheap is None:
            only = cheap if dear is None else dear
            alone: Any = "rejected" if only is None else (yield fleet.serve(only))
            return alone  # type: ignore[no-any-return]
        leg = fleet.serve(dear, keep=True)
        if self._race_s is not None:
            winner: Any = yield from self._race(leg, cheap, fleet)
            if winner is not leg:
                yield winner
                lead: Leg = winner
                return lead
        yield from self._ahead(leg, cheap, request, fleet)
        out = leg.emitted()
        if leg.done or request.output - out < self._left:
            yield leg
            return leg
        other = fleet.serve(cheap, prompt=request.prompt + out, output=request.output - out, keep=True)
        if other.done:  # turned away at the door
            yield leg
            return leg
        fleet.cancel(leg)
        yield fleet.gather(leg, other)
        if not other.ok:
            return other.outcome
        return fleet.answer(fleet.stream(leg, 0, out), fleet.stream(other))

    def _race(self, leg: Leg, cheap: Any, fleet: Journey) -> Steps:
        """Whichever place has the first token; the other is cancelled."""
        yield fleet.race(leg.first, fleet.wait(self._race_s or 0.0))
        if leg.first.done and not (leg.done and not leg.ok):
            return leg
        other = fleet.serve(cheap)
        won = yield fleet.race(leg.first, other.first)
        lead: Leg = won.value
        if lead.done and not lead.ok:
            lead = other if lead is leg else leg
        fleet.cancel(other if lead is leg else leg)
        return lead

    def _ahead(self, leg: Leg, cheap: Any, request: Request, fleet: Journey) -> Steps:
        """Wait until the dear place is a buffer ahead of the user, or through."""
        yield leg.first
        began_s, reads = fleet.now, fleet.slo_classes[request.slo_class].digest_tokens_per_s
        while not leg.done:
            out, since_s = leg.emitted(), fleet.now - began_s
            left = request.output - out
            if left < self._left:
                return None
            change_s = cheap.times(request.prompt + out, left).ttft_s
            missing = self._margin * reads * change_s - (out - reads * since_s)
            if missing <= 0.0:
                return None
            step_s = since_s / (out - 1) if out > 1 else leg.pool.times(request.prompt, request.output).tpot_s
            gains = 1.0 / step_s - reads if step_s > 0.0 else reads
            wait_s = missing / gains if gains > 0.0 else 1.0 / reads
            yield fleet.race(leg, fleet.wait(max(wait_s, LEAST_WAIT_S)))
        return None
