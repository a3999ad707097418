"""Spans: steps that differ only by what their contexts grow, jumped over at once.

Between changes (an arrival that can be admitted, a prompt that ends, a sequence that finishes, memory that runs out) a
batch's steps are an arithmetic progression. `plan` finds how long it is and what it takes, `commit` books it.
"""

from __future__ import annotations

import math
from heapq import heappop

from sim.accounting.signal import Signal
from sim.hardware.kv_layout import KvLayout
from sim.hardware.timing import StepTiming
from sim.serving.costs import Shared, capped
from sim.serving.decode_set import REBASE_STEPS
from sim.serving.kv_cache import steps_that_fit
from sim.serving.kv_groups import memory_beside, steps_with_windows
from sim.serving.options import Options
from sim.serving.prefill import PrefillWork, chunk_pairs, prefill_work
from sim.serving.prefix_cache import PrefixCache
from sim.serving.progression import steps_within
from sim.serving.scheduler import Scheduler
from sim.serving.sequence import Sequence

NO_PREFILL = PrefillWork(1, 0, 0.0, 0.0, 0.0, 0.0)

#: start [s], first duration a [s] and its growth b [s]; then, as seconds + 1j * joules: the first step, its growth, the
#: part split equally, its growth, kappa, rho and rho_w; and the tokens a step
Span = tuple[float, float, float, complex, complex, complex, complex, complex, complex, complex, int]


