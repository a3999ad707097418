"""When a link is down, and how its own time passes: it stands still in an outage, and goes on afterwards."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from sim.errors import InputError, number

FloatArray = npt.NDArray[np.float64]

_ACCEPTED = "[start_s, end_s] with 0 <= start_s < end_s"


class Outages:
    """The outages of one link, in order and apart: it is down on [start, end).

    Args:
        spans: (start, end) of each [s].
    """

    __slots__ = ("_ends", "_starts")

    def __init__(self, spans: Iterable[tuple[float, float]]) -> None:
        pairs = list(spans)
        self._starts = [start for start, _ in pairs]
        self._ends = [end for _, end in pairs]

    def down(self, t_s: float) -> bool:
        """Whether the link is down at `t_s` [s]."""
        at = bisect_right(self._starts, t_s) - 1
        return at >= 0 and t_s < self._ends[at]

    def later(self, t_s: float, work_s: float) -> float:
        """When the link will have been up for `work_s` since `t_s` [s]; after the outage that `t_s` is in, if any."""
        starts, ends = self._starts, self._ends
        at = bisect_right(starts, t_s)
        if at and t_s < ends[at - 1]:
            t_s = ends[at - 1]
        t_s += work_s
        while at < len(starts) and starts[at] < t_s:
            t_s += ends[at] - starts[at]
            at += 1
        return t_s

    def elapsed(self, t0_s: float, t1_s: float) -> float:
        """How long the link was up between `t0_s` and `t1_s` [s]."""
        starts, ends = self._starts, self._ends
        up_s = t1_s - t0_s
        at = max(bisect_right(starts, t0_s) - 1, 0)
        while at < len(starts) and starts[at] < t1_s:
            up_s -= max(0.0, min(ends[at], t1_s) - max(starts[at], t0_s))
            at += 1
        return up_s

    def stalls(self, t_s: FloatArray, work_s: FloatArray) -> FloatArray:
        """`later` of many at once, less the time that it takes without outages: exactly 0 where none is met [s]."""
        held = np.zeros(len(t_s))
        begin = t_s.copy()
        for start, end in zip(self._starts, self._ends):
            inside = (begin >= start) & (begin < end)
            held[inside] += end - begin[inside]
            begin[inside] = end
            held[(begin < start) & (t_s + work_s + held > start)] += end - start
        return held

    def touch(self, t0_s: FloatArray, t1_s: FloatArray) -> npt.NDArray[np.bool_]:
        """Whether the link is down at some time from each `t0_s` to `t1_s` [s]."""
        at = np.searchsorted(self._ends, t0_s, side="right")
        touched: npt.NDArray[np.bool_] = np.append(self._starts, np.inf)[at] <= t1_s
        return touched


def check_outages(key: str, value: object) -> tuple[tuple[float, float], ...]:
    """Return a list of [start, end] as tuples.

    Raises:
        InputError: one is no interval, or begins before the end of the one before it.
    """
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise InputError(key, value, f"a list of {_ACCEPTED}")
    spans: list[tuple[float, float]] = []
    for index, span in enumerate(value):
        own = f"{key}[{index}]"
        if isinstance(span, str) or not isinstance(span, Sequence) or len(span) != 2:
            raise InputError(own, span, _ACCEPTED)
        start, end = (number(own, time, _ACCEPTED, low=0.0) for time in span)
        if start >= end:
            raise InputError(own, [start, end], _ACCEPTED)
        if spans and start <= spans[-1][1]:
            accepted = f"outages in order and apart: this one is to begin after {spans[-1][1]:g} s"
            raise InputError(own, [start, end], accepted)
        spans.append((start, end))
    return tuple(spans)
