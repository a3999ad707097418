"""Which seconds of a replica are paid for: by the started billing unit, and not while a spot instance is taken away."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.accounting.cost import CostModel

_ROUNDING = 1e-9  #: of a billing unit: what is over by rounding starts none

Spans = Sequence[tuple[float, float]]


def billed_s(cost: CostModel, outages: Spans, end_s: float) -> float:
    """Seconds that are billed for one replica from 0 to `end_s` [s].

    Args:
        cost: how it is paid for.
        outages: (start, end) of each time at which it is out of service [s].
        end_s: end of the accounts [s].
    """
    rates = cost.rates()
    spans = _between(outages, end_s) if rates.pauses_in_outages else iter([(0.0, end_s)])
    return in_units(spans, rates.billing_unit_s)


def in_units(spans: Iterable[tuple[float, float]], unit_s: float) -> float:
    """Time of (start, end) in units of `unit_s`, started ones in full; 0 for exact time [s]."""
    if not unit_s:
        return sum(end - start for start, end in spans)
    return sum(unit_s * math.ceil((end - start) / unit_s - _ROUNDING) for start, end in spans)


def _between(outages: Spans, end_s: float) -> Iterator[tuple[float, float]]:
    """The times from 0 to `end_s` that are outside of outages, which are in order and apart."""
    t = 0.0
    for start, end in outages:
        if start >= end_s:
            break
        if start > t:
            yield t, start
        t = end
    if t < end_s:
        yield t, end_s
