"""KV blocks of a decode set some of whose layers keep a window only: still counters by residue, and no loop.

A context of c tokens holds ceil(c / B) blocks of each group that keeps everything. A group with a window of W has given
back floor((c - W) / B) of them once c has passed it. All contexts grow alike, so `offset mod B` decides when a sequence
takes its next block, `(offset - W) mod B` when it gives one back, and those below the window give back nothing: two
histograms, one of all sequences and one of those beyond the window. Every B steps the latter take and give back one
block each, so that memory in use repeats but for what the others take.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.hardware.kv_layout import KvLayout
from sim.serving.kv_cache import decode_blocks

if TYPE_CHECKING:
    from sim.serving.scheduler import Scheduler

_ROUNDING = 1e-3  #: parts, far above the rounding of `grain` over any context


class KvGroups:
    """Blocks of the decode set of one replica.

    Args:
        layout: the groups.
        residues: the decode set's own counters, by the block of groups that keep everything.
        parts, ahead: as in `sim.serving.decode_set`.

    Attributes:
        slack, grain: no more than (context + n * slack) // grain blocks are in use, whatever has been given back.
    """

    __slots__ = ("_ahead", "_beyond", "_block", "_layout", "_residues", "_window", "_windowed", "grain", "slack")

    def __init__(self, layout: KvLayout, residues: list[int], parts: int, ahead: int) -> None:
        self._layout, self._residues, self._ahead = layout, residues, ahead
        self._block = layout.windowed_block * parts
        self._window = layout.window * parts
        own = len(residues) != self._block
        self._windowed = [0] * self._block if own else residues  # by the block of groups with a window
        self._beyond = [0] * self._block  # of those beyond the window
        density = layout.full / len(residues) + layout.windowed / self._block
        self.grain = 1.0 / density
        self.slack = ahead + (layout.full + layout.windowed) * self.grain + _ROUNDING

    def count(self, offset: int, context: int, by: int) -> None:
        """A sequence joins the set, or leaves it if `by` is -1; the decode set counts it by its own block."""
        if self._windowed is not self._residues:
            self._windowed[(offset + self._ahead) % self._block] += by
        if context >= self._window:
            self._beyond[(offset - self._window) % self._block] += by

    def fill(self, offset: int) -> None:
        """The context of a sequence in the set has reached its window."""
        self._beyond[(offset - self._window) % self._block] += 1

    def blocks(self, at: int, n: int, context: int, beyond: int) -> int:
        """Blocks of the set, `at` parts after its offsets.

        Args:
            n: sequences; context: sum of their contexts.
            beyond: sum of what contexts are longer than the window.
        """
        layout, block = self._layout, self._block
        context += n * self._ahead
        rest = 0
        for residue, count in enumerate(self._beyond):
            if count:
                rest += count * ((residue + at) % block)
        kept = decode_blocks(self._windowed, at, context) - (beyond - rest) // block
        if not layout.full:
            return layout.windowed * kept
        return layout.windowed * kept + layout.full * decode_blocks(self._residues, at, context)

    def steps(self, at: int, n: int, below: int, free: int, most: int, need: int | None) -> int:
        """Steps until memory runs out, or until `need` blocks are free, where contexts grow by a token a step.

        Args:
            at: counter of the first step, whose blocks are taken and leave `free` blocks.
            n, below: sequences, and those below the window: none of them fills it within `most` steps.
            most: the most to return, at least 1.
            need: blocks that somebody waits for, more than `free`; None if nobody does.
        """
        layout = self._layout
        full, windowed, residues, block = layout.full, layout.windowed, self._residues, self._block
        period = max(len(residues), block)
        left = [free]
        for counter in range(at, at + min(period, most) - 1):
            free -= windowed * (self._windowed[-counter % block] - self._beyond[(-counter - 1) % block])
            free -= full * residues[-counter % len(residues)]
            if free < 0 or (need is not None and free >= need):
                return len(left)
            left.append(free)
        growth = full * n * (period // len(residues)) + windowed * below * (period // block)
        if most <= period or not growth:
            return most
        rounds = min(left) // growth + 1  # whole periods after which some step does not fit any more
        step = next(step for step, free in enumerate(left) if free < rounds * growth)
        return min(most, rounds * period + step)

    def tokens(self, contexts: float, kept: float) -> float:
        """Tokens that the memory of so many in contexts, `kept` of them within windows, holds at one block each."""
        layout = self._layout
        block, windowed_block = layout.block, layout.windowed_block
        blocks = layout.full * contexts / block + layout.windowed * kept / windowed_block
        return blocks * (min(block, windowed_block) if layout.full else windowed_block)

    def within(self, room: int, most: int, n: int, context: int, pace: int) -> int:
        """Steps of at most `most` that fit into `room` blocks whatever is given back, the first one at any rate."""
        fit = int((room * self.grain - context - n * self.slack) // (n * pace)) + 1
        return max(1, min(most, fit))


def steps_with_windows(scheduler: Scheduler, groups: KvGroups, most: int) -> int:
    """How many of `most` decode steps to take at once: until memory runs out or a window fills, or until somebody who
    waits for memory gets it, with nothing finishing."""
    j, n = scheduler.j, scheduler.n
    if (full := scheduler.next_full_window()) is not None:
        most = min(most, full - j)
    waits = scheduler.waiting and len(scheduler.running) < scheduler.max_seqs
    head = scheduler.waiting.first(scheduler.visible_s) if waits else None
    if head is None and groups.within(scheduler.room, most, n, scheduler.context, scheduler.pace) == most:
        return most
    if scheduler.pace == 1 and not scheduler.ahead:
        free = scheduler.room - scheduler.decode_blocks(j, scheduler.context)
        need = None if head is None else scheduler.layout.needs(head.length, head.done)
        return groups.steps(j, n, scheduler._below, free, most, need)
    if head is not None:
        return 1
    return groups.within(scheduler.room, most, n, scheduler.context, scheduler.pace)


def memory_beside(scheduler: Scheduler, groups: KvGroups, held: float, k: int) -> float:
    """What has to be added to the tokens of contexts and prompts, on average over a span of `k` steps, so that their
    sum is the memory in use. `held` tokens of prompts are there in the first."""
    half, window = 0.5 * (k - 1), scheduler._window
    kept = (scheduler._window_context + scheduler._below * scheduler.pace * half) / scheduler.parts
    tokens = (scheduler.context + scheduler.n * scheduler.pace * half) / scheduler.parts + held
    for seq, chunk in scheduler.chunks:
        tokens += chunk * half
        kept += chunk + 0.5 * (min(seq.done, window - 1) + min(seq.done + chunk * (k - 1), window - 1))
    return groups.tokens(tokens, kept) - tokens
