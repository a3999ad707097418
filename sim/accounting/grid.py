"""Carbon intensity of a grid: hourly or finer from a file, or one of the catalogue's annual means; what was bought."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from sim.accounting import series_file
from sim.accounting.sampled import Sampled
from sim.accounting.signal import AVERAGE, KINDS, Constant
from sim.errors import InputError, number
from sim.units import SECONDS_PER_HOUR

BASES = ("lca", "direct")
UNITS = ("g/kWh", "kg/kWh")
_INTENSITY = "an intensity >= 0 g/kWh"
_LOOKS_LIKE_KG = 2.0  # dirtiest hour of a whole file: no grid's is below 2 g/kWh, every one's is below 2 kg/kWh


class HourlySignal(Sampled):
    """A carbon intensity for every hour, or finer [g CO2e/kWh]: it holds on [h, h + 1) UTC; zero is valid.

    Args:
        values: one value an interval, without gaps [g CO2e/kWh].
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
        if basis not in BASES:
            raise InputError("grid.basis", basis, " | ".join(BASES))
        if kind not in KINDS:
            raise InputError("grid.kind", kind, " | ".join(KINDS))
        super().__init__(values, first_hour, start_utc, source, wrap, step_s, _INTENSITY, 0.0, "grid")
        self.basis, self.kind = basis, kind

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
    others = [known[key]["value"] for key in known if key != basis and known[key].get("unit") == "g/kWh"]
    return Constant(mean, basis, f"{name}: {row.get('source', '')}", float(others[0]) if others else None)


def _check_basis(path: str | Path, basis: str) -> None:
    """Refuse a basis that contradicts the file's name: the same zone's value differs by 8 % to 18 times between."""
    named = [known for known in BASES if known in Path(path).stem.lower().replace("-", "_").split("_")]
    if len(named) == 1 and basis in BASES and basis != named[0]:
        raise InputError("grid.basis", basis, f"{named[0]}, which is what the file name says", where=str(path))
