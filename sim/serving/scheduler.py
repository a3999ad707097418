"""What the next step holds: vLLM V1's scheduling of decodes, chunked prefill, the queue and preemption."""

from __future__ import annotations

import math
from collections import deque

from sim.hardware.timing import StepTiming
from sim.serving.costs import Shared
from sim.serving.decode_set import DecodeSet
from sim.serving.kv_cache import decode_blocks
from sim.serving.prefix_cache import PrefixCache
from sim.serving.sequence import Sequence

TOLERANCE_S = 1e-9  #: an arrival this close to a step boundary joins the step that starts there [s]


class Scheduler(DecodeSet):
    """Fills steps. `schedule(t)` decides the step that starts at `t`; `admit(t)` tops it up with late arrivals.

    Attributes:
        waiting: the queue, first come first served; a preempted sequence returns to its head.
        blocks: usable KV blocks; max_seqs: most sequences that run at once; budget: most tokens a step may process.
        prefix: the prefix cache, or None; room: blocks, and those that shared prefixes save.
        shared: what it shares with the other replicas of its pool.
        preemptions: how many there were.
        chunks: prompts in the coming step with the tokens each computes; held: their blocks, the step's included.
        left: token budget that the step leaves.
        preempted: True if the step preempted somebody; it then admits nobody.
        async_scheduling: True if a step is scheduled while the one before runs: an arrival during step j joins step
            j + 2 at the earliest; visible_s: arrivals up to then are seen [s].
    """

    # fmt: off
    __slots__ = (
        "_partial", "async_scheduling", "blocks", "budget", "chunks", "held", "left", "max_seqs", "preempted",
        "preemptions", "prefix", "room", "shared", "visible_s", "waiting",
    )
    # fmt: on

    def __init__(
        self,
        shared: Shared,
        blocks: int,
        block_size: int,
        max_seqs: int,
        budget: int,
        timing: StepTiming,
        classes: int,
        active_w: float,
        async_scheduling: bool,
        prefix: PrefixCache | None,
    ) -> None:
        super().__init__(block_size, timing.window, timing.skewed, classes, active_w)
        self.shared, self.blocks, self.max_seqs, self.budget = shared, blocks, max_seqs, budget
        self.prefix, self.room = prefix, blocks
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
        if (self.context + n * (block - 1)) // block + held > self.room:
            self._make_room(t)
            partial = self._partial
            n = self.n
        self.left = self.budget - n
        if self.prefix is not None:
            self.make_cache_fit(self.prefix, self.j, self.context)
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
            if self.prefix is not None:
                self.make_cache_fit(self.prefix, self.j, self.context)
        else:
            self._preempt(t)

    def _fits(self, blocks: int) -> bool:
        """Whether `blocks` blocks fit beside what the decode set takes in the coming step."""
        n, block = self.n, self.block_size
        if (self.context + n * (block - 1)) // block + blocks <= self.room:
            return True
        return decode_blocks(self._residues, self.j, self.context) + blocks <= self.room

    def _make_room(self, t: float) -> None:
        """Preempt from the tail of `running` until the decode set's next step fits."""
        while not self._fits(self.held):
            if self.prefix is not None:
                self.prefix.evict(0)  # memory is full to the last block when somebody has to go
            self._preempt(t)

    def admit(self, t: float) -> None:
        """Admit from the head of the queue while seats, token budget and memory last. A prompt is admitted only if
        all of it would fit; its blocks are taken chunk by chunk."""
        waiting, running, block = self.waiting, self.running, self.block_size
        while waiting and self.left > 0 and len(running) < self.max_seqs:
            seq = waiting[0]
            if seq.queued_s > self.visible_s + TOLERANCE_S:
                return
            if self.prefix is not None:
                if not self._admit_prefix(self.prefix, seq):
                    return
            elif not self._fits(self.held - (-seq.length // block)):
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
            if self.prefix is not None:
                self.make_cache_fit(self.prefix, self.j, self.context)

    def _admit_prefix(self, prefix: PrefixCache, seq: Sequence) -> bool:
        """Let a sequence share what is resident of its prefix, if all of it then fits."""
        hits = prefix.hits(seq)
        if not self._fits(self.held - (-seq.length // self.block_size) - prefix.shared_blocks(hits)):
            return False
        prefix.acquire(seq, hits)
        self.room = self.blocks + prefix.saved
        if seq.scheduled_s < 0.0:
            seq.cached = seq.done
        return True

    def release(self, seq: Sequence) -> None:
        """Give up a sequence's share of the prefix cache."""
        if self.prefix is not None:
            self.prefix.release(seq)
            self.room = self.blocks + self.prefix.saved

    def make_cache_fit(self, prefix: PrefixCache, j: int, context: int) -> None:
        """Evict idle prefixes that the blocks in use in the step with counter `j` leave no room for."""
        n, block = self.n, self.block_size
        if (context + n * (block - 1)) // block + self.held + prefix.idle_blocks > self.room:
            prefix.evict(self.room - self.held - decode_blocks(self._residues, j, context))

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
        self.release(seq)
        seq.preemptions += 1
        self.preemptions += 1
        self.preempted = True
        self.waiting.appendleft(seq)
        self.shared.waiting += 1
