"""When a request's last token is due."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.workload import checks
from sim.workload.lengths import FloatArray, IntArray

KEY = "workload.deadlines"
ACCEPTED = "a time > 0 s | slo | {class: a time or slo}"


class Deadlines:
    """Times after arrival by which the last token is due: the same for all, by SLO class, or log-normal.

    Args:
        seconds: the deadline [s], or ``slo`` for what the class's bounds imply: the lesser of `e2e_s` and
            `ttft_s` + `tpot_s` (N - 1) for N output tokens. Or either by the name of the SLO class; classes that are
            left out have no deadline.
        sigma: standard deviation of the deadline's natural logarithm, of which the above then is the median.
    """

    def __init__(self, seconds: float | str | Mapping[str, float | str], sigma: float = 0.0) -> None:
        self._seconds = seconds
        self._sigma = checks.number(f"{KEY}.sigma", sigma, "a number from 0 to 10", 0.0, 10.0)
        rows = seconds.items() if isinstance(seconds, Mapping) else [("", seconds)]
        for name, value in rows:
            self._check(f"{KEY}.seconds.{name}".rstrip("."), value)

    def bind(self, classes: Sequence[SLOClass]) -> None:
        """Settle what each SLO class's deadline is."""
        names = [cls.name for cls in classes]
        if isinstance(self._seconds, Mapping):
            for name, value in self._seconds.items():
                if name not in names:
                    raise InputError(f"{KEY}.seconds.{name}", value, "an SLO class: " + " | ".join(names))
        rows = [self._bounds(cls) for cls in classes]
        self._first, self._each, self._whole = (np.array(column) for column in zip(*rows))

    def draw(self, rng: np.random.Generator, slo_class: IntArray, output: IntArray) -> FloatArray:
        """Deadlines [s] of requests of these SLO classes and output lengths; infinite for none."""
        due = self._whole[slo_class]
        each = self._each[slo_class]
        paced = np.isfinite(each) & np.isfinite(self._first[slo_class])
        due[paced] = np.minimum(due, self._first[slo_class] + each * (output - 1))[paced]
        if self._sigma > 0.0:
            due = due * np.exp(self._sigma * rng.standard_normal(len(due)))
        return np.asarray(due)

    def _bounds(self, cls: SLOClass) -> tuple[float, float, float]:
        """Bounds of the first token, of each further one, and of all [s]."""
        value = self._seconds.get(cls.name) if isinstance(self._seconds, Mapping) else self._seconds
        if value == "slo":
            return cls.ttft_s, cls.tpot_s, cls.e2e_s
        return math.inf, math.inf, math.inf if value is None else float(value)

    @staticmethod
    def _check(key: str, value: object) -> None:
        if value != "slo" and not (value is None and key != f"{KEY}.seconds"):
            checks.positive(key, value, ACCEPTED)
