"""Solar power at a site or under a contract: measured, by the hour of the day, or of a clear sky; a signal in kW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from sim.accounting import series_file
from sim.accounting.clock import hours_of, months_of
from sim.accounting.sampled import Sampled, instant
from sim.accounting.signal import Signal, integral_of
from sim.errors import InputError, number, provider
from sim.units import SECONDS_PER_HOUR

POWER = "a power >= 0 kW"
UNITS = ("kW", "W", "kW/kWp")
_RATING = "a power >= 0 kW, the plant's rating"
_MOST_PER_KWP = 1.5  #: clouds' edges lift a panel above its rating for moments, never so far for an interval
_STEP_S = 300.0  #: for which the sun of a clear sky stands still [s]
_STANDARD_W_PER_M2 = 1000.0  #: irradiance at which panels are rated [W/m2]
#: Irradiance of a clear sky on flat ground, a cos(z) exp(-b / cos(z)) at zenith angle z [W/m2].
#: Source: Haurwitz, Journal of Meteorology 2 (1945), 154-166. Kind: published.
_HAURWITZ = (1098.0, 0.057)
_TILT_DEG = 23.45  #: of the Earth's axis, for the declination after Cooper, Solar Energy 12 (1969). Kind: published.


@dataclass(frozen=True, slots=True)
class Solar:
    """A solar plant behind a site's meter.

    Attributes:
        power: what it could deliver over time [kW].
        life_cycle_g_per_kwh: of making and recycling it, per kWh generated [g CO2e/kWh]; counts on the `lca` basis.
        export: whether surplus goes to the grid; if not, it is curtailed.
        export_usd_per_kwh: what is paid for it [USD/kWh].
        usd_per_year: capital and upkeep [USD/year]; None where unknown.
    """

    power: Signal
    life_cycle_g_per_kwh: float = 0.0
    export: bool = False
    export_usd_per_kwh: float = 0.0
    usd_per_year: float | None = None

    def __post_init__(self) -> None:
        provider("solar.power", self.power, ["at", "next_change", "integral"], "a Signal such as ClearSky(...) [kW]")
        number("solar.life_cycle_g_per_kwh", self.life_cycle_g_per_kwh, "an intensity >= 0 g/kWh", low=0.0)
        number("solar.export_usd_per_kwh", self.export_usd_per_kwh, "a price in USD/kWh")
        if self.usd_per_year is not None:
            number("solar.usd_per_year", self.usd_per_year, "USD a year, or null where it is unknown", low=0.0)


class ClearSky:
    """Power of flat panels under a sky without clouds: Haurwitz's irradiance at the sun's height [kW].

    Args:
        peak_kw: rating, at 1000 W/m2 [kW].
        latitude, longitude: of the plant, north and east positive [degrees].
        start_utc: instant of simulated t = 0.
        performance_ratio: what the meter gets of it: dirt, heat, wires, inverter; in (0, 1].
        months: factor of the power in each month for its clouds, 12 values >= 0; None for 1 in all.
        key: name of the setting, for errors.
    """

    basis = ""

    def __init__(
        self,
        peak_kw: float,
        latitude: float,
        longitude: float,
        start_utc: str | date | None,
        performance_ratio: float,
        months: Sequence[float] | None = None,
        key: str = "solar",
    ) -> None:
        self._peak_kw = number(f"{key}.peak_kw", peak_kw, _RATING, low=0.0)
        number(f"{key}.performance_ratio", performance_ratio, "a share in (0, 1]", above=0.0, high=1.0)
        self._ratio = performance_ratio
        latitude = number(f"{key}.latitude", latitude, "degrees from -90 to 90", low=-90.0, high=90.0)
        self._latitude = math.radians(latitude)
        self._longitude = number(f"{key}.longitude", longitude, "degrees from -180 to 180", low=-180.0, high=180.0)
        self._months = months_of(months, f"{key}.months")
        self._start = instant(start_utc, f"{key}.start_utc")
        self._known: dict[int, float] = {}
        self.source = "clear sky after Haurwitz (1945)"

    def at(self, t_s: float) -> float:
        """Power at time `t_s` [kW]; it holds until `next_change(t_s)`."""
        step = int(t_s // _STEP_S)
        power = self._known.get(step)
        if power is None:
            power = self._known[step] = self._power(self._start + timedelta(seconds=(step + 0.5) * _STEP_S))
        return power

    def next_change(self, t_s: float) -> float:
        """End of the five minutes that `t_s` is in [s]."""
        return (t_s // _STEP_S + 1.0) * _STEP_S

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral over [t0_s, t1_s] [kW * s]."""
        return integral_of(self, t0_s, t1_s)

    def _power(self, when: datetime) -> float:
        year = when.timetuple().tm_yday
        declination = math.radians(_TILT_DEG) * math.sin(2.0 * math.pi * (284 + year) / 365.0)
        phase = 2.0 * math.pi * (year - 81) / 364.0
        equation_min = 9.87 * math.sin(2.0 * phase) - 7.53 * math.cos(phase) - 1.5 * math.sin(phase)
        hour = when.hour + when.minute / 60.0 + when.second / 3600.0 + self._longitude / 15.0 + equation_min / 60.0
        angle = math.radians(15.0 * (hour - 12.0))
        height = math.sin(self._latitude) * math.sin(declination)
        height += math.cos(self._latitude) * math.cos(declination) * math.cos(angle)
        if height <= 0.0:
            return 0.0
        irradiance = _HAURWITZ[0] * height * math.exp(-_HAURWITZ[1] / height)
        return self._peak_kw * self._ratio * irradiance / _STANDARD_W_PER_M2 * self._months[when.month - 1]


