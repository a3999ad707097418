"""Carbon intensity of a grid: hourly from a file, or one of the catalogue's annual means."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from sim.accounting.signal import Constant
from sim.errors import InputError, number
from sim.units import SECONDS_PER_HOUR

BASES = ("lca", "direct")
UNITS = ("g/kWh", "kg/kWh")
_HOUR = timedelta(hours=1)
_LOOKS_LIKE_KG = 2.0  # dirtiest hour of a whole file: no grid's is below 2 g/kWh, every one's is below 2 kg/kWh
_START = "an ISO instant of simulated t = 0 in whole seconds, such as 2024-06-01T00:00 (UTC unless it has an offset)"


class HourlySignal:
    """A value for every hour: it holds on [h, h + 1) UTC. Time 0 of the simulation is the instant `start_utc`.

    Args:
        values: one value an hour, without gaps [g CO2e/kWh]; zero is valid.
        first_hour: beginning of the first hour.
        start_utc: instant of simulated t = 0, an ISO text or a datetime; without an offset it is UTC.
        basis: ``lca`` or ``direct``.
        source: where the values come from.
        wrap: repeat the values after their end and before their beginning.
    """

    def __init__(
        self,
        values: Sequence[float],
        first_hour: datetime,
        start_utc: str | date | None,
        basis: str,
        source: str = "",
        wrap: bool = False,
    ) -> None:
        if not values:
            raise InputError("grid.values", [], "at least one hour")
        if basis not in BASES:
            raise InputError("grid.basis", basis, " | ".join(BASES))
        if not isinstance(wrap, bool):
            raise InputError("grid.wrap", wrap, "true or false")
        accepted = "an intensity >= 0 g/kWh"
        self._values = [number("grid.values", value, accepted, low=0.0) for value in values]
        self._integrals = list(accumulate((v * SECONDS_PER_HOUR for v in self._values), initial=0.0))
        self._first_hour = first_hour if first_hour.tzinfo else first_hour.replace(tzinfo=UTC)
        self._offset_s = (_instant(start_utc) - self._first_hour).total_seconds()
        self.basis, self.source, self.wrap = basis, source, wrap
        self._at_hour(self._hour(0.0))

    @classmethod
    def from_csv(
        cls,
        path: str | Path,
        zone: str,
        basis: str,
        start_utc: str | date | None,
        wrap: bool = False,
        unit: str | None = None,
    ) -> HourlySignal:
        """Read one zone of a file in Electricity Maps' hourly layout: `datetime_utc`, then a column a zone.

        Args:
            path: CSV file.
            zone: column, such as ``US-CAL-CISO``.
            basis: ``lca`` or ``direct``: what the file holds.
            start_utc, wrap: as for the class.
            unit: ``g/kWh`` or ``kg/kWh``; None means g/kWh and refuses values that look like kg/kWh.

        Raises:
            InputError: no such file or zone, a row that is malformed or not one hour after the one before, or a
                `start_utc` outside the file.
        """
        if unit not in (None, *UNITS):
            raise InputError("grid.unit", unit, " | ".join(UNITS))
        if not isinstance(path, str | Path):
            raise InputError("grid.path", path, "the path of a CSV file")
        _check_basis(path, basis)
        hours = list(_rows(path, zone))
        if not hours:
            raise InputError("grid.path", str(path), "a file with at least one hour of data")
        if unit is None and 0.0 < max(value for _, value in hours) < _LOOKS_LIKE_KG:
            accepted = "g/kWh; these look like kg/kWh: set grid.unit=kg/kWh, or grid.unit=g/kWh if they are grams"
            raise InputError(zone, hours[0][1], accepted, where=f"{path} line 2")
        scale = 1000.0 if unit == "kg/kWh" else 1.0
        source = f"{Path(path).name}, zone {zone}"
        return cls([scale * value for _, value in hours], hours[0][0], start_utc, basis, source, wrap)

    def at(self, t_s: float) -> float:
        """Value at simulated time `t_s` [g CO2e/kWh]; it holds until `next_change(t_s)`."""
        return self._at_hour(self._hour(t_s))

    def next_change(self, t_s: float) -> float:
        """End of the hour that `t_s` is in [s]."""
        return (self._hour(t_s) + 1) * SECONDS_PER_HOUR - self._offset_s

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral of the value over [t0_s, t1_s] [g CO2e/kWh * s]."""
        if t0_s == t1_s:  # also at the end of the data, where there is no hour any more
            return 0.0
        first, last = self._hour(t0_s), self._hour(t1_s)
        value = self._at_hour(first)
        if first == last:
            return value * (t1_s - t0_s)
        # Whole hours come from prefix sums; both ends are added apart, for a difference of two large sums would
        # lose the digits of a short interval.
        head = value * ((first + 1) * SECONDS_PER_HOUR - self._offset_s - t0_s)
        tail_s = t1_s - (last * SECONDS_PER_HOUR - self._offset_s)
        tail = self._at_hour(last if tail_s > 0.0 else last - 1) * tail_s
        return head + (self._to_hour(last) - self._to_hour(first + 1)) + tail

    def require(self, end_s: float) -> None:
        """Check that the values reach simulated time `end_s` [s].

        Raises:
            InputError: they do not; the message names what is covered.
        """
        self._at_hour(self._hour(0.0))
        if end_s > len(self._values) * SECONDS_PER_HOUR - self._offset_s:
            self._at_hour(len(self._values))

    def _hour(self, t_s: float) -> int:
        """Index of the hour in which `t_s` falls; hours before the data are negative."""
        return int((self._offset_s + t_s) // SECONDS_PER_HOUR)

    def _at_hour(self, hour: int) -> float:
        if self.wrap:
            return self._values[hour % len(self._values)]
        if 0 <= hour < len(self._values):
            return self._values[hour]
        covered = f"{self._name(0)} to {self._name(len(self._values) - 1)}"
        source = self.source or "the data"
        accepted = f"an hour from {covered} UTC, which {source} covers, or grid.wrap=true to repeat the year"
        raise InputError("grid hour", self._name(hour), accepted)

    def _to_hour(self, hour: int) -> float:
        """Integral from the first hour's beginning to `hour`'s."""
        laps, index = divmod(hour, len(self._values))
        return laps * self._integrals[-1] + self._integrals[index]

    def _name(self, hour: int) -> str:
        try:
            return f"{self._first_hour + hour * _HOUR:%Y-%m-%d %H:%M}"
        except OverflowError:
            return f"{hour} hours after {self._first_hour:%Y-%m-%d %H:%M}"


def preset(entry: Mapping[str, Any], basis: str) -> Constant:
    """Annual mean of a catalogue entry (`conf/grid/*.yaml`) on one basis.

    Args:
        entry: with `value`: {lca: {value, unit, source, kind}, direct: {...}}, and optionally `name` and `year`.
        basis: ``lca`` or ``direct``.

    Raises:
        InputError: the entry has no value on that basis.
    """
    name = str(entry.get("name", "grid"))
    values = entry.get("value")
    if not isinstance(values, Mapping):
        raise InputError(f"grid {name}.value", values, "a mapping with lca and direct")
    if basis not in BASES:
        raise InputError("grid.basis", basis, " | ".join(BASES))
    known = {key: row for key in BASES if (row := values.get(key)) and row.get("value") is not None}
    if basis not in known:
        raise InputError("grid.basis", basis, f"what {name} has: {' | '.join(known) or 'nothing'}")
    row = known[basis]
    if row.get("unit") != "g/kWh":
        raise InputError(f"grid {name}.value.{basis}.unit", row.get("unit"), "g/kWh")
    mean = number(f"grid {name}.value.{basis}", row["value"], "an intensity >= 0 g/kWh", low=0.0)
    return Constant(mean, basis, f"{name}: {row.get('source', '')}")


def _instant(start_utc: str | date | None) -> datetime:
    """Instant of simulated t = 0, in UTC."""
    if start_utc is None or isinstance(start_utc, bool):
        raise InputError("grid.start_utc", start_utc, _START)
    try:
        parsed = datetime.fromisoformat(str(start_utc))
    except ValueError:
        raise InputError("grid.start_utc", start_utc, _START) from None
    if parsed.microsecond:
        raise InputError("grid.start_utc", start_utc, _START)
    return parsed.astimezone(UTC) if parsed.tzinfo else parsed.replace(tzinfo=UTC)


def _check_basis(path: str | Path, basis: str) -> None:
    """Refuse a basis that contradicts the file's name: the same zone's value differs by 8 % to 18 times between."""
    named = [known for known in BASES if known in Path(path).stem.lower().replace("-", "_").split("_")]
    if len(named) == 1 and basis in BASES and basis != named[0]:
        raise InputError("grid.basis", basis, f"{named[0]}, which is what the file name says", where=str(path))


def _rows(path: str | Path, zone: str) -> Iterator[tuple[datetime, float]]:
    """Yield (beginning of the hour, value) of one zone, each an hour after the one before."""
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = csv.reader(file)
            column = _column(path, next(rows, []), zone)
            expected: datetime | None = None
            for row in rows:
                hour, value = _row(row, column, zone, where=f"{path} line {rows.line_num}")
                if expected is not None and hour != expected:
                    accepted = f"{expected:%Y-%m-%d %H:%M} (every hour once, in order)"
                    raise InputError("datetime_utc", row[0], accepted, where=f"{path} line {rows.line_num}")
                expected = hour + _HOUR
                yield hour, value
    except OSError as error:
        raise InputError("grid.path", str(path), f"a CSV file that can be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error):
        raise InputError("grid.path", str(path), "a CSV file in UTF-8") from None


def _column(path: str | Path, header: list[str], zone: str) -> int:
    if not header or header[0] != "datetime_utc":
        first = header[0] if header else None
        raise InputError("first column", first, "datetime_utc, then a column a zone", where=f"{path} line 1")
    if zone not in header[1:]:
        raise InputError("grid.zone", zone, " | ".join(header[1:]), where=str(path))
    return header.index(zone)


def _row(row: list[str], column: int, zone: str, where: str) -> tuple[datetime, float]:
    if len(row) <= column:
        raise InputError(zone, None, "a value in every row", where=where)
    try:
        hour = datetime.fromisoformat(row[0])
    except ValueError:
        raise InputError("datetime_utc", row[0], "an hour such as 2024-01-31 23:00:00", where=where) from None
    hour = hour.astimezone(UTC) if hour.tzinfo else hour.replace(tzinfo=UTC)
    if hour.minute or hour.second or hour.microsecond:
        raise InputError("datetime_utc", row[0], "the beginning of an hour", where=where)
    accepted = "an intensity >= 0 g/kWh in every row"
    try:
        return hour, number(zone, float(row[column]), accepted, low=0.0)
    except ValueError:  # float() of a text, or the InputError of a number out of range
        raise InputError(zone, row[column], accepted, where=where) from None
