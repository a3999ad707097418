"""Small whole numbers, at least 1: turns of a conversation, images of a request."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sim.errors import InputError
from sim.workload import checks
from sim.workload.lengths import FloatArray, IntArray, Marginal
from sim.workload.popularity import MOST, Popularity

ACCEPTED = "{mean: a number >= 1}, {weights: [those of 1, 2, 3, ...]}, or a distribution with a _target_"


class Counts:
    """A geometric law from 1 up, or a table. It is a marginal like those of lengths.

    Args:
        mean: of the geometric law: P(k) = (1 - 1/mean)^(k - 1) / mean.
        weights: of 1, 2, 3 and so on, instead.
        key: dotted key, for errors.
    """

    def __init__(
        self, mean: float | None = None, weights: Sequence[float] | None = None, key: str = "workload.turns"
    ) -> None:
        if (mean is None) == (weights is None):
            raise InputError(key, {"mean": mean, "weights": weights}, ACCEPTED)
        self._table: Popularity | None = None
        if weights is not None:
            if isinstance(weights, str) or not isinstance(weights, Sequence) or not weights:
                raise InputError(f"{key}.weights", weights, "a list of weights >= 0, not all 0")
            self._table = Popularity(key, None, weights, names=("weights", "weights"))
        self.mean = 1.0 if mean is None else checks.number(f"{key}.mean", mean, "a mean from 1 to 1e6", 1.0, MOST)

    def quantile(self, u: FloatArray) -> IntArray:
        """Numbers at probabilities `u` in [0, 1), at least 1, at most a million."""
        if self._table is not None:
            return 1 + self._table.at(u)
        if self.mean == 1.0:
            return np.ones(len(u), dtype=np.int64)
        further = np.floor(np.log1p(-u) / math.log1p(-1.0 / self.mean))
        return 1 + np.minimum(further, MOST - 1).astype(np.int64)


def counts(key: str, value: object) -> Marginal:
    """Return a distribution of whole numbers from a mapping, or the object that it already is."""
    if callable(getattr(value, "quantile", None)):
        marginal: Marginal = value  # type: ignore[assignment]
        return marginal
    arguments = checks.arguments(key, value, Counts, ACCEPTED)
    return Counts(**arguments, key=key)


def mean_of(marginal: Marginal) -> float:
    """Mean of a distribution, to some 0.1 %: that of ten thousand even quantiles."""
    return float(marginal.quantile((np.arange(10_000) + 0.5) / 10_000).mean())
