"""When the first visible token of a request comes, whose first tokens were hidden thinking.

Only such requests are looked at: their token is found in the step clock by its number, in closed form.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from sim.serving import step_clock

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Hidden:
    """Requests with hidden tokens: how many they are, and when the first token behind them came.

    Attributes:
        tokens: hidden ones of requests that have ended, by number, until their time is found.
    """

    def __init__(self) -> None:
        self.tokens: dict[int, int] = {}
        self._numbers: list[IntArray] = []
        self._hidden: list[IntArray] = []
        self._times: list[FloatArray] = []

    def take(self, numbers: FloatArray, emitted: FloatArray) -> IntArray | None:
        """Hidden tokens of the requests with these numbers, fewer than they got; None if none has any."""
        if not self.tokens:
            return None
        found = np.array([self.tokens.pop(int(number), 0) for number in numbers], dtype=np.int64)
        return np.minimum(found, np.maximum(emitted - 1, 0).astype(np.int64))

    def keep(self, numbers: FloatArray, hidden: IntArray, ttfv_s: FloatArray) -> None:
        """Remember the times to the first visible token [s], NaN of requests that did not complete."""
        some = hidden > 0
        self._numbers.append(numbers[some].astype(np.int64))
        self._hidden.append(hidden[some])
        self._times.append(ttfv_s[some])

    def columns(self, ttft_s: FloatArray) -> tuple[IntArray, FloatArray]:
        """Hidden tokens and time to the first visible one [s] of all requests; that is TTFT where none is hidden."""
        hidden, ttfv_s = np.zeros(len(ttft_s), dtype=np.int64), ttft_s.copy()
        for numbers, tokens, times in zip(self._numbers, self._hidden, self._times):
            hidden[numbers], ttfv_s[numbers] = tokens, times
        return hidden, ttfv_s


def token_at(
    rows: FloatArray, first: IntArray, last: IntArray, first_s: FloatArray, number: IntArray, pace: FloatArray
) -> FloatArray:
    """When token `number` of each request comes, 0 being the first one [s].

    Args:
        rows: step clocks; first, last: the rows in which each request decodes, without a break.
        first_s: when its first token came [s].
        number: below its output tokens.
        pace: tokens a step on average.
    """
    times = first_s.copy()
    some = np.flatnonzero((number > 0) & (last >= first))
    if not len(some):
        return times
    before = np.concatenate(([0.0], np.cumsum(rows[:, step_clock.STEPS])))
    step = step_clock.steps_of(number[some], pace[some]) + before[first[some]]
    row = np.minimum(np.searchsorted(before, step, side="left") - 1, last[some])
    i = step - before[row]
    start, a, b = (rows[row, column] for column in (step_clock.START, step_clock.A, step_clock.B))
    times[some] = start + i * a + b * (i * (i - 1.0) * 0.5)
    return times


def seen(times: FloatArray, bounds: IntArray, hidden: IntArray) -> tuple[FloatArray, IntArray]:
    """`step_clock.timelines` without the hidden tokens that come first."""
    sizes = np.diff(bounds)
    number = np.arange(len(times)) - np.repeat(bounds[:-1], sizes)
    return times[number >= np.repeat(hidden, sizes)], np.concatenate(([0], np.cumsum(sizes - hidden)))
