"""Power usage effectiveness that varies: by the clock, by the weather, or by load.

A constant PUE is a number. One that varies over time is a signal (`sim.accounting.signal.Signal`): `ClockPue` by hour
of day and month, or samples of a file (`measured_pue`, `weather_pue`). One that varies with load is a `LoadPue`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sim.accounting import series_file
from sim.accounting.clock import ClockSignal, hours_of, months_of
from sim.accounting.sampled import Sampled
from sim.accounting.signal import Constant, Signal, Weighted
from sim.accounting.tariff import Priced
from sim.errors import number

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


class ClockPue(ClockSignal):
    """A PUE by local hour of day and month: 1 + (hours[h] - 1) x months[m].

    Args:
        hours: PUE from each local hour on, 24 values of at least 1.
        zone: IANA time zone, such as Europe/Berlin.
        start_utc: instant of simulated t = 0.
        months: factor of the overhead in each month, 12 values >= 0; None for 1 in all.
        source: where the values come from.
    """

    def __init__(
        self,
        hours: Sequence[float],
        zone: str,
        start_utc: str | date | None,
        months: Sequence[float] | None = None,
        source: str = "",
    ) -> None:
        by_hour, by_month = hours_of(hours, "pue.hours", RATIO, low=1.0), months_of(months, "pue.months")

        def value(local: datetime) -> float:
            return 1.0 + (by_hour[local.hour] - 1.0) * by_month[local.month - 1]

        super().__init__(value, zone, start_utc, "pue", source)


def weigh(
    intensity: Signal, pue: float | LoadPue | Signal, nameplate_w: float, tariff: Signal | None = None
) -> tuple[float, float, Any]:
    """What a pool's engines and books need of intensity, PUE and tariff.

    Args:
        intensity: carbon intensity of the site [g/kWh].
        pue: of the site.
        nameplate_w: IT power of a replica at most [W].
        tariff: price of electricity, where it varies over time [USD/kWh].

    Returns:
        Facility over IT power, NaN where it varies over time; fixed overhead of a replica at the facility [W]; and what
        its engine weighs energy with: the intensity, or where the PUE varies, `Weighted`, or where the tariff does,
        `Priced`.
    """
    ratio, fixed_w, varying = math.nan, 0.0, None
    if isinstance(pue, LoadPue):
        ratio, fixed_w = pue.slope, pue.fixed_w(nameplate_w)
    elif isinstance(pue, (int, float)):
        ratio = float(pue)
    elif math.isinf(pue.next_change(0.0)):
        ratio = pue.at(0.0)
    else:
        varying = pue
    if tariff is not None:
        return ratio, fixed_w, Priced(Weighted(intensity, varying or Constant(1.0)), tariff)
    return ratio, fixed_w, intensity if varying is None else Weighted(intensity, varying)


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
