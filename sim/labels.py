"""Correctness that was measured, to be replayed: which question a request asks, and how each model answered it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]


class Labels:
    """Labels by question, and the questions of the requests so far.

    Args:
        columns: for each label's name, one value a question: 1 correct, 0 wrong, NaN unknown.
    """

    def __init__(self, columns: Mapping[str, FloatArray]) -> None:
        self._columns = columns
        self._values = {name: column.tolist() for name, column in columns.items()}
        self._questions: list[int] = []

    @property
    def names(self) -> list[str]:
        """Of the labels."""
        return list(self._columns)

    def ask(self, questions: IntArray) -> None:
        """The next requests, in order of arrival, ask these questions."""
        self._questions.extend(questions.tolist())

    def value(self, name: str, number: int) -> float:
        """Label of a request by its number; NaN of one that has not been drawn."""
        if number >= len(self._questions):
            return math.nan
        return float(self._values[name][self._questions[number]])

    def values(self, name: str, numbers: IntArray) -> FloatArray:
        """The same of many requests that have been drawn."""
        asked = np.array(self._questions, dtype=np.int64)
        found: FloatArray = self._columns[name][asked[numbers]]
        return found

    def rate(self, name: str) -> float:
        """Mean of a label over the questions where it is known; NaN where it never is."""
        known = self._columns[name][~np.isnan(self._columns[name])]
        return float(known.mean()) if len(known) else math.nan

    def win_rate(self, weak: str, strong: str) -> float:
        """Mean of what the strong label is above the weak one, where both are known."""
        ahead = self._columns[strong] - self._columns[weak]
        known = ahead[~np.isnan(ahead)]
        return float(np.maximum(known, 0.0).mean()) if len(known) else math.nan
