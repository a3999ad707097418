"""A request: what a client asked for, and when."""

from __future__ import annotations

from collections.abc import Sequence


class Request:
    """One client request. Lengths in tokens, times in seconds since the start of the run.

    Attributes:
        id: running number in order of arrival, from 0.
        arrival_s: time at which the client sent it [s].
        prompt: prompt tokens, at least 1.
        output: output tokens, at least 1.
        cached: prompt tokens whose KV is found in a prefix cache, fewer than `prompt`: not computed, but held and read.
        hashes: names of its prompt's prefix units for a prefix cache, or None; see `sim.serving.prefix_cache`.
        slo_class: index into the workload's `slo_classes`.
        net_s: one-way client latency drawn for it [s]; 0 until it uses a link.
        queued_s: time at which it reached its pool [s]; equals `arrival_s` where there is no network.
    """

    __slots__ = ("arrival_s", "cached", "hashes", "id", "net_s", "output", "prompt", "queued_s", "slo_class")

    def __init__(
        self,
        id: int,
        arrival_s: float,
        prompt: int,
        output: int,
        slo_class: int = 0,
        cached: int = 0,
        hashes: Sequence[int] | None = None,
    ) -> None:
        self.id = id
        self.arrival_s = arrival_s
        self.prompt = prompt
        self.output = output
        self.slo_class = slo_class
        self.cached = cached
        self.hashes = hashes
        self.net_s = 0.0
        self.queued_s = arrival_s

    def __repr__(self) -> str:
        return f"Request(id={self.id}, t={self.arrival_s:.6g} s, prompt={self.prompt}, output={self.output})"
