"""A signal from samples at equal intervals, such as an hour: values of a file, over the clock of a run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate

from sim.errors import InputError, number

_START = "an ISO instant of simulated t = 0 in whole seconds, such as 2024-06-01T00:00 (UTC unless it has an offset)"


class Sampled:
    """A value for every interval: it holds on [h, h + step) UTC. Time 0 of the simulation is the instant `start_utc`.

    Args:
        values: one value an interval, without gaps.
        first_hour: beginning of the first interval.
        start_utc: instant of simulated t = 0, an ISO text or a datetime; without an offset it is UTC.
        source: where the values come from.
        wrap: repeat the values after their end and before their beginning.
        step_s: length of an interval [s].
        accepted, low: what a value has to be, in words, and the least.
        key: name of the setting, for errors.
    """

    basis = ""

    def __init__(
        self,
        values: Sequence[float],
        first_hour: datetime,
        start_utc: str | date | None,
        source: str,
        wrap: bool,
        step_s: float,
        accepted: str,
        low: float,
        key: str,
    ) -> None:
        if not values:
            raise InputError(f"{key}.values", [], "at least one hour")
        if not isinstance(wrap, bool):
            raise InputError(f"{key}.wrap", wrap, "true or false")
        self.key, self.source, self.wrap = key, source, wrap
        self._step_s = number(f"{key}.step_s", step_s, "a time > 0 s", above=0.0)
        plain = all(type(value) is float for value in values) and math.isfinite(sum(values)) and min(values) >= low
        self._values = (
            list(values) if plain else [number(f"{key}.values", value, accepted, low=low) for value in values]
        )
        self._integrals = list(accumulate((v * step_s for v in self._values), initial=0.0))
        self._first_hour = first_hour if first_hour.tzinfo else first_hour.replace(tzinfo=UTC)
        self._offset_s = (instant(start_utc, f"{key}.start_utc") - self._first_hour).total_seconds()
        self._at_hour(self._hour(0.0))

    def at(self, t_s: float) -> float:
        """Value at simulated time `t_s`; it holds until `next_change(t_s)`."""
        return self._at_hour(self._hour(t_s))

    def next_change(self, t_s: float) -> float:
        """End of the interval that `t_s` is in [s]."""
        return (self._hour(t_s) + 1) * self._step_s - self._offset_s

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral of the value over [t0_s, t1_s] [unit * s]."""
        if t0_s == t1_s:  # also at the end of the data, where there is no hour any more
            return 0.0
        first, last = self._hour(t0_s), self._hour(t1_s)
        value = self._at_hour(first)
        if first == last:
            return value * (t1_s - t0_s)
        # Whole hours come from prefix sums; both ends are added apart, for a difference of two large sums would
        # lose the digits of a short interval.
        head = value * ((first + 1) * self._step_s - self._offset_s - t0_s)
        tail_s = t1_s - (last * self._step_s - self._offset_s)
        tail = self._at_hour(last if tail_s > 0.0 else last - 1) * tail_s
        return head + (self._to_hour(last) - self._to_hour(first + 1)) + tail

    def require(self, end_s: float) -> None:
        """Check that the values reach simulated time `end_s` [s].

        Raises:
            InputError: they do not; the message names what is covered.
        """
        self._at_hour(self._hour(0.0))
        if end_s > len(self._values) * self._step_s - self._offset_s:
            self._at_hour(len(self._values))

    def _hour(self, t_s: float) -> int:
        """Index of the hour in which `t_s` falls; hours before the data are negative."""
        return int((self._offset_s + t_s) // self._step_s)

    def _at_hour(self, hour: int) -> float:
        if self.wrap:
            return self._values[hour % len(self._values)]
        if 0 <= hour < len(self._values):
            return self._values[hour]
        covered = f"{self._name(0)} to {self._name(len(self._values) - 1)}"
        source = self.source or "the data"
        accepted = f"an hour from {covered} UTC, which {source} covers, or {self.key}.wrap=true to repeat the year"
        raise InputError(f"{self.key} hour", self._name(hour), accepted)

    def _to_hour(self, hour: int) -> float:
        """Integral from the first hour's beginning to `hour`'s."""
        laps, index = divmod(hour, len(self._values))
        return laps * self._integrals[-1] + self._integrals[index]

    def _name(self, hour: int) -> str:
        try:
            return f"{self._first_hour + timedelta(seconds=hour * self._step_s):%Y-%m-%d %H:%M}"
        except OverflowError:
            return f"{hour} intervals after {self._first_hour:%Y-%m-%d %H:%M}"


def instant(start_utc: str | date | None, key: str) -> datetime:
    """Instant of simulated t = 0, in UTC."""
    if start_utc is None or isinstance(start_utc, bool):
        raise InputError(key, start_utc, _START)
    try:
        parsed = datetime.fromisoformat(str(start_utc))
    except ValueError:
        raise InputError(key, start_utc, _START) from None
    if parsed.microsecond:
        raise InputError(key, start_utc, _START)
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)
