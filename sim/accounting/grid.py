"""Carbon intensity of a grid: hourly or finer from a file, or one of the catalogue's annual means; what was bought."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from sim.accounting import series_file
from sim.accounting.signal import AVERAGE, KINDS, Constant
from sim.errors import InputError, number
from sim.units import SECONDS_PER_HOUR

BASES = ("lca", "direct")
UNITS = ("g/kWh", "kg/kWh")
_INTENSITY = "an intensity >= 0 g/kWh"
_LOOKS_LIKE_KG = 2.0  # dirtiest hour of a whole file: no grid's is below 2 g/kWh, every one's is below 2 kg/kWh
_START = "an ISO instant of simulated t = 0 in whole seconds, such as 2024-06-01T00:00 (UTC unless it has an offset)"


class HourlySignal:
    """A value for every hour, or finer: it holds on [h, h + 1) UTC. Time 0 of the simulation is `start_utc`.

    Args:
        values: one value an interval, without gaps [g CO2e/kWh]; zero is valid.
        first_hour: beginning of the first interval.
        start_utc: instant of simulated t = 0, an ISO text or a datetime; without an offset it is UTC.
        basis: ``lca`` or ``direct``.
        source: where the values come from.
        wrap: repeat the values after their end and before their beginning.
        kind: ``average`` or ``marginal``.
        step_s: length of an interval [s].
    """

    def __init__(
        self,
        values: Sequence[float],
        first_hour: datetime,
        start_utc: str | date | None,
        basis: str,
        source: str = "",
        wrap: bool = False,
        kind: str = AVERAGE,
        step_s: float = SECONDS_PER_HOUR,
    ) -> None:
        if not values:
            raise InputError("grid.values", [], "at least one hour")
        if basis not in BASES:
            raise InputError("grid.basis", basis, " | ".join(BASES))
        if kind not in KINDS:
            raise InputError("grid.kind", kind, " | ".join(KINDS))
        if not isinstance(wrap, bool):
            raise InputError("grid.wrap", wrap, "true or false")
        self._step_s = number("grid.step_s", step_s, "a time > 0 s", above=0.0)
        plain = all(type(value) is float for value in values) and math.isfinite(sum(values)) and min(values) >= 0.0
        self._values = list(values) if plain else [number("grid.values", each, _INTENSITY, low=0.0) for each in values]
        self._integrals = list(accumulate((v * step_s for v in self._values), initial=0.0))
        self._first_hour = first_hour if first_hour.tzinfo else first_hour.replace(tzinfo=UTC)
        self._offset_s = (_instant(start_utc) - self._first_hour).total_seconds()
        self.basis, self.source, self.wrap, self.kind = basis, source, wrap, kind
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
        kind: str = AVERAGE,
    ) -> HourlySignal:
        """Read one zone of a file in Electricity Maps' layout: `datetime_utc`, then a column a zone; hourly or finer.

        Args:
            path: CSV file.
            zone: column, such as ``US-CAL-CISO``.
            basis: ``lca`` or ``direct``: what the file holds.
            start_utc, wrap: as for the class.
            unit: ``g/kWh`` or ``kg/kWh``; None means g/kWh and refuses values that look like kg/kWh.
            kind: ``average`` or ``marginal``: what the file holds.

        Raises:
            InputError: no such file or zone, a row that is malformed or not one interval after the one before, or a
                `start_utc` outside the file.
        """
        if unit not in (None, *UNITS):
            raise InputError("grid.unit", unit, " | ".join(UNITS))
        if not isinstance(path, str | Path):
            raise InputError("grid.path", path, "the path of a CSV file")
        _check_basis(path, basis)
        file = series_file.read(path, "grid.path")
        values = file.column(zone, _INTENSITY, 0.0, "grid.zone")
        if unit is None and 0.0 < max(values) < _LOOKS_LIKE_KG:
            accepted = "g/kWh; these look like kg/kWh: set grid.unit=kg/kWh, or grid.unit=g/kWh if they are grams"
            raise InputError(zone, values[0], accepted, where=f"{path} line {file.rows[0][0]}")
        if unit == "kg/kWh":
            values = [1000.0 * value for value in values]
        source = f"{Path(path).name}, zone {zone}"
        return cls(values, file.first, start_utc, basis, source, wrap, kind, file.step_s)

    def at(self, t_s: float) -> float:
        """Value at simulated time `t_s` [g CO2e/kWh]; it holds until `next_change(t_s)`."""
        return self._at_hour(self._hour(t_s))

    def next_change(self, t_s: float) -> float:
        """End of the interval that `t_s` is in [s]."""
        return (self._hour(t_s) + 1) * self._step_s - self._offset_s

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
        accepted = f"an hour from {covered} UTC, which {source} covers, or grid.wrap=true to repeat the year"
        raise InputError("grid hour", self._name(hour), accepted)

    def _to_hour(self, hour: int) -> float:
        """Integral from the first hour's beginning to `hour`'s."""
        laps, index = divmod(hour, len(self._values))
        return laps * self._integrals[-1] + self._integrals[index]

    def _name(self, hour: int) -> str:
        try:
            return f"{self._first_hour + timedelta(seconds=hour * self._step_s):%Y-%m-%d %H:%M}"
        except OverflowError:
            return f"{hour} intervals after {self._first_hour:%Y-%m-%d %H:%M}"


@dataclass(frozen=True, slots=True)
class Market:
    """What a site buys, for a market-based figure beside the location-based one (GHG Protocol, scope 2).

    Attributes:
        contract_share: share of its electricity under contracts (PPAs, certificates of origin), in [0, 1].
        contract_g_per_kwh: intensity of that; by the run's basis, so wind is 0 direct and some 10 g life-cycle [g/kWh].
        residual_g_per_kwh: intensity of the residual mix, which all other electricity is; None where unknown [g/kWh].
        source: where the numbers come from.
    """

    contract_share: float
    contract_g_per_kwh: float | None = None
    residual_g_per_kwh: float | None = None
    source: str = ""

    def __post_init__(self) -> None:
        number("market.contract_share", self.contract_share, "a share in [0, 1]", low=0.0, high=1.0)
        for name in ("contract_g_per_kwh", "residual_g_per_kwh"):
            if getattr(self, name) is not None:
                number(f"market.{name}", getattr(self, name), f"{_INTENSITY}, or null", low=0.0)

    def g_per_kwh(self) -> float | None:
        """Mean intensity of what was bought [g/kWh]; None where a part that is in use is unknown.

        A share of carbon-free energy alone, as providers publish it, gives none: it says nothing of the residual mix.
        """
        total = 0.0
        mix = ((self.contract_share, self.contract_g_per_kwh), (1.0 - self.contract_share, self.residual_g_per_kwh))
        for share, intensity in mix:
            if share > 0.0:
                if intensity is None:
                    return None
                total += share * intensity
        return total


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
