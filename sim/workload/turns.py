"""Turns of conversations that are still to come, and the time between them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.errors import InputError
from sim.workload import checks
from sim.workload.lengths import FloatArray, IntArray

KEY = "workload.think"
Columns = dict[str, npt.NDArray[Any]]  #: columns of turns by name, all of equal length; one is `arrival_s`


class ThinkTime:
    """The time from one turn's arrival to the next's: the answer, its reading, and the user's own thought and typing.

    It is log-normal, and a time for each token of the answer may be added to it.

    Args:
        median_s, mean_s: of the log-normal part [s]; one of the two.
        sigma: standard deviation of its natural logarithm.
        output_token_s: further time for each token of the answer, to be written and read [s].
    """

    def __init__(
        self,
        median_s: float | None = None,
        mean_s: float | None = None,
        sigma: float = 1.0,
        output_token_s: float = 0.0,
    ) -> None:
        if (median_s is None) == (mean_s is None):
            raise InputError(KEY, {"median_s": median_s, "mean_s": mean_s}, "one of median_s and mean_s")
        self.sigma = checks.number(f"{KEY}.sigma", sigma, "a number from 0 to 10", 0.0, 10.0)
        if median_s is not None:
            self.median_s = checks.positive(f"{KEY}.median_s", median_s, "a time > 0 s")
        else:
            mean = checks.positive(f"{KEY}.mean_s", mean_s, "a time > 0 s")
            self.median_s = mean * math.exp(-0.5 * self.sigma**2)
        self.output_token_s = checks.number(f"{KEY}.output_token_s", output_token_s, "a time >= 0 s", 0.0)

    @property
    def mean_s(self) -> float:
        """Mean of the log-normal part [s]."""
        return self.median_s * math.exp(0.5 * self.sigma**2)

    def sample(self, rng: np.random.Generator, answer: IntArray) -> FloatArray:
        """Draw the times [s] that follow turns with these answers."""
        return self.median_s * np.exp(self.sigma * rng.standard_normal(len(answer))) + self.output_token_s * answer


class OpenTurns:
    """Turns that have been drawn and have not come yet: in memory as long as their conversation goes on."""

    def __init__(self) -> None:
        self._waiting: Columns = {}

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, turns: Columns) -> None:
        """Take the turns of conversations that begin now."""
        waiting = self._waiting
        self._waiting = {name: np.concatenate([waiting[name], turns[name]]) for name in turns} if waiting else turns

    def before(self, time_s: float) -> Columns:
        """Hand over all turns that come before `time_s` [s], in order of arrival; no new one may come before it."""
        arrival_s = self._waiting["arrival_s"]
        due = arrival_s < time_s
        order = np.flatnonzero(due)
        order = order[np.argsort(arrival_s[order], kind="stable")]
        ready = {name: column[order] for name, column in self._waiting.items()}
        rest = ~due
        self._waiting = {name: column[rest] for name, column in self._waiting.items()}
        return ready
