"""Arrivals whose mean rate varies with time: any curve of knots, and the hours of a day in a time zone."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Iterator, Sequence
from zoneinfo import ZoneInfo

import numpy as np

from sim.errors import InputError
from sim.units import SECONDS_PER_HOUR
from sim.workload import checks
from sim.workload.arrivals import FloatArray, thinned

SECONDS_PER_DAY = 24.0 * SECONDS_PER_HOUR
INTERPOLATIONS = ("linear", "step")
#: Zones change their offset only at multiples of this, so one look-up serves such a stretch [s].
OFFSET_GRID_S = 900.0
LAST_CALENDAR_S = 2e11  #: instant (year 8307) up to which the calendar counts; later ones keep its offset [s]


class TimeVarying:
    """Poisson arrivals whose rate follows a curve of knots.

    Between knots the rate is linear, or with ``step`` it holds until the next knot. Without a period the first and
    last rates hold before and after the knots.

    Args:
        knots: rows (time [s], rate [1/s]), times increasing from 0 or later.
        interpolation: ``linear`` or ``step``.
        period_s: the curve repeats after this time [s], later than the last knot; None if it does not repeat.
        rate: mean rate over one period, or from the first knot to the last [1/s]; if given, the rates of the knots
            only count relative to each other.
    """

    def __init__(
        self,
        knots: Sequence[Sequence[float]],
        interpolation: str = "linear",
        period_s: float | None = None,
        rate: float | None = None,
    ) -> None:
        self._t, self._rate = _checked_knots(knots)
        self.interpolation = _interpolation(interpolation)
        self.period_s = period_s if period_s is None else _period(period_s, float(self._t[-1]))
        self.rate = None if rate is None else checks.rate("workload.rate", rate)
        if self.period_s is not None:
            self._t, self._rate = _one_period(self._t, self._rate, self.period_s, self.interpolation)
        if self.rate is not None:
            self._rate *= self.rate / self._mean()
        self.peak = float(self._rate.max())
        self._end_s = float(self._t[-1]) if self.period_s is None and self._rate[-1] == 0.0 else math.inf

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]; ends where the last rate is 0 and nothing repeats."""
        return thinned(rng, self.peak, self.rate_at, self._end_s)

    def rate_at(self, t_s: FloatArray) -> FloatArray:
        """Rate [1/s] at times [s]."""
        t = t_s if self.period_s is None else np.mod(t_s, self.period_s)
        if self.interpolation == "linear":
            return np.interp(t, self._t, self._rate)
        return self._rate[np.maximum(np.searchsorted(self._t, t, side="right") - 1, 0)]

    def expected(self, duration_s: float) -> float:
        """About how many arrivals fall into [0, duration_s)."""
        return _sampled_count(self, duration_s)

    def _mean(self) -> float:
        """Mean rate between the first knot and the last (a period, where there is one) [1/s]."""
        widths = np.diff(self._t)
        if not len(widths):
            return float(self._rate[0])
        heights = self._rate[:-1] if self.interpolation == "step" else 0.5 * (self._rate[:-1] + self._rate[1:])
        mean = float((heights * widths).sum() / widths.sum())
        if mean <= 0.0:
            accepted = "a curve with a mean rate > 0, as workload.rate scales it"
            raise InputError("workload.knots", self._rate.tolist(), accepted)
        return mean


