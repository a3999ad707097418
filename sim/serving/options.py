"""How one replica's engine deviates from plain vLLM V1: each option is off by default and then costs nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sim.request import Request
from sim.serving.queues import Fcfs, Queue


@dataclass(frozen=True, slots=True)
class Options:
    """Settings of a scheduler; times in seconds, and charges as seconds + 1j * joules of dynamic energy.

    Attributes:
        queue: makes the queue: the order of admission.
        async_scheduling: True if a step is scheduled while the one before runs: an arrival during step j joins step
            j + 2 at the earliest, which is also the first to find the seat and blocks of who ends in step j.
        whole_prompts: True if a prompt is never split over steps (Orca); the memory of a request's whole life is then
            reserved when it is admitted, so that nothing is ever preempted.
        closed_batches: True if nobody is admitted before the whole batch has ended (static batching).
        swap_tokens: tokens whose KV the host can keep for preempted sequences; 0 recomputes instead.
        swap_s: time to copy one token's KV to or from the host [s].
        adapter_slots: fine-tuned adapters that can be loaded at once; 0 if the engine serves the base model only.
        adapter_load_s: time to load one, during which the replica computes nothing [s].
        drafts: tokens guessed ahead for each sequence in a step (speculative decoding); pace, parts: a step yields pace
            / parts tokens a sequence on average, all at its end; the fraction is carried over to the next.
        offload_s: time to load one token's KV of a prefix from the host [s].
        quantum_s: time between decisions who is served, with `sim.serving.andes` [s]; 0 decides nothing. Then also
            most_preemptions: a request's, beyond which it stays; expectations: (time until text is expected [s], speed
            of reading [tokens/s]) by SLO class.
        encode: what encoding a request's images takes, in the step that admits it; None if nothing is encoded.
    """

    queue: Callable[[], Queue] = Fcfs
    async_scheduling: bool = False
    whole_prompts: bool = False
    closed_batches: bool = False
    swap_tokens: int = 0
    swap_s: float = 0.0
    adapter_slots: int = 0
    adapter_load_s: float = 0.0
    drafts: int = 0
    pace: int = 1
    parts: int = 1
    encode: Callable[[Request], complex] | None = None
    offload_s: float = 0.0
    quantum_s: float = 0.0
    most_preemptions: int = 0
    expectations: tuple[tuple[float, float], ...] = ()

    @property
    def reserves(self) -> bool:
        """Whether the memory of a request's whole life is taken at admission."""
        return self.whole_prompts or self.closed_batches


PLAIN = Options()
