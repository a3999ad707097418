"""Time series of unknown length in a bounded number of bins: when they run out, neighbours are merged in pairs."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

MOST_BINS = 1000  #: bins kept while the width is free to grow


class Series:
    """Integrals of piecewise-constant levels per time bin, each level given as (start, end, value) intervals.

    An interval adds `value` to the level from its start to its end. Per bin two sums suffice: `inside`, the integral
    that starts and ends inside a bin leave in that bin, and `level`, the change of level that later bins see in full.
    """

    def __init__(self, width_s: float, fixed: bool) -> None:
        self.width_s, self.fixed = width_s, fixed
        self.inside: FloatArray = np.zeros(64)
        self.level: FloatArray = np.zeros(64)
        self.points: FloatArray = np.zeros(64)

    def add_levels(self, start_s: FloatArray, end_s: FloatArray, value: FloatArray | float) -> None:
        """Raise the level by `value` on [start, end); arrays of one length."""
        if len(start_s) == 0:
            return
        self._reach(float(end_s.max()))
        values = np.broadcast_to(np.asarray(value, dtype=np.float64), start_s.shape)
        for at, sign in ((start_s, 1.0), (end_s, -1.0)):
            bins = np.minimum((at / self.width_s).astype(np.int64), len(self.inside) - 1)
            rest = (bins + 1) * self.width_s - at
            self.inside += sign * np.bincount(bins, values * rest, minlength=len(self.inside))
            self.level += sign * np.bincount(bins, values, minlength=len(self.level))

    def add_points(self, at_s: FloatArray, value: FloatArray | float = 1.0) -> None:
        """Add `value` to the bins in which the instants `at_s` fall."""
        if len(at_s) == 0:
            return
        self._reach(float(at_s.max()))
        bins = np.minimum((at_s / self.width_s).astype(np.int64), len(self.points) - 1)
        weights = np.broadcast_to(np.asarray(value, dtype=np.float64), at_s.shape)
        self.points += np.bincount(bins, weights, minlength=len(self.points))

    def per_bin(self, bins: int) -> tuple[FloatArray, FloatArray]:
        """Integral of the level, and sum of the points, in each of the first `bins` bins."""
        self._grow(bins)
        before = np.concatenate(([0.0], np.cumsum(self.level)[:-1]))
        return (self.inside + before * self.width_s)[:bins], self.points[:bins]

    def merge_pairs(self) -> None:
        """Double the width of the bins."""
        self._grow(len(self.inside) + len(self.inside) % 2)
        self.inside = self.inside[0::2] + self.inside[1::2] + self.level[0::2] * self.width_s
        self.level = self.level[0::2] + self.level[1::2]
        self.points = self.points[0::2] + self.points[1::2]
        self.width_s *= 2.0

    def _reach(self, end_s: float) -> None:
        while not self.fixed and end_s >= self.width_s * MOST_BINS:
            self.merge_pairs()
        self._grow(int(end_s / self.width_s) + 2)

    def _grow(self, bins: int) -> None:
        missing = bins - len(self.inside)
        if missing > 0:
            extra = np.zeros(max(missing, len(self.inside) if not self.fixed else missing))
            self.inside = np.concatenate((self.inside, extra))
            self.level = np.concatenate((self.level, extra))
            self.points = np.concatenate((self.points, extra))


def align(series: list[Series], end_s: float = 0.0) -> float:
    """Give all series the width of the widest, or where it is free to grow, one at which they end in bounds [s]."""
    width = max(each.width_s for each in series)
    while not any(each.fixed for each in series) and end_s > width * MOST_BINS:
        width *= 2.0
    for each in series:
        while each.width_s < width:
            each.merge_pairs()
    return width


class Metered(Series):
    """A series that is also kept in bins of a fixed width, `fine`, for whoever settles accounts by them.

    Args:
        like: the series whose place it takes; still empty.
        width_s: width of the fine bins [s].
    """

    def __init__(self, like: Series, width_s: float) -> None:
        super().__init__(like.width_s, like.fixed)
        self.fine = Series(width_s, True)

    def add_levels(self, start_s: FloatArray, end_s: FloatArray, value: FloatArray | float) -> None:
        """See `Series.add_levels`."""
        super().add_levels(start_s, end_s, value)
        self.fine.add_levels(start_s, end_s, value)