def daily(
    peak_kw: float, hours: Sequence[float], start_utc: str | date | None, source: str = "", key: str = "solar"
) -> Sampled:
    """Power by the hour of the UTC day, every day alike [kW]; without a start, the run begins at midnight.

    Args:
        peak_kw: rating [kW]; hours: 24 shares of it.
    """
    rating = number(f"{key}.peak_kw", peak_kw, _RATING, low=0.0)
    shares = hours_of(hours, f"{key}.hours", "a share >= 0 of peak_kw", low=0.0)
    midnight = datetime(2000, 1, 1, tzinfo=UTC)
    powers = [rating * share for share in shares]
    return Sampled(powers, midnight, start_utc or midnight, source, True, SECONDS_PER_HOUR, POWER, 0.0, key)


def measured(
    path: str | Path,
    column: str,
    start_utc: str | date | None,
    unit: str = "kW",
    peak_kw: float | None = None,
    wrap: bool = False,
    key: str = "solar",
) -> Sampled:
    """Power from a column of a CSV file with `datetime_utc`, one row an hour or finer [kW].

    Args:
        path, column: file and column.
        start_utc, wrap: as for `Sampled`.
        unit: of the column: one of `UNITS`.
        peak_kw: rating [kW]; needed with kW/kWp, and only then.
    """
    if unit not in UNITS:
        raise InputError(f"{key}.unit", unit, " | ".join(UNITS))
    relative = unit == "kW/kWp"
    if relative != (peak_kw is not None):
        raise InputError(f"{key}.peak_kw", peak_kw, "a rating with unit kW/kWp, and only then: kW are as they are")
    file = series_file.read(path, f"{key}.path")
    values = file.column(column, f"a power >= 0 {unit}", 0.0, f"{key}.column")
    if relative and max(values) > _MOST_PER_KWP:
        worst = values.index(max(values))
        accepted = f"at most {_MOST_PER_KWP:g} kW/kWp; or set {key}.unit"
        raise InputError(column, values[worst], accepted, where=f"{path} line {file.rows[worst][0]}")
    factor = number(f"{key}.peak_kw", peak_kw, _RATING, low=0.0) if relative else 1e-3 if unit == "W" else 1.0
    source = f"{Path(file.path).name}, column {column}"
    powers = [factor * value for value in values]
    return Sampled(powers, file.first, start_utc, source, wrap, file.step_s, POWER, 0.0, key)