class Diurnal:
    """Poisson arrivals that follow the hours of the local day.

    Args:
        rate: mean rate over a day of 24 hours [1/s].
        weights: 24 relative rates, of the hours 0 to 23 of the local clock.
        interpolation: ``linear`` between the middles of the hours, or ``step``; both keep the mean exactly.
        start_utc: instant of t = 0, ISO 8601, UTC unless it names an offset; None: t = 0 is local midnight.
        zone: IANA name of the local time zone, daylight saving included; needs `start_utc`.
    """

    def __init__(
        self,
        rate: float,
        weights: Sequence[float],
        interpolation: str = "linear",
        start_utc: str | dt.datetime | None = None,
        zone: str = "UTC",
    ) -> None:
        self.rate = checks.rate("workload.rate", rate)
        self.interpolation = _interpolation(interpolation)
        hourly = np.array(_checked_weights(weights))
        middle = 0.5 if self.interpolation == "linear" else 0.0
        knots = [((hour + middle) * SECONDS_PER_HOUR, weight) for hour, weight in enumerate(hourly)]
        self._day = TimeVarying(knots, self.interpolation, SECONDS_PER_DAY, self.rate)
        self.start_utc = start_utc
        self.zone = zone
        self._zone = _zone(zone)
        self._start_epoch_s = 0.0 if start_utc is None else _epoch_s(start_utc)
        if start_utc is None and zone != "UTC":
            accepted = f"an instant such as 2024-06-03T00:00, as zone={zone} is given"
            raise InputError("workload.start_utc", None, accepted)

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]."""
        return thinned(rng, self._day.peak, self.rate_at)

    def rate_at(self, t_s: FloatArray) -> FloatArray:
        """Rate [1/s] at times [s] since the start of the run."""
        epoch_s = t_s + self._start_epoch_s
        stretch, index = np.unique(np.floor(epoch_s / OFFSET_GRID_S), return_inverse=True)
        offsets = np.array([self._utc_offset_s(start) for start in stretch * OFFSET_GRID_S])
        return self._day.rate_at(epoch_s + offsets[index])

    def expected(self, duration_s: float) -> float:
        """About how many arrivals fall into [0, duration_s)."""
        return _sampled_count(self, duration_s)

    def _utc_offset_s(self, epoch_s: float) -> float:
        """Local time less UTC at an instant [s]."""
        moment = _EPOCH + dt.timedelta(seconds=min(max(float(epoch_s), 0.0), LAST_CALENDAR_S))
        offset = moment.astimezone(self._zone).utcoffset()
        return offset.total_seconds() if offset is not None else 0.0


_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)


def _sampled_count(process: TimeVarying | Diurnal, duration_s: float, samples: int = 2000) -> float:
    """Integral of a rate over [0, duration_s) by the midpoint rule; good to a few percent, for progress bars."""
    middles = np.linspace(0.0, duration_s, 2 * samples + 1)[1::2]
    return float(process.rate_at(middles).mean() * duration_s)


def _checked_knots(knots: Sequence[Sequence[float]]) -> tuple[FloatArray, FloatArray]:
    accepted = "rows [time_s, rate]: times increasing from 0 or later, rates from 0 to 1e9 requests/s, one of them > 0"
    rows = checks.pairs("workload.knots", knots, accepted)
    table = np.array(rows)
    t, rate = table[:, 0].copy(), table[:, 1].copy()
    if t[0] < 0.0 or np.any(np.diff(t) <= 0.0) or rate.min() < 0.0 or not 1e-9 <= rate.max() <= checks.MAX_RATE:
        raise InputError("workload.knots", rows, accepted)
    return t, rate


def _one_period(t: FloatArray, rate: FloatArray, period_s: float, interpolation: str) -> tuple[FloatArray, FloatArray]:
    """Extend knots so that they cover exactly [0, period_s], the value at both ends being what the repetition gives."""
    if interpolation == "linear":
        edge = float(np.interp(0.0, [t[-1] - period_s, t[0]], [rate[-1], rate[0]]))
    else:
        edge = float(rate[-1] if t[0] > 0.0 else rate[0])
    if t[0] > 0.0:
        t, rate = np.append(0.0, t), np.append(edge, rate)
    return np.append(t, period_s), np.append(rate, edge)


def _interpolation(value: str) -> str:
    if not isinstance(value, str) or value not in INTERPOLATIONS:
        raise InputError("workload.interpolation", value, " | ".join(INTERPOLATIONS))
    return value


def _period(value: float, last_s: float) -> float:
    accepted = f"a period later than the last knot ({last_s:g} s), or null"
    period_s = checks.positive("workload.period_s", value, accepted)
    if period_s <= last_s:
        raise InputError("workload.period_s", value, accepted)
    return period_s


def _checked_weights(weights: Sequence[float]) -> list[float]:
    accepted = "24 numbers >= 0, one an hour of the day, not all 0"
    if isinstance(weights, str) or not isinstance(weights, Sequence | np.ndarray) or len(weights) != 24:
        raise InputError("workload.weights", weights, accepted)
    checked = [checks.number("workload.weights", weight, accepted, 0.0, checks.MAX_RATE) for weight in weights]
    if max(checked) <= 0.0:
        raise InputError("workload.weights", weights, accepted)
    total = math.fsum(checked)
    return [weight / total for weight in checked]


def _zone(name: str) -> ZoneInfo:
    accepted = "an IANA time zone such as Europe/Paris"
    if not isinstance(name, str):
        raise InputError("workload.zone", name, accepted)
    try:
        return ZoneInfo(name)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError; a directory is an OSError
        raise InputError("workload.zone", name, accepted) from None


def _epoch_s(value: str | dt.datetime) -> float:
    accepted = "an ISO 8601 instant such as 2024-06-03T00:00 (UTC unless it names an offset), or null"
    try:
        moment = value if isinstance(value, dt.datetime) else dt.datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise InputError("workload.start_utc", value, accepted) from None
    return (moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)).timestamp()
