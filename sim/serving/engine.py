"""One replica's engine: continuous batching with chunked prefill in the manner of vLLM V1, at one event per change.

Between changes (an arrival that can be admitted, a prompt that ends, a sequence that finishes, memory that runs out) a
batch's steps are an arithmetic progression, so the engine sleeps once over all of them: a *span*. Reading order:
`submit` (a request comes), `Scheduler.schedule` (what the next step holds), `Spans.plan` (how long it and its equals
take), `Spans.commit` (the span is over: clock, shares, finishes). `tests/oracles/reference_engine.py` does the same
with one loop a step and one a sequence; both agree to rounding.
"""

from __future__ import annotations

import math
from typing import Any

from simpy import Environment
from simpy.events import NORMAL

from sim.accounting.signal import Signal
from sim.hardware.kv_layout import KvLayout
from sim.hardware.timing import StepTiming
from sim.results import STATUSES
from sim.serving.adapters import AdapterSlots
from sim.serving.costs import Shared
from sim.serving.options import PLAIN, Options
from sim.serving.prefix_cache import PrefixCache
from sim.serving.queues import TOLERANCE_S, Fcfs
from sim.serving.sequence import Sequence
from sim.serving.spans import Spans
from sim.serving.timer import Timer

FAILED, CANCELLED = STATUSES.index("failed"), STATUSES.index("cancelled")


