"""How long a pool's replicas were there, booting or not, and for how long they are paid for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.accounting.billing import billed_s, in_units
from sim.accounting.cost import RESERVED, Owned, Rent

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool

FloatArray = npt.NDArray[np.float64]
Spans = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Provision:
    """Time of a pool's replicas (or ranks) until the end of a run.

    Attributes:
        there_s, boot_s: they were there, and booting [s].
        kept_s: their owner keeps them for this pool: all the time where they are owned or reserved [s].
        paid_s: they are paid for, in whole billing units [s]; as `there_s` where cost is unknown.
        awake_w, booting_w: integrals of the pool's weight over the time that they were there, booted, and booting.
    """

    there_s: float
    boot_s: float
    kept_s: float
    paid_s: float
    awake_w: Any
    booting_w: Any


def provision_of(pool: LivePool, end_s: float) -> Provision:
    """The provision of a pool: all replicas from 0 to `end_s`, or as its plan had it."""
    spec, weight, count = pool.spec, pool.weight, pool.spec.engines
    if spec.plan is None:
        boot_s = min(spec.boot_s, end_s)
        whole, booting = weight.integral(0.0, end_s), weight.integral(0.0, boot_s)
        paid_s = end_s if spec.cost is None else billed_s(spec.cost, spec.outages, end_s)
        there_s = count * end_s
        return Provision(there_s, boot_s * count, there_s, count * paid_s, count * (whole - booting), count * booting)
    spans, boots = planned_spans(pool, end_s)
    there_s, booted_s = (sum(end - start for start, end in each) for each in (spans, boots))
    none: Any = 0.0 * weight.at(0.0)
    at, booting = (sum((weight.integral(*span) for span in each), start=none) for each in (spans, boots))
    kept = isinstance(spec.cost, Owned) or (isinstance(spec.cost, Rent) and spec.cost.plan == RESERVED)
    kept_s = count * end_s if kept else there_s
    paid_s = kept_s
    if spec.cost is not None and not kept:
        paid_s = in_units(spans, spec.cost.rates().billing_unit_s)
    return Provision(there_s, booted_s, kept_s, paid_s, at + booting * -1.0, booting)


def planned_spans(pool: Any, end_s: float) -> tuple[Spans, Spans]:
    """(start, end) of each time that a replica of a planned pool was there, and booted [s]."""
    found: tuple[Spans, Spans] = pool.provisioned(end_s)
    return found


def mean_there(pool: LivePool, start_s: Any, length_s: Any) -> tuple[Any, Any]:
    """Mean number of replicas (or ranks) that were there, and that booted, in bins of time.

    Args:
        start_s, length_s: the bins, from 0 on without gaps [s].
    """
    count = float(pool.spec.engines)
    if pool.spec.plan is None:
        return count, np.clip(pool.spec.boot_s - start_s, 0.0, length_s) / length_s * count
    spans, boots = planned_spans(pool, float(start_s[-1] + length_s[-1]))
    return _mean(spans, start_s, length_s), _mean(boots, start_s, length_s)


def _mean(spans: Spans, start_s: Any, length_s: Any) -> FloatArray:
    level = np.zeros(len(start_s))
    for start, end in spans:
        level += np.clip(np.minimum(end, start_s + length_s) - np.maximum(start, start_s), 0.0, None)
    mean: FloatArray = level / length_s
    return mean
