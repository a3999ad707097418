"""A small model near the client drafts, a large one in the cloud verifies, over the network in every round."""

from __future__ import annotations

import random
from typing import Any

from sim.errors import InputError, number, whole
from sim.fleet.leg import Leg
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView
from sim.routing.candidates import side
from sim.routing.rounds import Homes, Stay, check_rounds, place_of

_NAME = "speculative_edge_draft"


class SpeculativeEdgeDraft:
    """Drafts tokens at one place and verifies them at another, `tokens` a round: the text is the verifier's.

    The client's prompt goes to both, which compute it at once; the first token is the verifier's. Then, in rounds, the
    drafting side decodes up to `tokens` tokens and sends them, the verifying side computes them in one step on top of
    the cached context, and sends back how many it takes and one token of its own. What is taken goes to the client from
    the drafting side. Both keep the request's KV cache until its last round: its memory is set aside for so long.

    A drafted token is taken if those before it were, with probability `acceptance`: a round gives
    (1 - acceptance^(tokens + 1)) / (1 - acceptance) tokens on average. Drafts that are not taken are waste, and with
    them their part of the work of drafting and verifying.

    Args:
        draft, verify: a kind of site or a pool each: a small model near the client, and a large one.
        tokens: drafted in a round, at most.
        acceptance: chance that a drafted token is taken, in [0, 1]. It has no default: it belongs to a pair of models,
            and a text.
        draft_bytes: sent up for each drafted token [bytes]: its number, unless distributions go along.
        reply_bytes: sent back in each round [bytes].

    Source: SpecEdge (edge-assisted speculative decoding), with rounds one after the other: drafting ahead while a
    verification is under way is left out. Acceptance: Leviathan et al., arXiv 2211.17192, equation 1.
    """

    balancer = "least_outstanding"

    def __init__(
        self,
        draft: str = "edge",
        verify: str = "cloud",
        tokens: int = 4,
        acceptance: float | None = None,
        draft_bytes: float = 4.0,
        reply_bytes: float = 200.0,
    ) -> None:
        self._names = draft, verify
        self._tokens = whole("router.tokens", tokens, "a whole number of at least 1 token", low=1)
        accepted = "a chance in [0, 1], measured for the two models; it has no default"
        self._acceptance = number("router.acceptance", acceptance, accepted, low=0.0, high=1.0)
        self._draft_bytes = number("router.draft_bytes", draft_bytes, "a size >= 0 bytes", low=0.0)
        self._reply_bytes = number("router.reply_bytes", reply_bytes, "a size >= 0 bytes", low=0.0)
        if draft == verify:
            raise InputError("router.verify", verify, f"another side than router.draft ({draft})")

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there, and joined."""
        self._drafters, self._verifiers = (
            side(fleet, f"router.{key}", name) for key, name in zip(("draft", "verify"), self._names)
        )
        check_rounds(fleet, _NAME, self._drafters.pools, self._verifiers.pools)
        self._near, self._far = Homes(self._drafters.pools), Homes(self._verifiers.pools)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Go on in rounds, once there is room on both sides."""
        length = request.prompt + request.output
        near = self._near.enter(length)
        far = Stay(length)
        far.settle(None)
        try:
            yield near
            far = self._far.enter(length)
            yield far
            if near.pool is None or far.pool is None:
                return "rejected"
            return (yield from self._rounds(request, fleet, near, far))
        finally:
            self._near.leave(near)
            self._far.leave(far)

    def _rounds(self, request: Request, fleet: Journey, near: Stay, far: Stay) -> Steps:
        prompt, output = request.prompt, request.output
        edge, cloud = near.pool, far.pool
        here = place_of(fleet, edge.site_name, cloud.site_name)
        home: Leg = fleet.serve(edge, output=1, role="prefill", replica=near.replica)
        first: Leg = fleet.serve(cloud, output=1, role="verify", replica=far.replica)
        yield fleet.gather(home, first)
        if not (home.ok and first.ok):
            return _ending(home, first)
        parts = [(yield from self._reply(fleet, first, 1, home, here))]
        luck = random.Random(f"{fleet.seed} {_NAME} {request.id}")
        takes = [luck.random() < self._acceptance for _ in range(output)]
        made, known = 1, prompt  # tokens that the client has; tokens in the cache of the drafting side
        while made < output:
            count = min(self._tokens, output - made - 1)  # the verifier adds one
            if count:
                draft: Leg = yield fleet.serve(
                    edge, prompt=prompt + made, output=count, cached=known, role="draft", source=edge.site_name,
                    nbytes=0.0, replica=near.replica,
                )  # fmt: skip
                if not draft.ok:
                    return _ending(draft)
            verdict: Leg = yield fleet.serve(
                cloud, prompt=prompt + made + count, output=1, cached=prompt + made - 1, role="verify", source=here,
                nbytes=count * self._draft_bytes, replica=far.replica,
            )  # fmt: skip
            if not verdict.ok:
                return _ending(verdict)
            taken = 0
            while taken < count and takes[made + taken]:
                taken += 1
            if count:
                draft.useful, draft.rejected = taken / count, count - taken
                verdict.useful = (taken + 1) / (count + 1)
                known = prompt + made + min(taken, count - 1)  # the last drafted token has not been computed there
            parts.append((yield from self._reply(fleet, verdict, taken + 1, home, here)))
            made += taken + 1
        return fleet.answer(*parts, quality_of=verdict if output > 1 else first)

    def _reply(self, fleet: Journey, verdict: Leg, tokens: int, home: Leg, here: str) -> Any:
        """Send back what is taken, and on to the client."""
        yield fleet.transfer(self._reply_bytes, verdict.pool.site_name, here)
        return fleet.relay(verdict, tokens, by=home)


def _ending(*legs: Leg) -> str:
    """How a request ends of which one of these legs is not well."""
    return next(leg.outcome for leg in legs if not leg.ok)
