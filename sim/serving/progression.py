"""Steps in arithmetic progression: how many of them a while holds."""

from __future__ import annotations

import math

from sim.serving.queues import TOLERANCE_S


def steps_within(elapsed: float, a: float, b: float) -> int:
    """Steps of `a`, `a + b`, `a + 2 b` ... until `elapsed` is over [s]; 0 only if it is nothing."""
    if elapsed <= TOLERANCE_S:
        return 0
    start = a - 0.5 * b
    # the stable root of k*a + b*k*(k-1)/2 = elapsed; rounding can be a step off, so both neighbours are verified
    k = int(2.0 * elapsed / (start + math.sqrt(start * start + 2.0 * b * elapsed)))
    while k * a + b * (k * (k - 1) * 0.5) + TOLERANCE_S < elapsed:
        k += 1
    while k > 0 and (k - 1) * a + b * ((k - 1) * (k - 2) * 0.5) + TOLERANCE_S >= elapsed:
        k -= 1
    return k
