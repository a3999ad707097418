"""Reading the step clock: token times, gaps and stalls are slices of it, so memory grows with spans, not with tokens.

A replica's clock has one row a span: (start, steps k, first duration a, growth b, sequences decoding n, prompt tokens a
step, decode contexts, prompt tokens held, dynamic energy[, n by SLO class ...]). Where layers keep windows, what makes
contexts and prompts the memory in use is added to the prompt tokens held. Step i of a row takes a + b*i and
emits one token for each of its n sequences. A sequence decodes in whole rows, from its first to its last.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.results import GapSample

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]

START, STEPS, A, B, DECODING, PREFILL, CONTEXT, HELD, DYN, FIRST_CLASS = range(10)

EXACT_STEPS = 1 << 20  #: distinct gaps kept one by one; a run with more folds them into bins
_EDGE = 1e-6  #: far below a sixteenth of a token over the steps of any request, far above rounding
_ROUNDING_S = 1e-11  #: above that of differences of two token times in a run of days [s]
BIN = 5e-4  #: relative width of such a bin: a percentile is off by at most half of it


def durations(rows: FloatArray) -> FloatArray:
    """Duration of each row [s]."""
    k = rows[:, STEPS]
    spans: FloatArray = k * rows[:, A] + rows[:, B] * (k * (k - 1.0) * 0.5)
    return spans


def longest_gaps(rows: FloatArray, first: IntArray, last: IntArray) -> FloatArray:
    """Longest step of the rows first..last, for each pair; NaN where last < first. [s]"""
    longest = np.full(len(first), np.nan)
    some = last >= first
    if some.any():
        ends = np.maximum(rows[:, A], rows[:, A] + rows[:, B] * (rows[:, STEPS] - 1.0))
        ends = np.append(ends, 0.0)  # so that one past the last row is an index too
        bounds = np.column_stack((first[some], last[some] + 1)).ravel()
        longest[some] = np.maximum.reduceat(ends, bounds)[0::2]
    return longest


def steps_in(rows: FloatArray, first: IntArray, last: IntArray) -> FloatArray:
    """Steps of the rows first..last, for each pair; 0 where last < first."""
    steps = np.concatenate(([0.0], np.cumsum(rows[:, STEPS])))
    return np.where(last >= first, steps[last + 1] - steps[first], 0.0)


def token_times(rows: FloatArray, first: int, last: int, pace: float = 1.0, most: int | None = None) -> FloatArray:
    """When the tokens of the rows first..last come: one at the end of each step, or `pace` on average [s].

    With speculative decoding token i comes at the end of step ceil(i / pace), and there are at most `most`.
    """
    part = rows[first : last + 1]
    steps = part[:, STEPS].astype(np.int64)
    i = np.arange(1, steps.sum() + 1) - np.repeat(np.cumsum(steps) - steps, steps)
    t, a, b = (np.repeat(part[:, column], steps) for column in (START, A, B))
    times: FloatArray = t + i * a + b * (i * (i - 1) * 0.5)
    if pace == 1.0:
        return times
    tokens = int(len(times) * pace + _EDGE)
    return times[steps_of(np.arange(1, 1 + (tokens if most is None else min(tokens, most))), pace) - 1]


def steps_of(token: IntArray, pace: float | FloatArray) -> IntArray:
    """The step, from 1, at whose end a token comes, from 1. Exact, for `pace` is a whole number of sixteenths."""
    return np.ceil(token / pace - _EDGE).astype(np.int64)


def paced(times: FloatArray, bounds: IntArray, pace: FloatArray, tokens: IntArray) -> tuple[FloatArray, IntArray]:
    """`timelines` where each step yields `pace` tokens on average: the times of `tokens` tokens of each request."""
    ends = np.concatenate(([0], np.cumsum(tokens)))
    number = np.arange(ends[-1]) - np.repeat(ends[:-1], tokens)  # 0 is the first token, which ends the prefill
    step = steps_of(number, np.repeat(pace, tokens))
    return times[np.repeat(bounds[:-1], tokens) + step], ends


def timelines(rows: FloatArray, first: IntArray, last: IntArray, start_s: FloatArray) -> tuple[FloatArray, IntArray]:
    """Token times of many requests at once: a first token at `start_s`, then one for each step of its rows.

    Returns:
        All times, request after request [s], and where each request's begin, with their end behind the last.
    """
    counts = last - first + 1
    row = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts - first, counts)
    steps = rows[row, STEPS].astype(np.int64)
    sizes = 1 + np.add.reduceat(steps, np.cumsum(counts) - counts)
    bounds = np.concatenate(([0], np.cumsum(sizes)))
    i = np.arange(1, steps.sum() + 1) - np.repeat(np.cumsum(steps) - steps, steps)
    t, a, b = (np.repeat(rows[row, column], steps) for column in (START, A, B))
    times = np.empty(bounds[-1])
    times[bounds[:-1]] = start_s
    later = np.ones(len(times), dtype=bool)
    later[bounds[:-1]] = False
    times[later] = t + i * a + b * (i * (i - 1) * 0.5)
    return times, bounds


class Gaps:
    """Inter-token gaps of one (pool, SLO class): every gap as it is, or binned by 0.05 % once there are too many."""

    def __init__(self) -> None:
        self._values: list[FloatArray] = []
        self._counts: list[IntArray] = []
        self._gone: list[FloatArray] = []  # gaps that turned out to be others
        self._size = 0
        self._binned = False

    def add_rows(self, rows: FloatArray, weight: FloatArray) -> None:
        """Add the steps of rows, each as often as `weight` sequences decoded in it."""
        some = weight > 0.0
        rows, counts = rows[some], weight[some].astype(np.int64)
        if len(rows) == 0:
            return
        steps = rows[:, STEPS].astype(np.int64)
        if not self._binned and self._size + steps.sum() > EXACT_STEPS:
            self._binned = True
        if not self._binned:
            at = np.arange(steps.sum()) - np.repeat(np.cumsum(steps) - steps, steps)
            values = np.repeat(rows[:, A], steps) + np.repeat(rows[:, B], steps) * at
            self._append(values, np.repeat(counts, steps))
            return
        # as many equal pieces as the row has bins, each at its mean
        spread = rows[:, B] * (rows[:, STEPS] - 1.0) / (BIN * rows[:, A])
        pieces = np.clip(np.ceil(spread).astype(np.int64), 1, steps)
        at = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        row = np.repeat(np.arange(len(rows)), pieces)
        low = at * steps[row] // pieces[row]
        high = (at + 1) * steps[row] // pieces[row]
        values = rows[row, A] + rows[row, B] * (low + high - 1) * 0.5
        self._append(values, (high - low) * counts[row])

    def add_values(self, values: FloatArray, count: int = 1) -> None:
        """Add single gaps [s], each `count` times."""
        self._append(values, np.full(len(values), count, dtype=np.int64))

    def replace_values(self, old: FloatArray, new: FloatArray) -> None:
        """Let gaps that have been added, up to rounding, be others [s]."""
        self._gone.append(old)
        self._append(new, np.ones(len(new), dtype=np.int64))

    def sample(self) -> GapSample:
        """All gaps so far, sorted by value."""
        self._fold()
        if not self._values:
            return GapSample(np.empty(0), np.empty(0, dtype=np.int64))
        values, counts = self._values[0], self._counts[0]
        if self._gone:
            # each is taken from the last value that is not above it; where that has too few, from those just below
            at = np.searchsorted(values, np.concatenate(self._gone) + _ROUNDING_S, side="right") - 1
            left = np.cumsum(counts - np.bincount(np.maximum(at, 0), minlength=len(values)))
            left = np.maximum(np.minimum.accumulate(left[::-1])[::-1], 0)
            counts = np.diff(left, prepend=0)
            values, counts = values[counts > 0], counts[counts > 0]
        return GapSample(values, counts)

    def _append(self, values: FloatArray, counts: IntArray) -> None:
        self._values.append(values)
        self._counts.append(counts)
        self._size += len(values)
        if self._size > 2 * EXACT_STEPS:
            self._fold()

    def _fold(self) -> None:
        if not self._values:
            return
        values, counts = np.concatenate(self._values), np.concatenate(self._counts)
        if self._binned:
            key = np.rint(np.log(np.maximum(values, 1e-12)) / BIN).astype(np.int64)
            base = int(key.min())
            total = np.bincount(key - base, counts)
            weighted = np.bincount(key - base, counts * values)
            some = np.flatnonzero(total)
            values, counts = weighted[some] / total[some], np.rint(total[some]).astype(np.int64)
        else:
            order = np.argsort(values)
            values, counts = values[order], counts[order]
        self._values, self._counts, self._size = [values], [counts], len(values)
