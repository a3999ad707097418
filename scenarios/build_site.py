"""What a site draws its electricity from: the grid's intensity, and what is bought."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from scenarios.entries import Catalogue, at
from scenarios.schema import Section, anything, boolean, number, one_of, text
from sim.accounting.grid import BASES, HourlySignal, Market, preset
from sim.accounting.signal import AVERAGE, KINDS, Constant, Signal
from sim.errors import InputError

#: Keys of a site beside its pools.
SITE_KEYS = ("kind", "grid", "pue", "market")


def intensity_of(site: Section, catalogue: Catalogue, basis: str, start_utc: str | None) -> Signal:
    """Grid of a site: a preset's id, a number [g CO2e/kWh], or a mapping that names an hourly file."""
    key = site.path("grid")
    grid = site.need("grid", anything)
    if isinstance(grid, str):
        entry = catalogue.entry("grid", grid, key)
        rows = {
            name: {"value": at(entry.values, f"value.{name}"), "unit": unit, "source": source, "kind": kind}
            for name in BASES
            for unit, source, kind in [entry.provenance.get(f"value.{name}", ("", "", ""))]
        }
        return preset({**entry.values, "value": rows}, basis)
    if isinstance(grid, Mapping):
        return _hourly(Section(grid, key), catalogue, basis, start_utc)
    accepted = "the id of a grid, a number >= 0 g/kWh, or {path, zone, basis, kind, start_utc, wrap}"
    return Constant(number(accepted, low=0.0)(key, grid), basis, "given in the configuration")


def _hourly(grid: Section, catalogue: Catalogue, basis: str, start_utc: str | None) -> Signal:
    grid.get("about", anything, None)
    path = Path(grid.need("path", text))
    signal = HourlySignal.from_csv(
        path,
        grid.need("zone", text),
        grid.get("basis", one_of(*BASES), basis),
        grid.get("start_utc", text, start_utc),
        grid.get("wrap", boolean, False),
        grid.get("unit", text, None),
        grid.get("kind", one_of(*KINDS), AVERAGE),
    )
    grid.finish()
    if path not in catalogue.files:
        catalogue.files.append(path)
    return signal


def market_of(site: Section, basis: str) -> Market | None:
    """What a site buys: contracts and the residual mix, on the run's basis; null leaves market-based out."""
    if site.get("market", anything, None) is None:
        return None
    market = site.child("market")
    share = number("a share in [0, 1]", low=0.0, high=1.0)
    intensity = number("an intensity >= 0 g/kWh, or null where it is unknown", low=0.0)
    given = market.get("basis", one_of(*BASES), basis)
    if given != basis:
        raise InputError(market.path("basis"), given, f"{basis}, which is the basis of the run: never mixed")
    made = Market(
        market.need("contract_share", share),
        market.get("contract_g_per_kwh", intensity, None),
        market.get("residual_g_per_kwh", intensity, None),
        market.get("source", text, "given in the configuration"),
    )
    market.finish()
    return made
