"""Whether a fleet holds a rate: attainment, a backlog that grows, and what the fleet draws, costs and emits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.comparison import Row
from sim.results import Result
from sim.units import JOULES_PER_KWH, SECONDS_PER_HOUR

#: Share of the requests that may be left over for later before a backlog is said to grow: half of the 2 % to which
#: rates are searched (assumed). What chance leaves comes on top: `Load.allowed`.
MOST_LEFT = 0.01
_COUNTED = ("requests", "grown", "came", "waiting", "inside")
_DEVIATIONS = 2.0  #: standard deviations that count as chance


@dataclass(frozen=True, slots=True)
class Load:
    """A rate that was tried, over all seeds.

    Attributes:
        value: of the key that sets the rate.
        rate: of requests [1/s]; came: those that came, of the trials [1/s].
        attainment: mean share of requests within the SLO.
        left: mean share of requests that the window left over; allowed: what a backlog that does not grow may leave.
        rows: of each seed, as `load` gives them.
    """

    value: float
    rate: float
    came: float
    attainment: float
    left: float
    allowed: float
    rows: tuple[Row, ...]

    def holds(self, target: float) -> bool:
        """Whether enough requests are within their SLO, and no backlog grows."""
        return self.attainment >= target and self.left <= self.allowed

    @property
    def attainments(self) -> list[float]:
        """Attainment of each seed."""
        return [float(row["slo_attainment"] or 0.0) for row in self.rows]

    def mean(self, key: str) -> float | None:
        """Mean of a measure over the seeds; None where one seed does not know it."""
        known = [value for row in self.rows if (value := row[key]) is not None]
        return math.fsum(known) / len(known) if len(known) == len(self.rows) else None

    @property
    def peak_w(self) -> float | None:
        """The highest power of any seed [W]; None where one seed does not know it."""
        known = [value for row in self.rows if (value := row["peak_w"]) is not None]
        return max(known) if len(known) == len(self.rows) else None


def load(result: Result, summary: Mapping[str, Any]) -> Row:
    """What one run says of a rate.

    Power and operational carbon are means over the time bins that lie wholly between warm-up and the last arrival, so
    that neither the filling of the fleet nor its emptying dilutes them; `peak_w` is the highest such bin. Cost,
    embodied carbon and what the network emits grow by the clock or are small: they are means over the run.

    Returns:
        requests, window_s (to the last arrival), slo_attainment, the keys of `left`, peak_w, mean_w, usd_per_hour,
        g_per_hour.
    """
    column, total = result.requests, summary["total"]
    arrival = column["arrival_s"]
    window_s = float(arrival.max()) if len(arrival) else 0.0
    begin_s = min(result.warmup_s, window_s)
    watts, operational_g = _power(result, begin_s, window_s)
    hours = result.end_s / SECONDS_PER_HOUR
    embodied, network = total["carbon_kg"]["embodied"], total["parts"]["carbon_operational_kg"]
    rest_kg = None if embodied is None or network is None else embodied + network["network"]
    known = rest_kg is not None and operational_g is not None and hours > 0.0
    return {
        "requests": float(len(result)),
        "window_s": window_s,
        "slo_attainment": total["slo_attainment"],
        **left(column, begin_s, window_s),
        "peak_w": None if watts is None else float(watts.max()),
        "mean_w": None if watts is None else float(watts.mean()),
        "usd_per_hour": total["cost_usd"] / hours if total["cost_usd"] is not None and hours > 0.0 else None,
        "g_per_hour": operational_g + 1e3 * rest_kg / hours if known else None,
    }


def _power(result: Result, begin_s: float, end_s: float) -> tuple[npt.NDArray[np.float64] | None, float | None]:
    """Facility power of the fleet by time bin [W], and its operational carbon an hour [g/h]; None where unknown."""
    table = result.timeline
    start, bins = np.unique(table["t_s"], return_inverse=True)
    watts, rate = np.zeros(len(start)), np.zeros(len(start))
    np.add.at(watts, bins, table["power_w"])
    np.add.at(rate, bins, table["power_w"] * table["intensity_g_per_kwh"])
    length = np.zeros(len(start))
    length[bins] = table["bin_s"]
    inside = (start >= begin_s) & (start + length <= end_s)
    inside = inside if inside.any() else np.ones(len(start), dtype=np.bool_)
    watts, grams = watts[inside], rate[inside] * SECONDS_PER_HOUR / JOULES_PER_KWH
    return (watts if np.isfinite(watts).all() else None), (float(grams.mean()) if np.isfinite(grams).all() else None)


def left(column: Mapping[str, Any], begin_s: float, end_s: float) -> Row:
    """Requests that a window left over.

    Of steady arrivals `grown` counts: the mean number in the system in the last third of [begin_s, end_s] less that in
    the first, of the requests that `came` between the middles of both. A fleet that keeps up has a share near 0; one
    that serves (1 - x) of what comes has x. Of any arrivals `waiting` does: those that still wait for their prefill at
    the end. `inside` is the mean number in the system; all are None where nobody came.
    """
    arrival = column["arrival_s"]
    if not len(arrival) or not end_s > begin_s:
        return dict.fromkeys(("grown", "came", "waiting", "inside"))
    leave = arrival + np.nan_to_num(column["e2e_s"])  # who did not complete is not met: no need to count it twice
    third = (end_s - begin_s) / 3.0

    def inside(start_s: float) -> float:
        stayed = np.minimum(leave, start_s + third) - np.maximum(arrival, start_s)
        return float(np.maximum(stayed, 0.0).sum()) / third

    parts = [inside(begin_s + i * third) for i in range(3)]
    begun = arrival + np.nan_to_num(column["uplink_s"]) + np.nan_to_num(column["queue_s"])
    return {
        "grown": parts[2] - parts[0],
        "came": float(((arrival >= begin_s + 0.5 * third) & (arrival < end_s - 0.5 * third)).sum()),
        "waiting": float((begun > end_s).sum()),
        "inside": sum(parts) / 3.0,
    }


def over_seeds(value: float, rate: float, came: float, rows: Sequence[Row], steady: bool) -> Load:
    """A rate over its seeds; whether arrivals are steady decides what tells that a backlog grows.

    Chance: the number in a system that keeps up varies at least as a Poisson one, whose variance is its mean; a
    difference of two has twice that.
    """
    total = {key: math.fsum(float(row[key] or 0.0) for row in rows) for key in (*_COUNTED, "slo_attainment")}
    of = max(total["came" if steady else "requests"], 1.0)
    chance = _DEVIATIONS * math.sqrt((2.0 if steady else 1.0) * total["inside"]) / of
    left_over = total["grown" if steady else "waiting"] / of
    return Load(value, rate, came, total["slo_attainment"] / len(rows), left_over, MOST_LEFT + chance, tuple(rows))
