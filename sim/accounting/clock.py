"""A signal that goes by the clock on the wall: a value for each local hour, whatever the time zone does."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from zoneinfo import ZoneInfo

from sim.accounting.sampled import instant
from sim.accounting.signal import integral_of
from sim.errors import InputError, number
from sim.units import SECONDS_PER_HOUR


def zone_of(name: object, key: str) -> ZoneInfo:
    """The IANA time zone of that name."""
    try:
        return ZoneInfo(name)  # type: ignore[arg-type]
    except (KeyError, ValueError, OSError, TypeError):  # not found, not a name, a folder, not a text
        raise InputError(key, name, "an IANA time zone, such as Europe/Berlin") from None


def hours_of(values: Sequence[float], key: str, accepted: str, low: float = -math.inf) -> list[float]:
    """24 numbers, one for each local hour of the day."""
    if isinstance(values, str) or len(values) != 24:
        raise InputError(key, values if isinstance(values, str) else list(values), "24 values, one an hour of the day")
    return [number(key, value, accepted, low=low) for value in values]


def months_of(values: Sequence[float] | None, key: str) -> list[float]:
    """12 factors, one for each month; None for 1 in all."""
    factors = [1.0] * 12 if values is None else list(values)
    if len(factors) != 12:
        raise InputError(key, factors, "12 factors, one a month")
    return [number(key, value, "a factor >= 0", low=0.0) for value in factors]


class ClockSignal:
    """A value for each local hour.

    Args:
        value: of the hour in which a local time falls.
        zone: IANA time zone, such as Europe/Berlin.
        start_utc: instant of simulated t = 0.
        key: name of the setting, for errors.
        source: where the values come from.
    """

    basis = ""

    def __init__(
        self, value: Callable[[datetime], float], zone: str, start_utc: str | date | None, key: str, source: str = ""
    ) -> None:
        self._value = value
        self._zone = zone_of(zone, f"{key}.zone")
        self._start = instant(start_utc, f"{key}.start_utc")
        local = self._start.astimezone(self._zone)
        self._phase_s = local.minute * 60.0 + local.second  # clocks change by whole hours, but for Lord Howe's
        self._known: dict[int, float] = {}
        self.source = source

    def at(self, t_s: float) -> float:
        """Value at time `t_s` [s]; it holds until `next_change(t_s)`."""
        hour = self._hour(t_s)
        value = self._known.get(hour)
        if value is None:
            middle = timedelta(seconds=(hour + 0.5) * SECONDS_PER_HOUR - self._phase_s)
            value = self._known[hour] = self._value((self._start + middle).astimezone(self._zone))
        return value

    def next_change(self, t_s: float) -> float:
        """End of the hour that `t_s` is in [s]."""
        return (self._hour(t_s) + 1) * SECONDS_PER_HOUR - self._phase_s

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral over [t0_s, t1_s] [unit * s]."""
        return integral_of(self, t0_s, t1_s)

    def _hour(self, t_s: float) -> int:
        return int((t_s + self._phase_s) // SECONDS_PER_HOUR)
