"""A request: what a client asked for, and when."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sim.fleet.leg import Leg


class Traits(NamedTuple):
    """What sets a request apart from the next: read by schedulers, adapters, encoders and some routers.

    Attributes:
        tenant: who sent it, from 0; priority: smaller is served first (where a scheduler looks at it).
        deadline_s: when its last token is due, after its arrival [s].
        adapter: fine-tuned adapter that it needs, from 1; 0 is the base model.
        images: images in its prompt; image_tokens: prompt tokens that an encoder makes of them, part of `prompt`.
        private: 1 if it may not leave certain places, which a router has to see to; else 0.
        reasoning_tokens: of its output, those that come first and that its user does not see, fewer than `output`.
    """

    tenant: int = 0
    priority: int = 0
    deadline_s: float = math.inf
    adapter: int = 0
    images: int = 0
    image_tokens: int = 0
    private: int = 0
    reasoning_tokens: int = 0


NO_TRAITS = Traits()


class Request:
    """One client request. Lengths in tokens, times in seconds since the start of the run.

    Attributes:
        id: running number in order of arrival, from 0.
        arrival_s: time at which the client sent it [s].
        prompt: prompt tokens, at least 1.
        output: output tokens, at least 1.
        cached: prompt tokens whose KV is found in a prefix cache, fewer than `prompt`: not computed, but held and read.
        hashes: names of its prompt's prefix units for a prefix cache, or None; names beyond the prompt's stand for
            units that its answer fills; see `sim.serving.prefix_cache`.
        slo_class: index into the workload's `slo_classes`.
        net_s: one-way client latency drawn for it [s]; 0 until it uses a link.
        traits: tenant, priority and the like.
        queued_s: time at which it reached its pool [s]; equals `arrival_s` where there is no network.
        leg: the leg of a journey that it is, or None; see `sim.fleet.leg`.
    """

    # fmt: off
    __slots__ = (
        "arrival_s", "cached", "hashes", "id", "leg", "net_s", "output", "prompt", "queued_s", "slo_class", "traits",
    )
    # fmt: on

    def __init__(
        self,
        id: int,
        arrival_s: float,
        prompt: int,
        output: int,
        slo_class: int = 0,
        cached: int = 0,
        hashes: Sequence[int] | None = None,
        traits: Traits = NO_TRAITS,
    ) -> None:
        self.id = id
        self.arrival_s = arrival_s
        self.prompt = prompt
        self.output = output
        self.slo_class = slo_class
        self.cached = cached
        self.hashes = hashes
        self.traits = traits
        self.net_s = 0.0
        self.queued_s = arrival_s
        self.leg: Leg | None = None

    def shortened(self, output: int) -> Request:
        """The same request with fewer output tokens, the hidden ones of them in proportion."""
        traits = self.traits
        if traits.reasoning_tokens:
            traits = traits._replace(reasoning_tokens=traits.reasoning_tokens * output // self.output)
        return Request(self.id, self.arrival_s, self.prompt, output, self.slo_class, self.cached, self.hashes, traits)

    def __repr__(self) -> str:
        return f"Request(id={self.id}, t={self.arrival_s:.6g} s, prompt={self.prompt}, output={self.output})"
