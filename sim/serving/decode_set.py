"""The sequences that decode together, kept as sums: no step and no join or leave ever loops over them.

With the batch fixed every context grows by one token a step. So a sequence is an *offset* (its context is offset + j at
step counter j), its end is a counter value in a heap, its memory a residue, and its share of what the batch used is the
difference of three running totals. Per step, with E what the step took, kappa the part of it per context token read and
S the sum of contexts,

    equal      += (E - kappa * S) / tokens     equal parts: all but attention, and the skew of attention
    by_context += kappa                        attention, by context tokens read
    by_moment  += kappa * j * pace

and a sequence's share is d(equal) + offset * d(by_context) + d(by_moment). Windowed layers read a bounded context and
go by equal parts. With speculative decoding a step yields a fraction of tokens on average: contexts are then counted in
*parts* of a token, and grow by `pace` parts a step; without it a part is a token and the pace is 1.

Time and dynamic energy obey the same formulas, so they ride together as one complex number, seconds + 1j * joules: half
the work on the hottest path.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

from sim.hardware.kv_layout import KvLayout
from sim.serving.kv_cache import decode_blocks
from sim.serving.kv_groups import KvGroups
from sim.serving.sequence import NO_MARKS, Sequence

REBASE_STEPS = 1 << 18  #: steps after which share totals start anew, so that differences keep their digits

Row = tuple[Any, ...]


class DecodeSet:
    """State of a batch of decoding sequences, and the share ledger of its replica.

    Attributes:
        n: sequences in the set.
        parts: parts of a token that contexts are counted in; pace: parts that a sequence gains a step; queries: tokens
            that it has in a step, drafted ones included; ahead: parts that it holds memory for beyond its context.
        context: sum of the contexts that the next step reads [parts]; prompts: prompts in it [parts].
        j: counter of the next step.
        by_class: n by SLO class.
        running: admitted sequences in order of admission, prompts in prefill included.
        rows: the step clock: one row a span, see `sim.serving.step_clock`; first_row: rows already folded away.
        preemption_gaps: (SLO class, gap [s], its end [s]) between two tokens across a preemption.
        active_w: power of a busy replica beside dynamic energy, host included [W].
        now_intensity: carbon intensity of the present span [g/kWh]; varying: False if it never changes.
        layout: which KV blocks a sequence holds; block_size: tokens a block; groups: the set's, where layers keep
            different parts of a context.
    """

    # fmt: off
    __slots__ = (
        "_below", "_block", "_by_context", "_by_moment", "_contexts", "_equal", "_finishes", "_grain", "_residues",
        "_skewed", "_slack", "_window", "_window_context", "_window_parts", "_windows", "active_w", "ahead", "base",
        "block_size", "by_class", "context", "first_row", "groups", "j", "layout", "n", "now_intensity", "pace",
        "parts", "preemption_gaps", "prompts", "queries", "rows", "running", "varying",
    )
    # fmt: on

    def __init__(
        self,
        layout: KvLayout,
        window: int,
        skewed: bool,
        classes: int,
        active_w: float,
        parts: int = 1,
        pace: int = 1,
        drafts: int = 0,
    ) -> None:
        self.layout, self.block_size = layout, layout.block
        self.parts, self.pace, self.queries, self.ahead = parts, pace, 1 + drafts, drafts * parts
        self._block = layout.block * parts  # parts a block holds
        # no more than (context + n * slack) // grain blocks are in use
        self._slack: float = self.ahead + self._block - 1
        self._grain: float = self._block
        self.active_w = active_w
        self.now_intensity = 0.0
        self.varying = False
        self.running: dict[Sequence, None] = {}
        self.by_class = [0] * classes
        self.n = self.context = self.prompts = self.j = self.base = 0
        self._residues = [0] * self._block
        self.groups: KvGroups | None = None
        if layout.windowed:
            window = layout.window
            self.groups = KvGroups(layout, self._residues, parts, self.ahead)
            self._slack, self._grain = self.groups.slack, self.groups.grain
        self._finishes: list[tuple[int, int, Sequence]] = []  # heap: counter at which a sequence has ended
        self._skewed = skewed
        self._contexts: list[tuple[int, int, Sequence]] = []  # heap with stale entries: longest context on top
        self._window, self._window_parts = window, window * parts
        self._windows: list[tuple[int, int, Sequence]] = []  # heap with stale entries: counter that fills the window
        self._below = self._window_context = 0  # contexts below the window; sum of min(context, window)
        self._equal = self._by_context = self._by_moment = 0j
        self.rows: list[Row] = []
        self.first_row = 0
        self.preemption_gaps: list[tuple[int, float, float]] = []

    def join(self, seq: Sequence) -> None:
        """Let a sequence decode from the next step on; `seq.emitted` counts its tokens so far."""
        j = self.j
        context = (seq.length + 1) * self.parts
        offset = seq.offset = context - j * self.pace
        request = seq.request
        seq.decoding = True
        seq.row = self.first_row + len(self.rows)
        seq.marks = (self._equal, self._by_context, self._by_moment)
        self.n += 1
        self.context += context
        self.prompts += request.prompt * self.parts
        self.by_class[request.slo_class] += 1
        self._residues[(offset + self.ahead) % self._block] += 1
        if self.groups is not None:
            self.groups.count(offset, context, 1)
        steps = -((seq.emitted - seq.target) * self.parts // self.pace)
        heappush(self._finishes, (j + steps, request.id, seq))
        if self._skewed:
            heappush(self._contexts, (-offset, request.id, seq))
        if self._window:
            self._window_context += min(context, self._window_parts)
            if context < self._window_parts:
                self._below += 1
                heappush(self._windows, (self._full_at(offset), request.id, seq))

    def leave(self, seq: Sequence) -> None:
        """Take a sequence out of the sums and settle its shares. The caller keeps the heap of finishes."""
        context = seq.offset + self.j * self.pace
        self.settle(seq)
        seq.decoding = False
        seq.last_row = self.first_row + len(self.rows) - 1
        self.n -= 1
        self.context -= context
        self.prompts -= seq.request.prompt * self.parts
        self.by_class[seq.request.slo_class] -= 1
        self._residues[(seq.offset + self.ahead) % self._block] -= 1
        if self.groups is not None:
            self.groups.count(seq.offset, context, -1)
        if self._window:
            self._window_context -= min(context, self._window_parts)
            if context < self._window_parts:
                self._below -= 1

    def gained(self, seq: Sequence, j: int) -> int:
        """Tokens that a decoding sequence has got since it joined, before the step with counter `j`."""
        return min(seq.target - seq.emitted, (seq.offset + j * self.pace) // self.parts - seq.length - 1)

    def decode_blocks(self, j: int, context: int) -> int:
        """KV blocks of the set in the step with counter `j`, that reads `context` parts, before a window fills."""
        if self.groups is None:
            return decode_blocks(self._residues, j * self.pace, context + self.n * self.ahead)
        return self.groups.blocks(j * self.pace, self.n, context, context - self.window_context(j))

    def window_context(self, j: int) -> int:
        """Sum of the contexts, each up to the window, in the step with counter `j`, before a window fills."""
        return self._window_context + self._below * self.pace * (j - self.j)

    def withdraw(self, seq: Sequence) -> None:
        """`leave` before the end: also drops it from the heap of finishes."""
        seq.emitted += self.gained(seq, self.j)
        self.leave(seq)
        self._finishes = [entry for entry in self._finishes if entry[2] is not seq]
        heapify(self._finishes)

    def settle(self, seq: Sequence) -> None:
        """Add to a sequence what it used since its marks, and move the marks to now."""
        equal, by_context, by_moment = seq.marks
        offset = seq.offset + self.base * self.pace
        share = (self._equal - equal) + offset * (self._by_context - by_context) + (self._by_moment - by_moment)
        seq.decode += share
        if self.varying:
            seq.decode_g += (self.active_w * share.real + share.imag) * self.now_intensity
        seq.marks = (self._equal, self._by_context, self._by_moment)

    def settle_all(self) -> None:
        """Settle every decoding sequence: before the intensity changes, or before the totals start anew."""
        for seq in self.running:
            if seq.decoding:
                self.settle(seq)

    def rebase(self) -> None:
        """Start the share totals anew at the present counter."""
        self.settle_all()
        self._equal = self._by_context = self._by_moment = 0j
        self.base = self.j
        for seq in self.running:
            seq.marks = NO_MARKS

    def longest(self) -> int:
        """Largest offset in the set; needs at least one sequence."""
        heap = self._contexts
        top = heap[0]
        while not top[2].decoding or top[2].offset + top[0]:  # ended, or came back with another offset
            heappop(heap)
            top = heap[0]
        return -top[0]

    def _full_at(self, offset: int) -> int:
        """Counter of the first step that reads a whole window."""
        return -((offset - self._window_parts) // self.pace)

    def next_full_window(self) -> int | None:
        """Counter of the first step whose context fills some sequence's window; None if there is none."""
        heap = self._windows
        while heap:
            counter, _, seq = heap[0]
            if seq.decoding and self._full_at(seq.offset) == counter:
                return counter
            heappop(heap)
        return None

    def close_windows(self) -> None:
        """Move sequences whose context has reached the window out of the growing ones."""
        while (counter := self.next_full_window()) is not None and counter <= self.j:
            _, _, seq = heappop(self._windows)
            self._below -= 1
            self._window_context -= seq.offset + self.j * self.pace - self._window_parts
            if self.groups is not None:
                self.groups.fill(seq.offset)
