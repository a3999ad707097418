"""One replica's engine: continuous batching with chunked prefill in the manner of vLLM V1, at one event per change.

Between changes (an arrival that can be admitted, a prompt that ends, a sequence that finishes, memory that runs out) a
batch's steps are an arithmetic progression, so the engine sleeps once over all of them: a *span*. Reading order:
`submit` (a request comes), `Scheduler.schedule` (what the next step holds), `_launch` (how long it and its equals
take), `_commit` (the span is over: clock, shares, finishes). `tests/oracles/reference_engine.py` does the same with one
loop a step and one a sequence; both agree to rounding.
"""

from __future__ import annotations

import math
from heapq import heappop

from simpy import Environment
from simpy.events import NORMAL

from sim.accounting.signal import Signal
from sim.hardware.timing import StepTiming
from sim.serving.costs import Shared, capped
from sim.serving.decode_set import REBASE_STEPS
from sim.serving.kv_cache import decode_blocks, steps_that_fit
from sim.serving.prefill import PrefillWork, chunk_pairs, prefill_work
from sim.serving.prefix_cache import PrefixCache
from sim.serving.scheduler import TOLERANCE_S, Scheduler
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer

NO_PREFILL = PrefillWork(1, 0, 0.0, 0.0, 0.0, 0.0)

#: start [s], first duration a [s] and its growth b [s]; then, as seconds + 1j * joules: the first step, its growth, the
#: part split equally, its growth, kappa, rho and rho_w; and the tokens a step
Span = tuple[float, float, float, complex, complex, complex, complex, complex, complex, complex, int]


