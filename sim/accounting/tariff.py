"""What electricity costs where its price varies: by the clock (time of use), or by a file of hourly prices.

So that dollars are as exact as grams, engines weigh energy with the price, too (`Priced`).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date, datetime
from pathlib import Path

from sim.accounting import series_file
from sim.accounting.clock import ClockSignal, hours_of, months_of
from sim.accounting.sampled import Sampled
from sim.accounting.signal import Signal, Weighted
from sim.errors import InputError

PRICE = "a price in USD/kWh"
UNITS = ("USD/kWh", "USD/MWh")
_LOWEST_USD = -1e3  #: markets do pay for taking electricity, but never so much [USD/kWh]
_LOOKS_LIKE_MWH = 5.0  #: mean of a whole file: no tariff is above 5 USD/kWh, every one is above 5 USD/MWh
_SATURDAY = 5


class Weights:
    """Three products in one: `real` grams and `imag` facility energy as in `Weighted`, and `usd`, the energy's price.

    A vector as far as engines need one: it can be added, and scaled by a number. A plain 0 counts as the zero vector.
    """

    __slots__ = ("imag", "real", "usd")

    def __init__(self, real: float, imag: float, usd: float) -> None:
        self.real, self.imag, self.usd = real, imag, usd

    def __add__(self, other: Weights | complex) -> Weights:
        if not isinstance(other, Weights):  # totals begin at a plain 0
            return self
        return Weights(self.real + other.real, self.imag + other.imag, self.usd + other.usd)

    __radd__ = __add__

    def __sub__(self, other: Weights | complex) -> Weights:
        return self + other * -1.0

    def __mul__(self, factor: float) -> Weights:
        return Weights(self.real * factor, self.imag * factor, self.usd * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float) -> Weights:
        return Weights(self.real / divisor, self.imag / divisor, self.usd / divisor)


class Priced:
    """What an engine weighs its energy with where the tariff varies: PUE x intensity, PUE, and PUE x tariff.

    Args:
        weighted: intensity and PUE (1 where the PUE does not vary over time).
        tariff: price at the meter [USD/kWh].
    """

    __slots__ = ("_tariff", "_weighted")
    basis, source = "", ""

    def __init__(self, weighted: Weighted, tariff: Signal) -> None:
        self._weighted, self._tariff = weighted, tariff

    def at(self, t_s: float) -> Weights:
        """Weights at time `t_s`."""
        weight = self._weighted.at(t_s)
        return Weights(weight.real, weight.imag, weight.imag * self._tariff.at(t_s))

    def next_change(self, t_s: float) -> float:
        """When any of them changes [s]."""
        return min(self._weighted.next_change(t_s), self._tariff.next_change(t_s))

    def integral(self, t0_s: float, t1_s: float) -> Weights:
        """Integral over [t0_s, t1_s] of the three products."""
        total, t = Weights(0.0, 0.0, 0.0), t0_s
        while t < t1_s:
            end = min(self.next_change(t), t1_s)
            total += self.at(t) * (end - t)
            t = end
        return total


class ClockTariff(ClockSignal):
    """A time-of-use tariff by local hour, day of the week and month [USD/kWh].

    Args:
        hours: price from each local hour on, 24 values.
        zone: IANA time zone, such as America/Los_Angeles.
        start_utc: instant of simulated t = 0.
        weekend: the same for Saturdays and Sundays; None for `hours` on all days.
        months: factor of the price in each month, 12 values >= 0; None for 1 in all.
        source: where the values come from.
    """

    def __init__(
        self,
        hours: Sequence[float],
        zone: str,
        start_utc: str | date | None,
        weekend: Sequence[float] | None = None,
        months: Sequence[float] | None = None,
        source: str = "",
    ) -> None:
        weekdays = hours_of(hours, "tariff.hours", PRICE, low=_LOWEST_USD)
        days_off = weekdays if weekend is None else hours_of(weekend, "tariff.weekend", PRICE, low=_LOWEST_USD)
        by_month = months_of(months, "tariff.months")

        def value(local: datetime) -> float:
            by_hour = days_off if local.weekday() >= _SATURDAY else weekdays
            return by_hour[local.hour] * by_month[local.month - 1]

        super().__init__(value, zone, start_utc, "tariff", source)


def market_tariff(
    path: str | Path, column: str, start_utc: str | date | None, wrap: bool = False, unit: str | None = None
) -> Sampled:
    """A tariff from a column of a CSV file with `datetime_utc`, one row an hour or finer; prices may be negative.

    Args:
        path, column: file and column.
        start_utc, wrap: as for `Sampled`.
        unit: ``USD/kWh`` or ``USD/MWh``; None means USD/kWh and refuses values that look like USD/MWh.
    """
    if unit not in (None, *UNITS):
        raise InputError("tariff.unit", unit, " | ".join(UNITS))
    file = series_file.read(path, "tariff.path")
    values = file.column(column, "a price", 1e3 * _LOWEST_USD, "tariff.column")
    if unit is None and sum(values) / len(values) > _LOOKS_LIKE_MWH:
        accepted = "USD/kWh; these look like USD/MWh: set tariff.unit=USD/MWh, or tariff.unit=USD/kWh if they are not"
        raise InputError(column, values[0], accepted, where=f"{path} line {file.rows[0][0]}")
    if unit == "USD/MWh":
        values = [value / 1e3 for value in values]
    source = f"{Path(file.path).name}, column {column}"
    return Sampled(values, file.first, start_utc, source, wrap, file.step_s, PRICE, _LOWEST_USD, "tariff")
