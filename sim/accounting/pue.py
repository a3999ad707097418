"""Power usage effectiveness that varies: by the clock, by the weather, or by load.

A constant PUE is a number. One that varies over time is a signal (`sim.accounting.signal.Signal`): `ClockPue` by hour
of day and month, or samples of a file (`measured_pue`, `weather_pue`). One that varies with load is a `LoadPue`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sim.accounting import series_file
from sim.accounting.sampled import Sampled, instant
from sim.accounting.signal import Signal, Weighted
from sim.errors import InputError, number
from sim.units import SECONDS_PER_HOUR

RATIO = "a ratio of at least 1"
_COLDEST_C = -100.0  #: no outdoor air is colder


@dataclass(frozen=True, slots=True)
class LoadPue:
    """A building with a fixed overhead beside one in proportion to IT power: its PUE falls as load rises.

    Facility power is slope x IT power + fixed overhead, which is linear, so every joule has its place: the fixed part
    goes with provisioned time, the rest with energy.

    Attributes:
        full_load: PUE when every xPU of the site draws its nameplate power, at least 1.
        fixed_share: share of the overhead at full load that is drawn at any load, in [0, 1].
    """

    full_load: float
    fixed_share: float

    def __post_init__(self) -> None:
        number("pue.full_load", self.full_load, RATIO, low=1.0)
        number("pue.fixed_share", self.fixed_share, "a share in [0, 1]", low=0.0, high=1.0)

    @property
    def slope(self) -> float:
        """Facility power per IT power, beside the fixed overhead."""
        return 1.0 + (self.full_load - 1.0) * (1.0 - self.fixed_share)

    def fixed_w(self, nameplate_w: float) -> float:
        """Fixed overhead of IT that draws at most `nameplate_w` [W]."""
        return (self.full_load - 1.0) * self.fixed_share * nameplate_w

    def at_load(self, load: float) -> float:
        """PUE at a load, as a share of nameplate power in (0, 1]."""
        return self.slope + self.fixed_w(1.0) / load


class ClockPue:
    """A PUE by local hour of day and month: 1 + (hours[h] - 1) x months[m].

    Args:
        hours: PUE from each local hour on, 24 values of at least 1.
        zone: IANA time zone, such as Europe/Berlin.
        start_utc: instant of simulated t = 0.
        months: factor of the overhead in each month, 12 values >= 0; None for 1 in all.
        source: where the values come from.
    """

    basis = ""

    def __init__(
        self,
        hours: Sequence[float],
        zone: str,
        start_utc: str | date | None,
        months: Sequence[float] | None = None,
        source: str = "",
    ) -> None:
        if len(hours) != 24:
            raise InputError("pue.hours", list(hours), "24 values, one an hour of the day")
        factors = [1.0] * 12 if months is None else list(months)
        if len(factors) != 12:
            raise InputError("pue.months", factors, "12 factors, one a month")
        self._hours = [number("pue.hours", value, RATIO, low=1.0) - 1.0 for value in hours]
        self._months = [number("pue.months", value, "a factor >= 0", low=0.0) for value in factors]
        try:
            self._zone = ZoneInfo(zone)
        except (KeyError, ValueError, OSError, TypeError):  # not found, not a name, a folder, not a text
            raise InputError("pue.zone", zone, "an IANA time zone, such as Europe/Berlin") from None
        self._start = instant(start_utc, "pue.start_utc")
        local = self._start.astimezone(self._zone)
        self._phase_s = local.minute * 60.0 + local.second  # clocks change by whole hours, but for Lord Howe's
        self._known: dict[int, float] = {}
        self.source = source

    def at(self, t_s: float) -> float:
        """PUE at time `t_s` [s]; it holds until `next_change(t_s)`."""
        hour = self._hour(t_s)
        value = self._known.get(hour)
        if value is None:
            middle = timedelta(seconds=(hour + 0.5) * SECONDS_PER_HOUR - self._phase_s)
            local = (self._start + middle).astimezone(self._zone)
            value = self._known[hour] = 1.0 + self._hours[local.hour] * self._months[local.month - 1]
        return value

    def next_change(self, t_s: float) -> float:
        """End of the hour that `t_s` is in [s]."""
        return (self._hour(t_s) + 1) * SECONDS_PER_HOUR - self._phase_s

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral over [t0_s, t1_s] [s]."""
        parts, t = [], t0_s
        while t < t1_s:
            end = min(self.next_change(t), t1_s)
            parts.append(self.at(t) * (end - t))
            t = end
        return math.fsum(parts)

    def _hour(self, t_s: float) -> int:
        return int((t_s + self._phase_s) // SECONDS_PER_HOUR)


def weigh(intensity: Signal, pue: float | LoadPue | Signal, nameplate_w: float) -> tuple[float, float, Any]:
    """What a pool's engines and books need of intensity and PUE.

    Args:
        intensity: carbon intensity of the site [g/kWh].
        pue: of the site.
        nameplate_w: IT power of a replica at most [W].

    Returns:
        Facility over IT power, NaN where it varies over time; fixed overhead of a replica at the facility [W]; and what
        its engine weighs energy with: the intensity, or where the PUE varies, `Weighted`.
    """
    if isinstance(pue, LoadPue):
        return pue.slope, pue.fixed_w(nameplate_w), intensity
    if isinstance(pue, (int, float)):
        return float(pue), 0.0, intensity
    if math.isinf(pue.next_change(0.0)):
        return pue.at(0.0), 0.0, intensity
    return math.nan, 0.0, Weighted(intensity, pue)


def measured_pue(path: str | Path, column: str, start_utc: str | date | None, wrap: bool = False) -> Sampled:
    """A PUE from a column of a CSV file with `datetime_utc`, one row an hour or finer."""
    file = series_file.read(path, "pue.path")
    values = file.column(column, RATIO, 1.0, "pue.column")
    return _sampled(file, values, column, start_utc, wrap)


def weather_pue(
    path: str | Path,
    column: str,
    start_utc: str | date | None,
    base: float,
    per_degree: float,
    above_c: float,
    wrap: bool = False,
) -> Sampled:
    """A PUE that rises with outdoor temperature: base + per_degree x max(0, T - above_c).

    Args:
        path, column: CSV file with `datetime_utc` and a column of temperatures [degrees C].
        start_utc, wrap: as for `Sampled`.
        base: PUE while it is cool, at least 1.
        per_degree: by how much it rises with each degree [1/K].
        above_c: temperature from which on it does [degrees C].
    """
    low = number("pue.base", base, RATIO, low=1.0)
    slope = number("pue.per_degree", per_degree, "a number >= 0", low=0.0)
    knee = number("pue.above_c", above_c, "a temperature in degrees C", low=_COLDEST_C)
    file = series_file.read(path, "pue.path")
    degrees = file.column(column, "a temperature in degrees C", _COLDEST_C, "pue.column")
    return _sampled(file, [low + slope * max(0.0, each - knee) for each in degrees], column, start_utc, wrap)


def _sampled(
    file: series_file.SeriesFile, values: list[float], column: str, start_utc: str | date | None, wrap: bool
) -> Sampled:
    source = f"{Path(file.path).name}, column {column}"
    return Sampled(values, file.first, start_utc, source, wrap, file.step_s, RATIO, 1.0, "pue")