class Spans(Scheduler):
    """The steps of one replica, without a clock: whoever drives it calls `schedule`, `plan` and `commit` in turn.

    Attributes:
        busy: time in steps and their dynamic energy, as seconds + 1j * joules.
        busy_g: carbon of all busy energy, host included, where intensity varies [J * g/kWh].
        busy_gs: intensity over busy time, where it varies [s * g/kWh].
        lost, lost_g, lost_gs: the same of what went to nobody: steps that the end of a run or an outage cut short, and
            charges for whom was cancelled meanwhile.
        end_s: when the last step ended [s].
        next_change: when the intensity of the site changes next [s]; stop_s: no signal is read beyond [s].
        common: what a step takes besides its own cost, as seconds + 1j * joules, in a group (`sim.serving.lockstep`).
    """

    # fmt: off
    __slots__ = (
        "_count", "_decode_costs", "_k", "_mixed_costs", "_rho", "_rho_w", "_span", "busy", "busy_g", "busy_gs",
        "common", "end_s", "intensity", "lost", "lost_g", "lost_gs", "next_change", "stop_s", "timing",
    )
    # fmt: on

    def __init__(
        self,
        timing: StepTiming,
        blocks: int,
        layout: KvLayout,
        max_seqs: int,
        budget: int,
        intensity: Signal,
        active_w: float,
        classes: int,
        shared: Shared,
        stop_s: float,
        options: Options,
        prefix: PrefixCache | None,
    ) -> None:
        super().__init__(shared, blocks, layout, max_seqs, budget, timing, classes, active_w, options, prefix)
        self.timing, self.intensity, self.stop_s = timing, intensity, stop_s
        self.next_change = intensity.next_change(0.0)
        self.varying = math.isfinite(self.next_change)
        self.now_intensity = intensity.at(0.0)
        self._span: Span | None = None
        self._k = 0
        self._count = getattr(self.waiting, "emitted", None)  # of queues that go by output tokens
        self._rho, self._rho_w = complex(timing.rho, timing.rho_j), complex(timing.rho_w, timing.rho_w_j)
        self._decode_costs, self._mixed_costs = shared.decode_costs, shared.mixed_costs
        self.busy = self.common = self.lost = 0j
        self.busy_g = self.busy_gs = self.lost_g = self.lost_gs = self.end_s = 0.0

    def plan(self, t: float) -> float:
        """Cost the scheduled step, which starts at `t`, and as many equal ones as follow it. Returns their end."""
        n, j, chunks = self.n, self.j, self.chunks
        if chunks:
            work = prefill_work(self, chunks)
            k, tokens = work.k, n * self.queries + work.tokens
            kind = (n, work.tokens, len(chunks))
            cost = self._mixed_costs.get(kind) or self.shared.cost(*kind)
            if n and k > self._finishes[0][0] - j:
                k = self._finishes[0][0] - j
        else:
            work, tokens = NO_PREFILL, n * self.queries
            cost = self._decode_costs.get(n) or self.shared.cost(n, 0, 0)
            k = self._finishes[0][0] - j
            waiting = self.waiting
            if self.preempted or (waiting and len(self.running) < self.max_seqs and waiting.unseen(self.visible_s)):
                k = 1  # who heads the queue, a victim or an arrival not seen yet, may join the next step
            elif self.groups is not None:
                k = steps_with_windows(self, self.groups, k)
            elif (self.context + n * (self.pace * (k - 1) + self._slack)) // self._grain > self.room:
                k = min(k, self._steps_in_memory(k))
        if self._windows and (full := self.next_full_window()) is not None and k > full - j:
            k = full - j
        equal, kappa, skew, windowed, never_capped, spread, omega = cost
        equal += self.common
        rho, rho_w = self._rho, self._rho_w
        if spread != 1.0:
            rho, rho_w = complex(rho.real * spread, rho.imag), complex(rho_w.real * spread, rho_w.imag)
        growth = 0j
        if windowed:
            equal += windowed * self._window_context
            growth = windowed * (self._below * self.pace)
        if omega:
            equal += omega * (self.context - self.prompts)
            growth += omega * (n * self.pace)
        if skew and n:
            skew *= n
            equal += skew * (self.longest() + j * self.pace)
            growth += skew * self.pace
        first = equal + kappa * self.context
        more = growth + kappa * (n * self.pace)
        if chunks:
            first += rho * work.pairs + rho_w * work.pairs_w
            more += rho * work.growth + rho_w * work.growth_w
        if not never_capped:
            head = self.timing.headroom_w
            excess, slope = first.imag - head * first.real, more.imag - head * more.real
            if excess <= 0.0 < slope or slope < 0.0 < excess:  # the limit begins or ceases to bind: end the span there
                k = min(k, max(1, math.ceil(-excess / slope)))
            if excess > 0.0:
                equal, growth, kappa = capped(equal, head), capped(growth, head), capped(kappa, head)
                first, more = capped(first, head), capped(more, head)
                rho, rho_w = capped(rho, head), capped(rho_w, head)
        if self.charges or (self.ending_seats and self.waiting):
            k = 1  # single charges; or what the last step's ends freed lets others join the next one
            first += sum((charge for _, charge, _ in self.charges), 0j)
        a, b = first.real, more.real
        end = t + k * a + b * (k * (k - 1) * 0.5)
        if end > self.next_change:
            k = self._meet_signal(t, a, b, k)
            end = t + k * a + b * (k * (k - 1) * 0.5)
        if self._quantum_s and self.waiting and k > 1 and (until := steps_within(self.turn_s - t, a, b)) < k:
            k = max(1, until)
            end = t + k * a + b * (k * (k - 1) * 0.5)
        self._span = (t, a, b, first, more, equal, growth, kappa, rho, rho_w, tokens)
        self._k = k
        return end

    def _steps_in_memory(self, most: int) -> int:
        """How many of `most` decode steps fit in memory with nothing finishing; the first one does."""
        j, n, pace = self.j, self.n, self.pace
        if pace == 1 and not self.ahead:
            return steps_that_fit(self._residues, j, n, self.room - self.decode_blocks(j, self.context))
        low, high = 1, most + 1
        while high - low > 1:
            steps = (low + high) // 2
            if self.decode_blocks(j + steps - 1, self.context + n * pace * (steps - 1)) <= self.room:
                low = steps
            else:
                high = steps
        return low

    def _meet_signal(self, t: float, a: float, b: float, k: int) -> int:
        """Cut a span that would cross a change of intensity: whole steps before it, or the one step that straddles it,
        which is charged the mean intensity over its duration."""
        if t >= self.next_change:
            self.settle_all()
            self.now_intensity = self.intensity.at(t)
            self.next_change = self.intensity.next_change(t)
            if t + k * a + b * (k * (k - 1) * 0.5) <= self.next_change:
                return k
        if t + a > self.next_change:
            self.settle_all()
            until = min(t + a, max(self.stop_s, self.next_change))
            self.now_intensity = self.intensity.integral(t, until) / (until - t)
            self.next_change = t + a
            return 1
        low, high = 1, k  # `low` steps end before the change, `high` do not
        while high - low > 1:
            middle = (low + high) // 2
            if t + middle * a + b * (middle * (middle - 1) * 0.5) <= self.next_change:
                low = middle
            else:
                high = middle
        return low

    def _end_of(self, k: int) -> float:
        """When `k` steps of the span under way are over [s]."""
        span = self._span
        assert span is not None
        return span[0] + k * span[1] + span[2] * (k * (k - 1) * 0.5)

    def _steps_until(self, now: float) -> int:
        """Steps of the span that have to end before an arrival at `now` can join; 0 only at its very start."""
        span = self._span
        assert span is not None
        return steps_within(now - span[0], span[1], span[2])

    def commit(self, end: float) -> None:
        """The span is over at `end`: write the clock, book the shares, let sequences begin and end."""
        t, a, b, first, more, equal, growth, kappa, rho, rho_w, tokens = self._span  # type: ignore[misc]
        k, n, j, chunks = self._k, self.n, self.j, self.chunks
        # `part` is each token's equal part
        if k == 1:
            total, part = first, equal / tokens
            self._by_context += kappa
            self._by_moment += ((j - self.base) * self.pace) * kappa
        else:
            half = k * (k - 1) * 0.5
            total = k * first + half * more
            part = (k * equal + half * growth if growth else k * equal) / tokens
            self._by_context += k * kappa
            self._by_moment += ((k * (j - self.base) + half) * self.pace) * kappa
        self._equal += part * self.queries
        self.busy += total
        self.end_s = end
        if self.varying:
            self.busy_g += (self.active_w * total.real + total.imag) * self.now_intensity
            self.busy_gs += total.real * self.now_intensity
        held: float = 0
        for seq, chunk in chunks:
            held += seq.done + chunk
            pairs, pairs_w = chunk_pairs(seq.done, chunk, k, self._window)
            own = chunk * part + pairs * rho + pairs_w * rho_w
            seq.prefill += own
            if self.varying:
                seq.prefill_g += (self.active_w * own.real + own.imag) * self.now_intensity
        if self.charges:
            self._book_charges()
        if self.groups is not None:
            held += memory_beside(self, self.groups, held, k)
        row = (t, k, a, b, n, tokens - n * self.queries, self.context / self.parts, held, total.imag)
        self.rows.append(row if len(self.by_class) == 1 else row + tuple(self.by_class))
        if self.async_scheduling:
            self.visible_s = t + (k - 1) * a + b * ((k - 1) * (k - 2) * 0.5)
        if self.prefix is not None:
            self._fill_memory(self.prefix, k)
        self.j = j = j + k
        self.context += n * k * self.pace
        if self._window:
            self._window_context += self._below * k * self.pace
            self.close_windows()
        if self._count is not None:
            for seq in self.running:
                if seq.decoding:
                    self._count(seq, self.gained(seq, j) - self.gained(seq, j - k))
        finishes = self._finishes
        self.ending_seats = self.ending_blocks = 0
        while finishes and finishes[0][0] <= j:
            self._finish(heappop(finishes)[2], end)
        if chunks:
            self._partial = None
            for seq, chunk in chunks:
                seq.done += chunk * k
                if seq.done < seq.length:
                    self._partial = seq
                else:
                    self._first_token(seq, end, chunk)
        if not self.n or j - self.base > REBASE_STEPS:
            self.rebase()

    def _book_charges(self) -> None:
        """Charge to single sequences what was done for them alone."""
        for seq, charge, wasted in self.charges:
            carbon = (self.active_w * charge.real + charge.imag) * self.now_intensity if self.varying else 0.0
            if seq.status:  # it was cancelled meanwhile, and its accounts are closed
                self.busy -= charge
                self.lost += charge
                if self.varying:
                    grams, hours = carbon, charge.real * self.now_intensity
                    self.busy_g, self.busy_gs = self.busy_g - grams, self.busy_gs - hours
                    self.lost_g, self.lost_gs = self.lost_g + grams, self.lost_gs + hours
            elif wasted:
                seq.waste += charge
                seq.waste_g += carbon
            else:
                seq.prefill += charge
                seq.prefill_g += carbon

    def _fill_memory(self, prefix: PrefixCache, k: int) -> None:
        """What the last step of a span of `k` took, idle prefixes have lost, even if it is given back now."""
        if len(self.chunks) == 1:
            seq, chunk = self.chunks[0]
            self.held = self.layout.held(seq.done + chunk * (k - 1), seq.done + chunk * k)
        self.make_cache_fit(prefix, self.j + k - 1, self.context + self.n * (k - 1) * self.pace)

    def _finish(self, seq: Sequence, t: float) -> None:
        """The last token of a decoding sequence is out."""
        if self.special or self.async_scheduling:
            blocks = self.layout.decoding(seq.offset + (self.j - 1) * self.pace, self.ahead, self.parts)
            self.leave(seq)
            self._give_up(seq, blocks)
        else:
            self.leave(seq)
        del self.running[seq]
        seq.last_s = t
        seq.emitted = seq.target
        seq.on_done(seq)

    def _give_up(self, seq: Sequence, blocks: int) -> None:
        """A sequence has all its tokens: the blocks it held are free, but its KV may be found again by another."""
        prefix, saved = self.prefix, 0
        leaves = seq.target < seq.request.output
        if self.special:
            if prefix is not None:
                saved = prefix.saved
                prefix.register(seq, seq.request.prompt + seq.target - 1)
            self.release(seq, leaves)
        if self.async_scheduling:
            self.ending_seats += 1
        if self.async_scheduling and not leaves:  # else they are set aside
            self.ending_blocks += blocks - (saved - prefix.saved if prefix is not None else 0)  # those it shared stay

    def _first_token(self, seq: Sequence, t: float, chunk: int) -> None:
        """A prompt is computed, which yields its next token: the first one, or the next after a preemption.

        `chunk` is what its last step computed of it.
        """
        if self.prefix is not None:
            self.prefix.register(seq, seq.request.prompt)
        if seq.emitted == 0:
            seq.first_s = t
            if seq.on_first is not None:
                seq.on_first(seq)
        else:
            assert seq.segments is not None
            gap = t - seq.last_s
            first, last, _ = seq.segments[-1]
            seq.segments[-1] = (first, last, gap)
            self.preemption_gaps.append((seq.request.slo_class, gap, t))
        seq.emitted += 1
        if self._count is not None:
            self._count(seq, 1)
        if seq.emitted == seq.target:
            del self.running[seq]
            seq.last_s = t
            seq.row, seq.last_row = 0, -1
            if self.special or self.async_scheduling:
                self._give_up(seq, self.layout.held(seq.length - chunk, seq.length))
            seq.on_done(seq)
        else:
            self.join(seq)