class Engine(Spans):
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
        options, prefix: see `Scheduler`.
        layout: which blocks a sequence holds; None for one of `block_size` tokens over all layers.

    Attributes:
        cuts: (start [s], end [s], dynamic power [W]) of steps that `halt` cut short.
        cancelled: sequences to drop at the next boundary.
    """

    # fmt: off
    __slots__ = (
        "_late", "_next", "_planning", "_priority", "_schedule", "_timer", "_wake_at", "cancelled", "cuts", "env",
        "ready_s",
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
        options: Options = PLAIN,
        prefix: PrefixCache | None = None,
        layout: KvLayout | None = None,
    ) -> None:
        active_w = timing.static_w + host_w
        shared = shared or Shared(timing, parts=options.parts)
        layout = layout or KvLayout(block_size)
        super().__init__(
            timing, blocks, layout, max_seqs, budget, intensity, active_w, classes, shared, stop_s, options, prefix
        )
        self.env = env
        self.ready_s = ready_s
        self._planning = False
        self._late = self.options.queue is not Fcfs  # plan only when all who arrive at the same time are there
        self._priority: Any = NORMAL + self._late
        self._timer = Timer(env, self._on_timer)
        self._wake_at = math.inf
        self._schedule = env.schedule
        # without asynchronous scheduling nobody who ended still has a seat
        self._next = self.schedule if self.async_scheduling else self._fill
        self.cuts: list[tuple[float, float, float]] = []
        self.cancelled: list[Sequence] = []

    # -- arrivals -----------------------------------------------------------------------------------------------------

    def submit(self, seq: Sequence, now: float) -> None:
        """Queue a sequence at time `now`; wakes the engine only if the next boundary could admit it."""
        waiting = self.waiting
        waiting.push(seq)
        self.shared.waiting += 1
        if self._planning:
            return
        span = self._span
        if span is None:
            if self._late:
                self._arm(max(now, self.ready_s))
            elif now >= self.ready_s and self._next(now):
                self._arm(self.plan(now))
            else:
                self._arm(self.ready_s)
            return
        if self._quantum_s:
            self._end_span_at(max(now, self.turn_s))
        if not waiting.leads(seq) or self.left <= 0 or len(self.running) >= self.max_seqs or self.preempted:
            return  # behind a request that waits already, or no seat or budget before the span ends
        if not self._open:
            return
        k = self._steps_until(now)
        if self.async_scheduling and self.running and now > self.visible_s + TOLERANCE_S and not waiting.dynamic:
            k += 1  # the step at the next boundary is scheduled already
        if k >= self._k:
            return
        if not waiting.dynamic and self.groups is None and not self._may_fit(seq, k):
            return  # memory only fills up until the span ends
        if k:
            self._cut(k)
        else:
            if self.varying:
                self.next_change = span[0]  # read the signal anew: the step may now straddle a change, or no longer
            self.admit(span[0])
            self._arm(self.plan(span[0]))

    def _may_fit(self, seq: Sequence, k: int) -> bool:
        """Whether a prompt would fit in memory after `k` steps of the span."""
        n = self.n
        need = self.held - (-seq.length // self.block_size)
        if self.prefix is not None:
            need -= self.prefix.shared_blocks(self.prefix.hits(seq))
        context = self.context + n * k * self.pace
        return (context + n * self._slack) // self._grain + need <= self.room or (
            self.decode_blocks(self.j + k, context) + need <= self.room
        )

    def used_blocks(self) -> int:
        """KV blocks in use now: the closed form of the span under way."""
        if self._span is None:
            return self.blocks - self.room  # set aside
        steps = min(max(self._steps_until(self.env.now) - 1, 0), self._k - 1)
        decode = self.decode_blocks(self.j + steps, self.context + self.n * steps * self.pace)
        held = self.held
        if len(self.chunks) == 1:
            seq, chunk = self.chunks[0]
            held = self.layout.held(seq.done + chunk * steps, seq.done + chunk * (steps + 1))
        return decode + held - (self.room - self.blocks)

    def emitted_now(self, seq: Sequence) -> int:
        """Output tokens of a sequence by now, those of whole steps of the span under way included."""
        if not seq.decoding or self._span is None:
            return seq.emitted
        steps = steps_begun = self._steps_until(self.env.now)
        t, a, b = self._span[:3]
        if t + steps_begun * a + b * (steps_begun * (steps_begun - 1) * 0.5) > self.env.now:
            steps -= 1
        return seq.emitted + self.gained(seq, self.j + max(0, min(steps, self._k)))

    def free_blocks(self) -> int:
        """KV blocks that neither running nor waiting sequences need now."""
        return self.blocks - self.used_blocks() + sum(-seq.length // self.block_size for seq in self.waiting)

    def pin(self, blocks: int, now: float) -> None:
        """Set KV blocks aside, or give them back if negative; spans under way end at the next boundary."""
        self.pinned += blocks
        self.room -= blocks
        if self._planning:
            return
        if self._span is None:
            if self.waiting:
                self._arm(max(now, self.ready_s))
            return
        self._end_span_at(now)

    def let_go(self, seq: Sequence, blocks: int, now: float) -> None:
        """A sequence that left has been copied: give back its `blocks`, which were set aside, and its prefix."""
        if self.prefix is not None:
            if self._span is not None and not self._planning:
                self._fill_memory(self.prefix, max(1, self._steps_until(now)))  # what steps so far have evicted
            self.prefix.release(seq)
            self.room = self.blocks - self.pinned + self.prefix.saved
        self.pin(-blocks, now)

    def _end_span_at(self, at: float) -> None:
        """End the span under way with the step that ends at or after `at`."""
        k = max(1, self._steps_until(at))
        if k < self._k:
            self._cut(k)

    def _cut(self, k: int) -> None:
        """End the span under way after `k` steps."""
        span: Any = self._span
        self._k = k
        self._arm(span[0] + k * span[1] + span[2] * (k * (k - 1) * 0.5))  # `_end_of(k)`

    # -- waking up ----------------------------------------------------------------------------------------------------

    def _arm(self, at: float) -> None:
        """Wake at time `at`; an earlier wake-up that is still scheduled will find that it is not the one awaited."""
        self._wake_at = at
        delay = at - self.env.now
        self._schedule(self._timer, self._priority, delay if delay > 0.0 else 0.0)

    def _on_timer(self, event: Timer) -> None:
        event.callbacks = event.wake
        at = self._wake_at
        if self.env.now < at - TOLERANCE_S:
            return  # superseded by a later wake-up
        self._planning = True  # whoever submits from a callback joins the step that is planned next
        if self._span is not None:
            self.commit(at)
        if self.cancelled:
            self._drop_cancelled(at)
        if self._next(at):
            self._arm(self.plan(at))
        else:
            self._span = None
            self._wake_at = math.inf
        self._planning = False

    # -- ending early -------------------------------------------------------------------------------------------------

    def cancel(self, seq: Sequence, now: float) -> None:
        """End a sequence before its last token: at once if it waits, else at the boundary that ends the step under way.

        What it did stays booked to it; its memory is free from then on, and a smaller queue may let others in.
        """
        if seq in self.running:
            if seq not in self.cancelled:
                self.cancelled.append(seq)
        else:
            self.drop_waiting(seq, now, CANCELLED)
        if self._planning:
            return
        if self._span is not None:
            self._end_span_at(now)
        elif self.waiting:
            self._arm(max(now, self.ready_s))

    def _drop_cancelled(self, t: float) -> None:
        """Drop those that were cancelled and have not ended in the meantime."""
        while self.cancelled:
            seq = self.cancelled.pop(0)
            if seq in self.running:
                self.drop(seq, t, CANCELLED)
            elif seq.status == 0 and seq.emitted < seq.target:  # preempted just now
                self.drop_waiting(seq, t, CANCELLED)

    def fail(self, now: float) -> None:
        """Lose everything at `now`: the step under way emits nothing, whoever runs or waits has failed, KV is gone."""
        self.halt(now)
        self.cancelled = []
        for seq in list(self.running):
            self.drop(seq, now, FAILED)
        for seq in list(self.waiting):
            self.drop_waiting(seq, now, FAILED)
        if self.prefix is not None:
            self.prefix.clear()
        if self.adapters is not None:
            self.adapters = AdapterSlots(self.options.adapter_slots)
        self.next_change = min(self.next_change, now)  # read the signal anew: no step straddles a change any more
        self._planning = False
        if self.waiting:  # whoever was told may have sent something new
            self._arm(max(now, self.ready_s))

    def halt(self, now: float) -> None:
        """Stop at `now`: whole steps count; the step under way emits nothing, and what it took is lost."""
        self._wake_at = math.inf
        span = self._span
        if span is None:
            return
        t, first, more = span[0], span[3], span[4]
        whole = self._steps_until(now)
        if self._end_of(whole) > now:
            whole -= 1
        self._planning = True
        if whole > 0:
            self._k = whole
            t = self._end_of(whole)
            self.commit(t)
        self._span = None
        if now > t:
            step = first + more * whole
            lost = step * ((now - t) / step.real)
            self.cuts.append((t, now, lost.imag / lost.real))
            self.lost += lost
            self.lost_g += (self.active_w * lost.real + lost.imag) * self.now_intensity
            self.lost_gs += lost.real * self.now_intensity
