"""What the next step holds: vLLM V1's scheduling of decodes, chunked prefill, the queue and preemption."""

from __future__ import annotations

import math
from collections import deque

from sim.serving.costs import Shared
from sim.serving.decode_set import DecodeSet
from sim.serving.kv_cache import decode_blocks
from sim.serving.sequence import Sequence

TOLERANCE_S = 1e-9  #: an arrival this close to a step boundary joins the step that starts there [s]


class Scheduler(DecodeSet):
    """Fills steps. `schedule(t)` decides the step that starts at `t`; `admit(t)` tops it up with late arrivals.

    Attributes:
        waiting: the queue, first come first served; a preempted sequence returns to its head.
        blocks: usable KV blocks; max_seqs: most sequences that run at once; budget: most tokens a step may process.
        shared: what it shares with the other replicas of its pool.
        preemptions: how many there were.
        chunks: prompts in the coming step with the tokens each computes; held: their blocks, the step's included.
        left: token budget that the step leaves.
        preempted: True if the step preempted somebody; it then admits nobody.
        async_scheduling: True if a step is scheduled while the one before runs: an arrival during step j joins step
            j + 2 at the earliest; visible_s: arrivals up to then are seen [s].
    """

    __slots__ = (
        "_partial", "async_scheduling", "blocks", "budget", "chunks", "held", "left", "max_seqs", "preempted",
        "preemptions", "shared", "visible_s", "waiting",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        blocks: int,
        block_size: int,
        max_seqs: int,
        budget: int,
        window: int,
        skewed: bool,
        classes: int,
        active_w: float,
        async_scheduling: bool,
    ) -> None:
        super().__init__(block_size, window, skewed, classes, active_w)
        self.shared, self.blocks, self.max_seqs, self.budget = shared, blocks, max_seqs, budget
        self.waiting: deque[Sequence] = deque()
        self._partial: Sequence | None = None  # the one prompt that a step left unfinished: always the last admitted
        self.chunks: list[tuple[Sequence, int]] = []
        self.held = self.left = self.preemptions = 0
        self.preempted = False
        self.async_scheduling, self.visible_s = async_scheduling, math.inf

    def schedule(self, t: float) -> bool:
        """Fill the step that starts at `t`: running decodes, the unfinished prompt, then the queue. False if empty."""
        n, block, partial = self.n, self.block_size, self._partial
        self.preempted = False
        self.chunks = []
        self.held = held = 0 if partial is None else -(-partial.done // block)
        # an upper bound first: a sequence leaves at most B - 1 slots of its last block empty
        if (self.context + n * (block - 1)) // block + held > self.blocks:
            self._make_room(t)
            partial = self._partial
            n = self.n
        self.left = self.budget - n
        if partial is not None:
            self._continue(partial, t)
        if self.waiting and not self.preempted:
            if self.async_scheduling and not self.running:
                self.visible_s = t
            self.admit(t)
        return n > 0 or bool(self.chunks)

    def _continue(self, partial: Sequence, t: float) -> None:
        """Give the unfinished prompt its next chunk, or take it out if that does not fit."""
        chunk = min(partial.length - partial.done, self.left)
        held = -(-(partial.done + chunk) // self.block_size)
        if self._fits(held):
            self.chunks.append((partial, chunk))
            self.held = held
            self.left -= chunk
        else:
            self._preempt(t)

    def _fits(self, blocks: int) -> bool:
        """Whether `blocks` blocks fit beside what the decode set takes in the coming step."""
        n, block = self.n, self.block_size
        if (self.context + n * (block - 1)) // block + blocks <= self.blocks:
            return True
        return decode_blocks(self._residues, self.j, self.context) + blocks <= self.blocks

    def _make_room(self, t: float) -> None:
        """Preempt from the tail of `running` until the decode set's next step fits."""
        while not self._fits(self.held):
            self._preempt(t)

    def admit(self, t: float) -> None:
        """Admit from the head of the queue while seats, token budget and memory last. A prompt is admitted only if
        all of it would fit; its blocks are taken chunk by chunk."""
        waiting, running, block = self.waiting, self.running, self.block_size
        while waiting and self.left > 0 and len(running) < self.max_seqs:
            seq = waiting[0]
            if seq.queued_s > self.visible_s + TOLERANCE_S:
                return
            if not self._fits(self.held - (-seq.length // block)):
                return
            waiting.popleft()
            self.shared.waiting -= 1
            running[seq] = None
            if seq.scheduled_s < 0.0:
                seq.scheduled_s = t
            chunk = min(seq.length - seq.done, self.left)
            self.chunks.append((seq, chunk))
            self.held -= -(seq.done + chunk) // block
            self.left -= chunk

    def _preempt(self, t: float) -> None:
        """Take the last admitted sequence out, back to the head of the queue, to be computed again from its start."""
        seq, _ = self.running.popitem()
        if seq.decoding:
            self.withdraw(seq)
            seq.last_s = t
            if seq.segments is None:
                seq.segments = []
            seq.segments.append((seq.row, seq.last_row, 0.0))
        else:
            self._partial = None
            self.held = 0
        seq.waste += seq.prefill
        seq.waste_g += seq.prefill_g
        seq.prefill = 0j
        seq.prefill_g = 0.0
        seq.length = seq.request.prompt + seq.emitted
        seq.done = seq.request.cached
        seq.preemptions += 1
        self.preemptions += 1
        self.preempted = True
        self.waiting.appendleft(seq)
        self.shared.waiting += 1
