"""The way out: the API server of a replica turns tokens into text one after the other, so they may queue there.

Nothing of it feeds back to the engine, which streams its output and goes on. So it is worked out from the step clock
after the fact: `Detokenizer.take` reads new rows, `client_clock` is the same clock as clients see it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.serving.queues import TOLERANCE_S
from sim.serving.step_clock import DECODING, START, STEPS, A, B, durations

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Segments = list[tuple[int, int, float]]


class Detokenizer:
    """The output queue of one replica: one server, first come first served.

    A step hands all its tokens over at its end, and clients get them when the last of them is done. With W the delay
    after a step, w the work that a step brings and x the time since the end of the step before,

        W_i = max(0, W_(i-1) - x_i) + w_i

    which unrolls to W_i = C_i + max(W_0, max over m <= i of (w_m - C_m)), C being the sum of w - x: two running totals.

    Args:
        token_s: time a token takes [s].
        per_step: tokens that a decoding sequence gets a step.
    """

    __slots__ = ("_after_row", "_delays", "_end_s", "_per_step", "_starts", "_token_s")

    def __init__(self, token_s: float, per_step: float = 1.0) -> None:
        self._token_s, self._per_step = token_s, per_step
        self._end_s = 0.0  # when the last step taken in ended
        self._delays: FloatArray = np.zeros(1)  # before the first step that is kept, then after each of them
        self._starts: FloatArray = np.empty(0)  # of the rows kept
        self._after_row: IntArray = np.zeros(1, dtype=np.int64)  # where in `_delays` each row begins, and the last ends

    def take(self, rows: FloatArray, new: int, single_s: FloatArray) -> None:
        """Take in the last `new` of the rows that are kept.

        Args:
            rows: every row of the clock that is kept.
            new: how many of them have not been here before.
            single_s: when prompts yielded a token, each at the end of some row; those of older rows are ignored [s].
        """
        self._starts = rows[:, START]
        self._after_row = np.concatenate(([0], np.cumsum(rows[:, STEPS].astype(np.int64))))
        if new:
            self._delays = np.concatenate((self._delays, self._new_delays(rows[len(rows) - new :], single_s)))

    def _new_delays(self, rows: FloatArray, single_s: FloatArray) -> FloatArray:
        row, i, ends = _steps(rows)
        last = ends - 1
        elapsed = rows[row, A] + rows[row, B] * i
        end_s = rows[:, START] + durations(rows)
        elapsed[ends - rows[:, STEPS].astype(np.int64)] += rows[:, START] - np.concatenate(([self._end_s], end_s[:-1]))
        tokens = rows[row, DECODING] * self._per_step
        at = np.searchsorted(rows[:, START], single_s - TOLERANCE_S) - 1
        tokens[last] += np.bincount(at[at >= 0], minlength=len(rows))
        work = tokens * self._token_s
        total = np.cumsum(work - elapsed)
        delays = total + np.maximum.accumulate(np.maximum(work - total, self._delays[-1]))
        self._end_s = float(end_s[-1])
        # rounding must not let a token out before it is worked on
        later: FloatArray = np.maximum(delays, work)
        return later

    def delay_s(self, token_s: FloatArray) -> FloatArray:
        """How long after the engine emits them clients get tokens, each emitted at the end of some row [s]."""
        delays: FloatArray = self._delays[self._after_row[np.searchsorted(self._starts, token_s - TOLERANCE_S)]]
        return delays

    def client_clock(self, rows: FloatArray) -> FloatArray:
        """The kept rows, one for each step, from when clients got the tokens before it to when they get its own."""
        row, i, _ = _steps(rows)
        clock = rows[row]
        before = self._delays[:-1]
        clock[:, START] += i * clock[:, A] + clock[:, B] * (i * (i - 1) * 0.5) + before
        clock[:, A] += clock[:, B] * i + (self._delays[1:] - before)
        clock[:, STEPS] = 1.0
        clock[:, B] = 0.0
        return clock

    def client_gap_s(self, gap_s: float, end_s: float) -> float:
        """A gap between two tokens, the second of which the engine emits at `end_s`, as clients see it [s]."""
        before, after = self.delay_s(np.array([end_s - gap_s, end_s]))
        return gap_s + float(after - before)

    def drop(self, rows: int) -> None:
        """Forget the first `rows` rows."""
        self._delays = self._delays[self._after_row[rows] :].copy()


def _steps(rows: FloatArray) -> tuple[IntArray, IntArray, IntArray]:
    """For every step its row and its number in it, and for every row where its steps end."""
    steps = rows[:, STEPS].astype(np.int64)
    ends = np.cumsum(steps)
    row = np.repeat(np.arange(len(rows)), steps)
    return row, np.arange(len(row)) - np.repeat(ends - steps, steps), ends