class Engine(Scheduler):
    """One replica. Times in seconds, energy in joules.

    Args:
        env: the SimPy environment.
        timing: what steps cost.
        blocks: usable KV blocks; block_size: tokens a block.
        max_seqs: most sequences that run at once.
        budget: most tokens a step may process, at least `max_seqs`.
        intensity: carbon intensity of the site [g/kWh].
        host_w: power of the host's share while provisioned [W].
        classes: number of SLO classes.
        shared: what it shares with the other engines of its pool; None if it is alone.
        ready_s: when the replica has booted [s]; requests wait until then.
        stop_s: when it will be halted [s]; no signal is read beyond.
        async_scheduling, prefix: see `Scheduler`.

    Attributes:
        busy: time in steps and their dynamic energy, as seconds + 1j * joules.
        busy_g: carbon of all busy energy, host included, where intensity varies [J * g/kWh].
        busy_gs: intensity over busy time, where it varies [s * g/kWh].
        end_s: when the last step ended [s].
        lost, lost_g: the same of a step that `halt` cut short; lost_from_s: when that began [s].
    """

    # fmt: off
    __slots__ = (
        "_decode_costs", "_k", "_mixed_costs", "_planning", "_rho", "_rho_w", "_schedule", "_span", "_timer",
        "_wake_at", "busy", "busy_g", "busy_gs", "end_s", "env", "intensity", "lost", "lost_from_s", "lost_g",
        "next_change", "ready_s", "stop_s", "timing",
    )
    # fmt: on

    def __init__(
        self,
        env: Environment,
        timing: StepTiming,
        blocks: int,
        block_size: int,
        max_seqs: int,
        budget: int,
        intensity: Signal,
        host_w: float = 0.0,
        classes: int = 1,
        shared: Shared | None = None,
        ready_s: float = 0.0,
        stop_s: float = math.inf,
        async_scheduling: bool = False,
        prefix: PrefixCache | None = None,
    ) -> None:
        active_w = timing.static_w + host_w
        shared = shared or Shared(timing)
        super().__init__(
            shared, blocks, block_size, max_seqs, budget, timing, classes, active_w, async_scheduling, prefix
        )
        self.env, self.timing = env, timing
        self.intensity = intensity
        self.next_change = intensity.next_change(0.0)
        self.varying = math.isfinite(self.next_change)
        self.now_intensity = intensity.at(0.0)
        self.ready_s, self.stop_s = ready_s, stop_s
        self._planning = False
        self._span: Span | None = None
        self._k = 0
        self._timer = Timer(env, self._on_timer)
        self._wake_at = math.inf
        self._rho, self._rho_w = complex(timing.rho, timing.rho_j), complex(timing.rho_w, timing.rho_w_j)
        self._decode_costs, self._mixed_costs = self.shared.decode_costs, self.shared.mixed_costs
        self._schedule = env.schedule
        self.busy = self.lost = 0j
        self.busy_g = self.busy_gs = self.lost_g = self.lost_from_s = self.end_s = 0.0

    # -- arrivals -----------------------------------------------------------------------------------------------------

    def submit(self, seq: Sequence, now: float) -> None:
        """Queue a sequence at time `now`; wakes the engine only if the next boundary could admit it."""
        waiting = self.waiting
        waiting.append(seq)
        self.shared.waiting += 1
        if self._planning:
            return
        span = self._span
        if span is None:
            if now >= self.ready_s and self.schedule(now):
                self._launch(now)
            else:
                self._arm(self.ready_s)
            return
        if len(waiting) > 1 or not self.left or len(self.running) >= self.max_seqs or self.preempted:
            return  # behind a request that waits already, or no seat or budget before the span ends
        k = self._steps_until(now)
        if self.async_scheduling and now > self.visible_s + TOLERANCE_S:
            k += 1  # the step at the next boundary is scheduled already
        if k >= self._k:
            return
        block, n = self.block_size, self.n
        need = self.held - (-seq.length // block)
        if self.prefix is not None:
            need -= self.prefix.shared_blocks(self.prefix.hits(seq))
        context = self.context + n * k
        if (context + n * (block - 1)) // block + need > self.room and (
            decode_blocks(self._residues, self.j + k, context) + need > self.room
        ):
            return  # memory only fills up until the span ends
        if k:
            self._k = k
            self._arm(span[0] + k * span[1] + span[2] * (k * (k - 1) * 0.5))
        else:
            if self.varying:
                self.next_change = span[0]  # read the signal anew: the step may now straddle a change, or no longer
            self.admit(span[0])
            self._launch(span[0])

    def _steps_until(self, now: float) -> int:
        """Steps of the span that have to end before an arrival at `now` can join; 0 only at its very start."""
        span = self._span
        assert span is not None
        elapsed = now - span[0]
        if elapsed <= TOLERANCE_S:
            return 0
        a, b = span[1], span[2]
        start = a - 0.5 * b
        # the stable root of k*a + b*k*(k-1)/2 = elapsed; rounding can be a step off, so both neighbours are verified
        k = int(2.0 * elapsed / (start + math.sqrt(start * start + 2.0 * b * elapsed)))
        while k * a + b * (k * (k - 1) * 0.5) + TOLERANCE_S < elapsed:
            k += 1
        while k > 0 and (k - 1) * a + b * ((k - 1) * (k - 2) * 0.5) + TOLERANCE_S >= elapsed:
            k -= 1
        return k

    def used_blocks(self) -> int:
        """KV blocks in use now: the closed form of the span under way."""
        if self._span is None:
            return 0
        steps = min(max(self._steps_until(self.env.now) - 1, 0), self._k - 1)
        decode = decode_blocks(self._residues, self.j + steps, self.context + self.n * steps)
        held = self.held
        if len(self.chunks) == 1:
            seq, chunk = self.chunks[0]
            held = -(-(seq.done + chunk * (steps + 1)) // self.block_size)
        return decode + held - (self.room - self.blocks)

    # -- running a span -----------------------------------------------------------------------------------------------

    def _launch(self, t: float) -> None:
        """Cost the planned step and as many equal ones as follow it, and sleep to their end."""
        n, j, chunks = self.n, self.j, self.chunks
        if chunks:
            work = prefill_work(self, chunks)
            k, tokens = work.k, n + work.tokens
            kind = (n, work.tokens, len(chunks))
            cost = self._mixed_costs.get(kind) or self.shared.cost(*kind)
            if n and k > self._finishes[0][0] - j:
                k = self._finishes[0][0] - j
        else:
            work, tokens = NO_PREFILL, n
            cost = self._decode_costs.get(n) or self.shared.cost(n, 0, 0)
            k = self._finishes[0][0] - j
            if self.preempted or (self.waiting and self.waiting[0].queued_s > self.visible_s):
                k = 1  # who heads the queue, a victim or an arrival not seen yet, may join the next step
            elif (self.context + n * (k + self.block_size - 2)) // self.block_size > self.room:
                free = self.room - decode_blocks(self._residues, j, self.context)
                k = min(k, steps_that_fit(self._residues, j, n, free))
        if self._windows and (full := self.next_full_window()) is not None and k > full - j:
            k = full - j
        equal, kappa, skew, windowed, never_capped = cost
        rho, rho_w = self._rho, self._rho_w
        growth = 0j
        if windowed:
            equal += windowed * self._window_context
            growth = windowed * self._below
        if skew and n:
            skew *= n
            equal += skew * (self.longest() + j)
            growth += skew
        first = equal + kappa * self.context
        more = growth + kappa * n
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
        a, b = first.real, more.real
        end = t + k * a + b * (k * (k - 1) * 0.5)
        if end > self.next_change:
            k = self._meet_signal(t, a, b, k)
            end = t + k * a + b * (k * (k - 1) * 0.5)
        self._span = (t, a, b, first, more, equal, growth, kappa, rho, rho_w, tokens)
        self._k = k
        self._arm(end)

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

    def _arm(self, at: float) -> None:
        """Wake at time `at`; an earlier wake-up that is still scheduled will find that it is not the one awaited."""
        self._wake_at = at
        delay = at - self.env.now
        self._schedule(self._timer, NORMAL, delay if delay > 0.0 else 0.0)

    def _on_timer(self, event: Timer) -> None:
        event.callbacks = event.wake
        at = self._wake_at
        if self.env.now < at - TOLERANCE_S:
            return  # superseded by a later wake-up
        self._planning = True  # whoever submits from a callback joins the step that is planned next
        if self._span is not None:
            self._commit(at)
        if self.schedule(at):
            self._launch(at)
        else:
            self._span = None
            self._wake_at = math.inf
        self._planning = False

    def halt(self, now: float) -> None:
        """Stop at `now`, for good: whole steps count; the step under way emits nothing, and what it took is lost."""
        self._wake_at = math.inf
        span = self._span
        if span is None:
            return
        t, a, b, first, more = span[:5]
        whole = self._steps_until(now)
        if t + whole * a + b * (whole * (whole - 1) * 0.5) > now:
            whole -= 1
        self._planning = True
        if whole > 0:
            self._k = whole
            t += whole * a + b * (whole * (whole - 1) * 0.5)
            self._commit(t)
        self._span = None
        if now > t:
            self.lost_from_s = t
            step = first + more * whole
            self.lost = step * ((now - t) / step.real)
            self.lost_g = (self.active_w * self.lost.real + self.lost.imag) * self.now_intensity

    def _commit(self, end: float) -> None:
        """The span is over at `end`: write the clock, book the shares, let sequences begin and end."""
        t, a, b, first, more, equal, growth, kappa, rho, rho_w, tokens = self._span  # type: ignore[misc]
        k, n, j, chunks = self._k, self.n, self.j, self.chunks
        # `part` is each token's equal part
        if k == 1:
            total, part = first, equal / tokens
            self._by_context += kappa
            self._by_moment += (j - self.base) * kappa
        else:
            half = k * (k - 1) * 0.5
            total = k * first + half * more
            part = (k * equal + half * growth if growth else k * equal) / tokens
            self._by_context += k * kappa
            self._by_moment += (k * (j - self.base) + half) * kappa
        self._equal += part
        self.busy += total
        self.end_s = end
        if self.varying:
            self.busy_g += (self.active_w * total.real + total.imag) * self.now_intensity
            self.busy_gs += total.real * self.now_intensity
        held = 0
        for seq, chunk in chunks:
            held += seq.done + chunk
            pairs, pairs_w = chunk_pairs(seq.done, chunk, k, self._window)
            own = chunk * part + pairs * rho + pairs_w * rho_w
            seq.prefill += own
            if self.varying:
                seq.prefill_g += (self.active_w * own.real + own.imag) * self.now_intensity
        row = (t, k, a, b, n, tokens - n, self.context, held, total.imag)
        self.rows.append(row if len(self.by_class) == 1 else row + tuple(self.by_class))
        if self.async_scheduling:
            self.visible_s = t + (k - 1) * a + b * ((k - 1) * (k - 2) * 0.5)
        if self.prefix is not None:
            self._fill_memory(self.prefix, k)
        self.j = j = j + k
        self.context += n * k
        if self._window:
            self._window_context += self._below * k
            self.close_windows()
        finishes = self._finishes
        while finishes and finishes[0][0] <= j:
            self._finish(heappop(finishes)[2], end)
        if chunks:
            self._partial = None
            for seq, chunk in chunks:
                seq.done += chunk * k
                if seq.done < seq.length:
                    self._partial = seq
                else:
                    self._first_token(seq, end)
        if not self.n or j - self.base > REBASE_STEPS:
            self.rebase()

    def _fill_memory(self, prefix: PrefixCache, k: int) -> None:
        """What the last step of a span of `k` took, idle prefixes have lost, even if it is given back now."""
        if len(self.chunks) == 1:
            seq, chunk = self.chunks[0]
            self.held = -(-(seq.done + chunk * k) // self.block_size)
        self.make_cache_fit(prefix, self.j + k - 1, self.context + self.n * (k - 1))

    def _finish(self, seq: Sequence, t: float) -> None:
        """The last token of a decoding sequence is out."""
        self.leave(seq)
        self.release(seq)
        del self.running[seq]
        seq.last_s = t
        seq.emitted = seq.target
        seq.on_done(seq)

    def _first_token(self, seq: Sequence, t: float) -> None:
        """A prompt is computed, which yields its next token: the first one, or the next after a preemption."""
        if self.prefix is not None:
            self.prefix.register(seq)
        if seq.emitted == 0:
            seq.first_s = t
        else:
            assert seq.segments is not None
            gap = t - seq.last_s
            first, last, _ = seq.segments[-1]
            seq.segments[-1] = (first, last, gap)
            self.preemption_gaps.append((seq.request.slo_class, gap, t))
        seq.emitted += 1
        if seq.emitted == seq.target:
            del self.running[seq]
            seq.last_s = t
            seq.row, seq.last_row = 0, -1
            self.release(seq)
            seq.on_done(seq)
        else:
            self.join(seq)
