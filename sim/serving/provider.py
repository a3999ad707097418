"""What stands in for an engine behind an API: a first token after a drawn time, then a stream at a drawn rate.

It keeps a step clock as engines do, so that gaps, QoE and timelines are read from it in the same way: a row for the
time to a stream's first token, and one for the tokens after it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from simpy import Environment

from sim.results import STATUSES
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer

FAILED, CANCELLED = STATUSES.index("failed"), STATUSES.index("cancelled")
_ROUNDING = 1e-9  #: of a token


@dataclass(slots=True)
class Invoice:
    """What was bought so far: requests, prompt tokens, those of them in the provider's cache, output tokens."""

    requests: int = 0
    prompt: int = 0
    cached: int = 0
    output: int = 0


class Provider:
    """The far side of one API. Times in seconds.

    Args:
        env: the SimPy environment.
        first_s, token_s: give the time to the next request's first token, and of each of its further tokens [s].
        most: requests under way at once; spacing_s: from one request sent to the next [s].
        cached_share: of a prompt, that is charged as cached at least.
        joules: of a prompt and of an output token [J].
        classes: number of SLO classes.

    Attributes:
        running: streams under way, and the time of a token of each [s]; waiting: what the limits hold back.
        rows, first_row: the step clock (`sim.serving.step_clock`); invoice: what was bought.
        end_s: when the last stream ended [s].
    """

    pace = parts = 1  # a token a step
    prefix = adapters = None
    varying = False

    def __init__(
        self,
        env: Environment,
        first_s: Callable[[], float],
        token_s: Callable[[], float],
        most: float = math.inf,
        spacing_s: float = 0.0,
        cached_share: float = 0.0,
        joules: tuple[float, float] = (0.0, 0.0),
        classes: int = 1,
    ) -> None:
        self.env = env
        self._first_s, self._token_s, self._most, self._spacing_s = first_s, token_s, most, spacing_s
        self._cached_share, self._joules, self._classes = cached_share, joules, classes
        self.running: dict[Sequence, float] = {}
        self.waiting: deque[Sequence] = deque()
        self.rows: list[tuple[float, ...]] = []
        self.first_row = 0
        self.invoice = Invoice()
        self.preemption_gaps: list[tuple[int, float, float]] = []
        self.cuts: list[tuple[float, float, float]] = []
        self.end_s = self.ready_s = self._next_s = 0.0
        self._armed = False

    def submit(self, seq: Sequence, now: float) -> None:
        """Send a request, or let it wait for its turn."""
        self.waiting.append(seq)
        self._send(now)

    def _send(self, now: float) -> None:
        """Send as many of those that wait as the limits allow."""
        while self.waiting and len(self.running) < self._most:
            if now < self._next_s:
                if not self._armed:
                    self._armed = True
                    self.env.schedule(Timer(self.env, self._turn), delay=self._next_s - now)
                return
            if self._spacing_s:
                self._next_s = now + self._spacing_s
            self._begin(self.waiting.popleft(), now)

    def _turn(self, _: Timer) -> None:
        self._armed = False
        self._send(max(self.env.now, self._next_s))  # the clock may be a rounding error early

    def _begin(self, seq: Sequence, now: float) -> None:
        prompt, bill = seq.request.prompt, self.invoice
        seq.scheduled_s = now
        seq.cached = max(seq.cached, int(self._cached_share * prompt))
        bill.requests += 1
        bill.prompt += prompt
        bill.cached += seq.cached
        delay, self.running[seq] = self._first_s(), self._token_s()
        self.env.schedule(Timer(self.env, partial(self._first, seq)), delay=delay)

    def _first(self, seq: Sequence, _: Timer) -> None:
        if seq not in self.running:
            return  # cancelled
        now = seq.first_s = float(self.env.now)
        seq.emitted = 1
        if seq.on_first is not None:
            seq.on_first(seq)
        if seq not in self.running:
            return
        if seq.target == 1:
            self._end(seq, now, 0)
            return
        delay = (seq.target - 1) * self.running[seq]
        self.env.schedule(Timer(self.env, partial(self._last, seq)), delay=delay)

    def _last(self, seq: Sequence, _: Timer) -> None:
        if seq in self.running:
            seq.emitted = seq.target
            self._end(seq, float(self.env.now), 0)

    def _end(self, seq: Sequence, now: float, status: int) -> None:
        self._write(seq, now)
        del self.running[seq]
        seq.status, seq.last_s, self.end_s = status, now, now
        seq.on_done(seq)
        self._send(now)

    def _write(self, seq: Sequence, now: float) -> None:
        """Write what a stream did into the clock, and onto the invoice."""
        prompt, (joules_in, joules_out) = seq.request.prompt, self._joules
        first = seq.first_s if seq.first_s >= 0.0 else now
        waited, more = first - seq.scheduled_s, seq.emitted - 1
        some = self._classes > 1
        if waited > 0.0:
            joules = joules_in * prompt + joules_out * (seq.emitted > 0)
            none = (0,) * self._classes if some else ()
            self.rows.append((seq.scheduled_s, 1, waited, 0.0, 0, prompt, 0, prompt, joules, *none))
        if more > 0:
            seq.row = seq.last_row = self.first_row + len(self.rows)
            one = tuple(int(c == seq.request.slo_class) for c in range(self._classes)) if some else ()
            row = (first, more, self.running[seq], 0.0, 1, 0, prompt + 1, 0, joules_out * more, *one)
            self.rows.append(row)
        self.invoice.output += seq.emitted

    # -- ending early -------------------------------------------------------------------------------------------------

    def emitted_now(self, seq: Sequence) -> int:
        """Output tokens of a sequence by now."""
        token_s = self.running.get(seq)
        if token_s is None or seq.first_s < 0.0:
            return seq.emitted
        return min(seq.target, 1 + int((self.env.now - seq.first_s) / token_s + _ROUNDING))

    def cancel(self, seq: Sequence, now: float) -> None:
        """End a stream at once; what came until now is paid for."""
        self._stop(seq, now, CANCELLED)

    def drop_waiting(self, seq: Sequence, now: float, status: int) -> None:
        """End a request that waits; it was never sent, and costs nothing."""
        self.waiting.remove(seq)
        seq.status, seq.last_s = status, now
        seq.on_done(seq)

    def _stop(self, seq: Sequence, now: float, status: int) -> None:
        if seq in self.running:
            seq.emitted = self.emitted_now(seq)
            self._end(seq, now, status)
        elif seq in self.waiting:
            self.drop_waiting(seq, now, status)

    def fail(self, now: float) -> None:
        """Out of service: whatever waits or streams has failed."""
        for seq in [*self.waiting, *self.running]:
            self._stop(seq, now, FAILED)

    def halt(self, now: float) -> None:
        """The run stops: write what the streams did until now."""
        for seq in self.running:
            seq.emitted = self.emitted_now(seq)
            self._write(seq, now)

    # -- what is asked of any engine ----------------------------------------------------------------------------------

    def settle(self, seq: Any) -> None:
        """Nothing is owed: no sequence of it ever counts as decoding."""

    def used_blocks(self) -> int:
        """It has no memory of ours."""
        return 0
