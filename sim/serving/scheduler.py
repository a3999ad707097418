"""What the next step holds: vLLM V1's scheduling of decodes, chunked prefill, the queue and preemption."""

from __future__ import annotations

import math

from sim.hardware.kv_layout import KvLayout
from sim.hardware.timing import StepTiming
from sim.serving.adapters import AdapterSlots
from sim.serving.andes import take_turns
from sim.serving.costs import Shared
from sim.serving.decode_set import DecodeSet
from sim.serving.options import Options
from sim.serving.prefix_cache import PrefixCache
from sim.serving.queues import TOLERANCE_S
from sim.serving.sequence import Sequence


class Scheduler(DecodeSet):
    """Fills steps. `schedule(t)` decides the step that starts at `t`; `admit(t)` tops it up with late arrivals.

    Attributes:
        waiting: the queue, in the order of admission that `options` name.
        options: how it deviates from plain vLLM V1.
        blocks: usable KV blocks; max_seqs: most sequences that run at once; budget: most tokens a step may process.
        prefix: the prefix cache, or None; room: blocks, and those that shared prefixes save.
        shared: what it shares with the other replicas of its pool.
        preemptions: how many there were.
        chunks: prompts in the coming step with the tokens each computes; held: their blocks, the step's included.
        left: token budget that the step leaves.
        preempted: True if the step preempted somebody; it then admits nobody.
        visible_s: arrivals up to then are seen [s].
        charges: what the coming step takes besides for single sequences, such as loading their adapter, as
            (sequence, seconds + 1j * joules, whether that is a consequence of preemption).
        adapters: those loaded, or None; swap_blocks: blocks that the host can still keep.
        special: True if sequences hold anything but a seat and blocks of their own.
        turn_s: when it is decided next who is served, where `options.quantum_s` is not 0 [s].
        pinned: blocks set aside for KV that is on its way to or from another replica.
        reserved: blocks set aside for whole lives, where `options.reserves`.
        ending_seats, ending_blocks: what sequences held that ended in the last step, with asynchronous scheduling: the
            coming step was scheduled before they had.
    """

    # fmt: off
    __slots__ = (
        "_charges", "_closed", "_open", "_partial", "_quantum_s", "_whole", "adapters", "async_scheduling", "blocks",
        "budget", "charges", "chunks", "ending_blocks", "ending_seats", "held", "left", "max_seqs", "options",
        "pinned", "preempted", "preemptions", "prefix", "reserved", "room", "shared", "special", "swap_blocks",
        "turn_s", "visible_s", "waiting",
    )
    # fmt: on

    def __init__(
        self,
        shared: Shared,
        blocks: int,
        layout: KvLayout,
        max_seqs: int,
        budget: int,
        timing: StepTiming,
        classes: int,
        active_w: float,
        options: Options,
        prefix: PrefixCache | None,
    ) -> None:
        super().__init__(
            layout, timing.window, timing.skewed, classes, active_w, options.parts, options.pace, options.drafts
        )
        self.shared, self.blocks, self.max_seqs, self.budget = shared, blocks, max_seqs, budget
        self.prefix, self.room = prefix, blocks
        self.options, self.waiting = options, options.queue()
        self._partial: Sequence | None = None  # the one prompt that a step left unfinished: always the last admitted
        self.chunks: list[tuple[Sequence, int]] = []
        self.held = self.left = self.preemptions = self.pinned = self.ending_seats = self.ending_blocks = 0
        self.preempted = False
        self.async_scheduling, self.visible_s = options.async_scheduling, math.inf
        self.charges: list[tuple[Sequence, complex, bool]] = []
        self.adapters = AdapterSlots(options.adapter_slots) if options.adapter_slots else None
        self.swap_blocks, self.reserved = options.swap_tokens // layout.block, 0
        self._open = True  # whether the coming step may admit anybody
        self._closed, self._whole = options.closed_batches, options.whole_prompts
        self._quantum_s, self.turn_s = options.quantum_s, 0.0
        self.special = prefix is not None or self.adapters is not None or options.reserves
        self._charges = bool(options.swap_tokens or options.adapter_slots or options.encode or options.offload_s)

    def schedule(self, t: float) -> bool:
        """Fill the step that starts at `t`: running decodes, the unfinished prompt, then the queue. False if empty."""
        if self.ending_seats and not self.running:
            self.ending_seats = self.ending_blocks = 0  # no step was scheduled before they ended
        if self._fill(t):
            return True
        if not self.ending_seats or not self.waiting:
            return False
        charges = self.charges  # of whom those that ended left no room: with them gone, it is back at once
        self.charges = []
        self.ending_seats = self.ending_blocks = 0
        filled = self._fill(t)
        self.charges = charges + self.charges
        return filled

    def _fill(self, t: float) -> bool:
        """`schedule` beside the seats and blocks of those that ended in the last step."""
        n, partial = self.n, self._partial
        idle = self.async_scheduling and not self.running
        self.preempted = False
        self.chunks = []
        if self.charges:
            self.charges = []
        if self._closed:
            self._open = not self.running
        if self._quantum_s and self.waiting and t >= self.turn_s - TOLERANCE_S:
            take_turns(self, t)
            self.turn_s = t + self._quantum_s
            n, partial = self.n, self._partial
        self.held = held = 0 if partial is None else self.layout.held(partial.done, partial.done)
        # an upper bound first, as if every sequence had just begun a block
        if (self.context + n * self._slack) // self._grain + held + self.ending_blocks > self.room:
            self._make_room(t)
            partial = self._partial
            n = self.n
        self.left = self.budget - n * self.queries
        if self.prefix is not None:
            self.make_cache_fit(self.prefix, self.j, self.context)
        if partial is not None:
            self._continue(partial, t)
        if self.waiting and not self.preempted:
            if idle:
                self.visible_s = t
            self.admit(t)
        return n > 0 or bool(self.chunks)

    def _continue(self, partial: Sequence, t: float) -> None:
        """Give the unfinished prompt its next chunk, or take it out if that does not fit."""
        chunk = min(partial.length - partial.done, self.left)
        held = self.layout.held(partial.done, partial.done + chunk)
        while not self._fits(held):
            self._preempt(t)
            if self._partial is None:
                return
        self.chunks.append((partial, chunk))
        self.held = held
        self.left = self.budget - self.n * self.queries - chunk
        if self.prefix is not None:
            self.make_cache_fit(self.prefix, self.j, self.context)

    def _fits(self, blocks: int) -> bool:
        """Whether `blocks` blocks fit beside what the decode set takes in the coming step, and those not free yet."""
        blocks += self.ending_blocks
        if (self.context + self.n * self._slack) // self._grain + blocks <= self.room:
            return True
        return self.decode_blocks(self.j, self.context) + blocks <= self.room

    def _make_room(self, t: float) -> None:
        """Preempt until the decode set's next step fits."""
        while not self._fits(self.held):
            if self.prefix is not None:
                self.prefix.evict(self._blocks_left() if self.ahead else self.ending_blocks)
            self._preempt(t)

    def _blocks_left(self) -> int:
        """Blocks that are free when the first running sequence, in order of admission, does not get all it needs: none
        if each needs one at most, which drafted tokens may exceed."""
        held, grows = self.held, []
        for seq in self.running:
            if seq.decoding:
                context = seq.offset + self.j * self.pace
                before = -((self.pace - context - self.ahead) // self._block)
                if context == (seq.length + 1) * self.parts:  # it has only just begun to decode
                    before = -(-seq.length // self.block_size)
                held += before
                grows.append(-((-context - self.ahead) // self._block) - before)
        left = self.room - held
        for more in grows:
            if more > left - self.ending_blocks:
                break
            left -= more
        return left

    def admit(self, t: float) -> None:
        """Admit from the head of the queue while seats, token budget and memory last. A prompt is admitted only if
        all of it would fit; its blocks are taken chunk by chunk."""
        waiting, running, layout = self.waiting, self.running, self.layout
        if not self._open:
            return
        seats, windowed = self.max_seqs - self.ending_seats, self.groups is not None
        while waiting and self.left > 0 and len(running) < seats:
            seq = waiting.first(self.visible_s)
            if seq is None:
                return
            if self.special:
                if not self._obtain(seq):
                    return
            elif not self._fits(
                self.held + (layout.needs(seq.length, seq.done) if windowed else -(-seq.length // self.block_size))
            ):
                return
            waiting.take()
            self.shared.waiting -= 1
            running[seq] = None
            if self._charges:
                self._charge(seq)
            if seq.scheduled_s < 0.0:
                seq.scheduled_s = t
            chunk = seq.length - seq.done
            if chunk > self.left and not self._whole:
                chunk = self.left
            self.chunks.append((seq, chunk))
            reach = seq.done + chunk
            self.held += layout.held(seq.done, reach) if windowed else -(-reach // self.block_size)
            self.left -= chunk
            if self.prefix is not None:
                self.make_cache_fit(self.prefix, self.j, self.context)

    def _obtain(self, seq: Sequence) -> bool:
        """Get a sequence what it needs besides a seat and budget, if all of it is there: memory, an adapter's slot."""
        if self.adapters is not None and not self.adapters.has_room(seq.request.traits.adapter):
            return False
        if self.prefix is not None:
            return self._admit_prefix(self.prefix, seq)
        if not self._fits(self.held + self.layout.needs(seq.length, seq.done)):
            return False
        return not self.options.reserves or self._reserve(seq)

    def _reserve(self, seq: Sequence) -> bool:
        """Set the memory of a sequence's whole life aside, if there is as much, and budget for a prompt in one piece.

        A prompt beyond the budget is the only one of its step.
        """
        if self.options.whole_prompts and seq.length - seq.done > self.left and self.chunks:
            return False
        blocks = self._life_blocks(seq)
        if self.reserved + blocks > self.room:
            return False
        self.reserved += blocks
        return True

    def _life_blocks(self, seq: Sequence) -> int:
        """Most blocks that a sequence holds: the KV of its last token is never needed, that of drafted ones is."""
        beyond = self.options.drafts + (self.parts > 1)  # its last context may end on a fraction
        return -(-(seq.request.prompt + seq.target - 1 + beyond) // self.block_size)

    def _charge(self, seq: Sequence) -> None:
        """Note what admitting a sequence takes besides its tokens."""
        options = self.options
        if seq.swapped:
            self.charges.append((seq, complex(seq.done * options.swap_s), True))
            self.swap_blocks += seq.swapped
            seq.swapped = 0
        elif self.prefix is not None and self.prefix.loaded:
            self.charges.append((seq, complex(self.prefix.loaded * self.prefix.unit * options.offload_s), False))
        if self.adapters is not None and self.adapters.acquire(seq.request.traits.adapter):
            self.charges.append((seq, complex(options.adapter_load_s), False))
        if options.encode is not None and seq.scheduled_s < 0.0 and (charge := options.encode(seq.request)):
            self.charges.append((seq, charge, False))

    def _admit_prefix(self, prefix: PrefixCache, seq: Sequence) -> bool:
        """Let a sequence share what is resident of its prefix, if all of it then fits."""
        hits = [] if seq.swapped else prefix.hits(seq)
        if not self._fits(self.held - (-seq.length // self.block_size) - prefix.shared_blocks(hits)):
            return False
        if not seq.swapped:
            prefix.acquire(seq, hits)
        self.room = self.blocks - self.pinned + prefix.saved
        if seq.scheduled_s < 0.0:
            seq.cached = seq.done
        return True

    def release(self, seq: Sequence, leaves: bool = False) -> None:
        """Give up a sequence's share of the prefix cache, its adapter and what was reserved for it; where it leaves for
        another replica, its prefix stays until it has been copied."""
        if self.adapters is not None:
            self.adapters.release(seq.request.traits.adapter)
        if self.reserved:
            self.reserved -= self._life_blocks(seq)
        if self.prefix is not None and not leaves:
            self.prefix.release(seq)
            self.room = self.blocks - self.pinned + self.prefix.saved

    def make_cache_fit(self, prefix: PrefixCache, j: int, context: int) -> None:
        """Evict idle prefixes that the blocks in use in the step with counter `j` leave no room for."""
        if (context + self.n * self._slack) // self._grain + self.held + prefix.idle_blocks > self.room:
            prefix.evict(self.room - self.held - self.decode_blocks(j, context))

    def drop(self, seq: Sequence, t: float, status: int) -> None:
        """End a running sequence at a boundary, before its last token: what it held is free.

        What a cancelled one has decoded may be found again in the prefix cache; its prompt's chunks so far may not.
        """
        del self.running[seq]
        seq.last_s = t
        if seq.decoding:
            self.withdraw(seq)
            if self.prefix is not None:
                self.prefix.register(seq, seq.request.prompt + seq.emitted - 1)
        else:
            self._partial = None
            seq.row, seq.last_row = 0, -1
        self.release(seq)
        seq.status = status
        seq.on_done(seq)

    def drop_waiting(self, seq: Sequence, t: float, status: int) -> None:
        """End a sequence that waits, at once."""
        self.waiting.remove(seq)
        self.shared.waiting -= 1
        self.swap_blocks += seq.swapped
        seq.swapped = 0
        seq.last_s = t
        seq.row, seq.last_row = 0, -1  # whatever it decoded before a preemption is in its segments
        seq.status = status
        seq.on_done(seq)

    def _preempt(self, t: float) -> None:
        """Take out whom the queue names."""
        self.preempt(self.waiting.victim(self.running), t)

    def preempt(self, seq: Sequence, t: float) -> None:
        """Take a sequence out, back into the queue: to be computed again from its start, or to be swapped back in."""
        del self.running[seq]
        if seq.decoding:
            self.withdraw(seq)
            seq.last_s = t
            if seq.segments is None:
                seq.segments = []
            seq.segments.append((seq.row, seq.last_row, 0.0))
            seq.length = seq.done = seq.request.prompt + seq.emitted
            seq.done -= 1  # the last token's KV comes with the step that it begins
        else:
            self._partial = None
            self.held = 0
        if not self._swap_out(seq):
            seq.waste += seq.prefill
            seq.waste_g += seq.prefill_g
            seq.prefill = 0j
            seq.prefill_g = 0.0
            seq.done = seq.request.cached
        self.release(seq)
        seq.preemptions += 1
        self.preemptions += 1
        self.preempted = True
        self.waiting.put_back(seq)
        self.shared.waiting += 1

    def _swap_out(self, seq: Sequence) -> bool:
        """Copy a sequence's KV to the host, if it has room."""
        blocks = -(-seq.done // self.block_size)
        if not 0 < blocks <= self.swap_blocks:
            return False
        self.swap_blocks -= blocks
        seq.swapped = blocks
        self.charges.append((seq, complex(seq.done * self.options.swap_s), True))
        return True
