"""Means and differences with Student's t intervals over seeds; common seeds make differences paired."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95  #: of every interval


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean and its confidence interval.

    Attributes:
        mean: of the values.
        half_width: half of the interval's width; None where one value alone cannot tell.
        count: how many values.
    """

    mean: float
    half_width: float | None
    count: int

    @property
    def low(self) -> float | None:
        """Lower end."""
        return None if self.half_width is None else self.mean - self.half_width

    @property
    def high(self) -> float | None:
        """Upper end."""
        return None if self.half_width is None else self.mean + self.half_width

    @property
    def holds_zero(self) -> bool | None:
        """Whether zero lies within; None where the interval is unknown."""
        return None if self.half_width is None else abs(self.mean) <= self.half_width


def interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of independent values and its interval, mean +- t s / sqrt(n) with n - 1 degrees of freedom.

    Source: Student (1908); Law, Simulation Modeling and Analysis, on independent replications.

    Args:
        values: at least one, all of them numbers.
        confidence: in (0, 1).
    """
    from scipy.special import stdtrit

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return Interval(mean, None, count)
    spread = float(np.std(values, ddof=1))
    return Interval(mean, float(stdtrit(count - 1, 0.5 + confidence / 2.0)) * spread / math.sqrt(count), count)


def paired(values: Sequence[float], reference: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Mean of the differences value - reference, seed by seed, and its interval.

    Both saw the same random numbers, so what they share cancels: far tighter than two intervals side by side.

    Args:
        values, reference: of the same seeds in the same order.
        confidence: in (0, 1).
    """
    if len(values) != len(reference):
        raise ValueError(f"{len(values)} values and {len(reference)} to pair them with")
    return interval([value - other for value, other in zip(values, reference)], confidence)
