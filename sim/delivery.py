"""The step clocks of all replicas as clients see them, and the requests that ended since the last fold upon them.

Where a replica has no detokenizer clients see the engine's own clock, link apart. Where it has one, tokens come later,
and the clock has a row for each step.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.serving import step_clock
from sim.serving.detokenizer import Detokenizer
from sim.serving.engine import Engine
from sim.serving.sequence import Sequence

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
Phases = list[tuple[int, int, float]]  #: decode phases that a preemption ended, see `Sequence.segments`


class Ended(NamedTuple):
    """Requests that ended since the last fold, one value each.

    Attributes:
        number: the request's; replica: where it ran, counted over all pools, or -1.
        first_s, last_s: when the engine emitted its first and last token [s].
        row, last_row: rows of the replica's clock in which it decoded last.
    """

    number: IntArray
    replica: IntArray
    first_s: FloatArray
    last_s: FloatArray
    row: IntArray
    last_row: IntArray


class ClientClocks:
    """The clocks of one fold. `add` takes replica after replica, in order; `join` ends it.

    Args:
        ended: the requests.
        phases: of those among them that were preempted, by request; what is asked for is taken out.
        detokenizers: by replica.
        replicas: how many there are.

    Attributes:
        rows: all clocks, one behind the other.
        first, last: where in `rows` each request decoded last; first 0 and last -1 if it did not.
        delays: of each request's first and last token behind the engine [s].
    """

    def __init__(
        self, ended: Ended, phases: dict[int, Phases], detokenizers: dict[int, Detokenizer], replicas: int
    ) -> None:
        self._ended, self._phases, self._detokenizers = ended, phases, detokenizers
        self.delays = np.zeros((len(ended.number), 2))
        self._clocks: list[FloatArray] = []
        self._sizes: list[IntArray] = []  # rows that each row of an engine's clock has become
        self._bases = np.zeros(replicas, dtype=np.int64)
        self._count = 0
        self._of: dict[int, IntArray] = {}  # which requests ended on which replica, where that matters
        if detokenizers:
            order = np.argsort(ended.replica, kind="stable")
            found, begin = np.unique(ended.replica[order], return_index=True)
            self._of = dict(zip(found.tolist(), np.split(order, begin[1:])))

    def add(self, at: int, engine: Engine, rows: FloatArray, new: int, living: Iterable[Sequence]) -> FloatArray:
        """Add the clock of replica `at`, and return its new rows as clients see them.

        The engine's gaps across preemptions become those that clients see.

        Args:
            rows: the engine's clock; new: how many of its rows are new.
            living: sequences on the replica that have not ended.
        """
        detokenizer = self._detokenizers.get(at)
        clock, sizes = rows, np.ones(len(rows), dtype=np.int64)
        if detokenizer is not None:
            self._deliver(detokenizer, at, engine, rows, new, living)
            clock, sizes = detokenizer.client_clock(rows), rows[:, step_clock.STEPS].astype(np.int64)
        self._clocks.append(clock)
        self._sizes.append(sizes)
        self._bases[at] = self._count - engine.first_row
        self._count += len(rows)
        return clock[int(sizes[: len(rows) - new].sum()) :]

    def _deliver(
        self, detokenizer: Detokenizer, at: int, engine: Engine, rows: FloatArray, new: int, living: Iterable[Sequence]
    ) -> None:
        """Let a detokenizer take in what its engine emitted since the last fold."""
        mine = self._of.get(at, np.empty(0, dtype=np.int64))
        first_s, last_s = self._ended.first_s[mine], self._ended.last_s[mine]
        begun = [seq.first_s for seq in living]
        gaps = engine.preemption_gaps
        detokenizer.take(rows, new, np.concatenate((first_s, begun, [end_s for _, _, end_s in gaps])))
        gaps[:] = [(slo_class, detokenizer.client_gap_s(gap, end_s), end_s) for slo_class, gap, end_s in gaps]
        self.delays[mine] = np.column_stack((detokenizer.delay_s(first_s), detokenizer.delay_s(last_s)))
        for i in mine.tolist():
            number, token_s = int(self._ended.number[i]), float(self._ended.first_s[i])
            for k, (first, last, gap) in enumerate(self._phases.get(number, ())):
                if last >= first:
                    row = rows[last - engine.first_row]
                    token_s = float(row[step_clock.START] + step_clock.durations(row[None])[0])
                token_s += gap
                self._phases[number][k] = (first, last, detokenizer.client_gap_s(gap, token_s))

    def join(self) -> None:
        """Put the clocks together, and find the requests on them."""
        self.rows = np.concatenate(self._clocks)
        self._place = np.concatenate(([0], np.cumsum(np.concatenate(self._sizes))))
        self.first, self.last = self._slices(self._ended.replica, self._ended.row, self._ended.last_row)

    def _slices(self, replica: IntArray, first: IntArray, last: IntArray) -> tuple[IntArray, IntArray]:
        """Where in `rows` the rows first..last of engines' clocks are; 0 and -1 for an empty slice."""
        ran = (last >= first) & (replica >= 0)
        base = self._bases[replica]
        return self._place[np.where(ran, first + base, 0)], self._place[np.where(ran, last + base + 1, 0)] - 1

    def timeline(self, i: int, pace: float, tokens: int) -> FloatArray:
        """When clients got each of the `tokens` tokens of request `i`, which was preempted, link apart [s]."""
        times = [np.array([self._ended.first_s[i] + self.delays[i, 0]])]
        for begin, end, gap in self._phases.pop(int(self._ended.number[i]), ()):
            first, last = self._slices(self._ended.replica[i : i + 1], np.array([begin]), np.array([end]))
            times.append(step_clock.token_times(self.rows, int(first[0]), int(last[0]), pace))
            times.append(np.array([next(t[-1] for t in reversed(times) if len(t)) + gap]))
        left = tokens - sum(map(len, times))
        times.append(step_clock.token_times(self.rows, int(self.first[i]), int(self.last[i]), pace, left))
        return np.concatenate(times)
