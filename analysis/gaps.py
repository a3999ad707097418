"""Statistics of inter-token gaps kept as (value, count) pairs, as if every gap were listed on its own."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from sim.qoe import FloatArray
from sim.results import GapSample


def merge(samples: Iterable[GapSample]) -> GapSample:
    """All gaps of several samples as one, sorted by value."""
    parts = [sample for sample in samples if len(sample.value_s)]
    if not parts:
        return GapSample(np.empty(0), np.empty(0, dtype=np.int64))
    if len(parts) == 1:
        return parts[0]
    value = np.concatenate([part.value_s for part in parts])
    order = np.argsort(value, kind="stable")
    return GapSample(value[order], np.concatenate([part.count for part in parts])[order])


def percentiles(sample: GapSample, q: Sequence[float] | FloatArray) -> FloatArray:
    """Percentiles `q` in [0, 100] of the expanded sample, numpy's linear interpolation to the last bit [s].

    NaN where the sample is empty.
    """
    q = np.asarray(q, dtype=np.float64)
    last_rank = np.cumsum(sample.count)  # rank of the first gap beyond each value
    total = int(last_rank[-1]) if len(last_rank) else 0
    if total == 0:
        return np.full(len(q), np.nan)
    position = (q / 100.0) * (total - 1)
    below = np.floor(position)
    low = sample.value_s[np.searchsorted(last_rank, below, side="right")]
    high = sample.value_s[np.searchsorted(last_rank, np.minimum(below + 1.0, total - 1), side="right")]
    share = position - below
    # from the nearer end, as numpy does
    return np.where(share < 0.5, low + (high - low) * share, high - (high - low) * (1.0 - share))


def mean(sample: GapSample) -> float:
    """Mean gap [s]; NaN where the sample is empty."""
    total = sample.count.sum()
    return float(sample.value_s @ sample.count / total) if total else float("nan")
