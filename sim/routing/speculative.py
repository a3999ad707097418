"""A small model near the client drafts, a large one in the cloud verifies, over the network in every round."""

from __future__ import annotations

import math
import random

from sim.errors import number, whole
from sim.fleet.leg import Leg
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.base import FleetView
from sim.routing.rounds import BackAndForth, Stay, ending, place_of, send_back

_NAME = "speculative_edge_draft"


class SpeculativeEdgeDraft(BackAndForth):
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

    def __init__(
        self,
        draft: str = "edge",
        verify: str = "cloud",
        tokens: int = 4,
        acceptance: float | None = None,
        draft_bytes: float = 4.0,
        reply_bytes: float = 200.0,
    ) -> None:
        super().__init__(_NAME, draft=draft, verify=verify)
        self._tokens = whole("router.tokens", tokens, "a whole number of at least 1 token", low=1)
        self._acceptance = math.nan if acceptance is None else _chance(acceptance)
        self._draft_bytes = number("router.draft_bytes", draft_bytes, "a size >= 0 bytes", low=0.0)
        self._reply_bytes = number("router.reply_bytes", reply_bytes, "a size >= 0 bytes", low=0.0)

    def bind(self, fleet: FleetView) -> None:
        """Check that both sides are there, and joined, and that it is known how good drafts are."""
        if math.isnan(self._acceptance):
            _chance(None)
        super().bind(fleet)

    def rounds(self, request: Request, fleet: Journey, near: Stay, far: Stay) -> Steps:
        """Compute the prompt on both sides; then draft, verify, and send on what is taken."""
        prompt, output = request.prompt, request.output
        edge, cloud = near.pool, far.pool
        here = place_of(fleet, edge.site_name, cloud.site_name)
        home: Leg = fleet.serve(edge, output=1, role="prefill", replica=near.replica)
        first: Leg = fleet.serve(cloud, output=1, role="verify", replica=far.replica)
        yield fleet.gather(home, first)
        if not (home.ok and first.ok):
            return ending(home, first)
        parts = [(yield from send_back(fleet, first, self._reply_bytes, 1, home, here))]
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
                    return ending(draft)
            verdict: Leg = yield fleet.serve(
                cloud, prompt=prompt + made + count, output=1, cached=prompt + made - 1, role="verify", source=here,
                nbytes=count * self._draft_bytes, replica=far.replica,
            )  # fmt: skip
            if not verdict.ok:
                return ending(verdict)
            taken = 0
            while taken < count and takes[made + taken]:
                taken += 1
            if count:
                draft.useful, draft.rejected = taken / count, count - taken
                verdict.useful = (taken + 1) / (count + 1)
                known = prompt + made + min(taken, count - 1)  # the last drafted token has not been computed there
            parts.append((yield from send_back(fleet, verdict, self._reply_bytes, taken + 1, home, here)))
            made += taken + 1
        return fleet.answer(*parts, quality_of=verdict if output > 1 else first)


def _chance(value: object) -> float:
    accepted = "a chance in [0, 1], measured for the two models; it has no default"
    return number("router.acceptance", value, accepted, low=0.0, high=1.0)
