"""A model's first layers near the client, the others in the cloud: activations cross the network for every token."""

from __future__ import annotations

from typing import Any

from sim.errors import InputError, number
from sim.fleet.leg import Leg
from sim.journey import Journey, Steps
from sim.request import Request
from sim.routing.rounds import BackAndForth, Stay, ending, place_of, send_back

_NAME = "layer_split"
_ROLE = "layers"


class LayerSplit(BackAndForth):
    """Runs a model's first layers in one pool and the others in another, a round trip a token.

    The prompt goes through the first layers, its activations over the network, and through the others, which give the
    first token; it goes back, to the client and to the first layers again, for the next. The prompt's text stays at the
    near side; the answer's does not, for the far side has the output head. Both keep the request's KV cache of their
    layers until its last token: its memory is set aside for so long.

    Args:
        first, rest: a kind of site or a pool each, whose `layers` are the first and the other ones of one model.
        value_bytes: size of a value of the activations [bytes]: one a token and hidden dimension goes up.
        reply_bytes: sent back for each token [bytes].

    Source: Neurosurgeon and EdgeShard, with the layer to split at given instead of optimised. A prompt crosses in one
    piece, and a request has one token under way, as in EdgeShard's sequential inference.
    """

    splits_layers = True  #: may be given pools that have a part of a model

    def __init__(
        self, first: str = "edge", rest: str = "cloud", value_bytes: float = 2.0, reply_bytes: float = 200.0
    ) -> None:
        super().__init__(_NAME, first=first, rest=rest)
        self._value_bytes = number("router.value_bytes", value_bytes, "a size > 0 bytes", above=0.0)
        self._reply_bytes = number("router.reply_bytes", reply_bytes, "a size >= 0 bytes", low=0.0)

    def check(self, near: Any, far: Any) -> None:
        """Check that two pools make one model."""
        one, other = near.spec.model.part, far.spec.model.part
        if one is None or other is None or one.of != other.of or one.first or one.end == one.layers:
            accepted = (
                "first layers of a model and the others of it, by layers: [first, end] of both pools; there are: "
            )
            accepted += f"{near.spec.model.id} in {near.name}, {far.spec.model.id} in {far.name}"
            raise InputError("router", _NAME, accepted)
        if (other.first, other.end) != (one.end, one.layers):
            accepted = f"the layers that {near.name} does not have, [{one.end}, {one.layers}]"
            raise InputError(f"pools.{far.name}.layers", [other.first, other.end], accepted)

    def rounds(self, request: Request, fleet: Journey, near: Stay, far: Stay) -> Steps:
        """One token after the other, through both parts."""
        prompt, parts = request.prompt, []
        here = place_of(fleet, near.pool.site_name, far.pool.site_name)
        token_bytes = self._value_bytes * near.pool.spec.model.hidden
        home: Leg | None = None
        for made in range(request.output):
            length, fresh = prompt + made, 1 if made else prompt - request.cached
            known, replica = length - fresh, near.replica
            if home is None:
                home = below = yield fleet.serve(near.pool, output=1, role=_ROLE, replica=replica)
            else:
                below = yield fleet.serve(
                    near.pool, prompt=length, output=1, cached=known, role=_ROLE, source=near.pool.site_name,
                    nbytes=0.0, replica=replica,
                )  # fmt: skip
            if not below.ok:
                return ending(below)
            above: Leg = yield fleet.serve(
                far.pool, prompt=length, output=1, cached=known, role=_ROLE, source=here, nbytes=fresh * token_bytes,
                replica=far.replica,
            )  # fmt: skip
            if not above.ok:
                return ending(above)
            parts.append((yield from send_back(fleet, above, self._reply_bytes, 1, home, here)))
        return fleet.answer(*parts)
