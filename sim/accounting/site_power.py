"""Facility power of a pool in bins of time, from series of its busy replicas and their dynamic power."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from sim.accounting.ledger import rates_of
from sim.accounting.provision import mean_there
from sim.accounting.purchased import is_api
from sim.timeline import Series

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool

FloatArray = npt.NDArray[np.float64]
Floats = npt.NDArray[np.floating[Any]]


def facility_power(pool: LivePool, busy: Series, dyn_w: Series, start_s: Floats, length_s: Floats) -> FloatArray:
    """Mean facility power in every bin [W]; NaN of an API under way whose energy is not known.

    Args:
        pool: whose; its replicas, or data-parallel ranks.
        busy: how many of them compute; dyn_w: their dynamic power [W]; in bins of the same width.
        start_s, length_s: the bins; the last may be shorter [s].
    """
    working, dynamic_w = (series.per_bin(len(start_s))[0] / length_s for series in (busy, dyn_w))
    if is_api(pool):
        return dynamic_w if pool.api.energy is not None else np.where(working > 0.0, math.nan, 0.0)
    rates, (there, boot) = rates_of(pool), mean_there(pool, start_s, length_s)
    idle = np.maximum(there - working - boot, 0.0)
    pue = rates.pue if math.isfinite(rates.pue) else means(pool.site.pue, start_s, length_s)
    power: FloatArray = pue * (rates.active_w * (working + boot) + rates.idle_w * idle + dynamic_w)
    return power


def means(signal: Any, start_s: Floats, length_s: Floats) -> FloatArray:
    """Mean of a signal in every bin."""
    return np.array([signal.integral(t, t + d) / d for t, d in zip(start_s, length_s)])
