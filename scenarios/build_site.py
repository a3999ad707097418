"""What a site draws its electricity from, and what its building adds: intensity, purchases, PUE."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from scenarios.build_on_site import ON_SITE_KEYS
from scenarios.entries import Catalogue, at
from scenarios.schema import Section, anything, boolean, list_of, number, one_of, text
from sim.accounting.grid import BASES, HourlySignal, Market, preset
from sim.accounting.pue import RATIO, ClockPue, LoadPue, measured_pue, weather_pue
from sim.accounting.signal import AVERAGE, KINDS, Constant, Signal
from sim.accounting.water import Water
from sim.errors import InputError

#: Keys of a site beside its pools.
SITE_KEYS = ("kind", "grid", "pue", "market", "water", *ON_SITE_KEYS)


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
    if isinstance(grid, Mapping) and "hours" in grid:
        return _daily(Section(grid, key), basis, start_utc)
    if isinstance(grid, Mapping):
        return _hourly(Section(grid, key), catalogue, basis, start_utc)
    accepted = "the id of a grid, a number >= 0 g/kWh, {path, zone, basis, kind, start_utc, wrap}, or {hours}"
    return Constant(number(accepted, low=0.0)(key, grid), basis, "given in the configuration")


def _daily(grid: Section, basis: str, start_utc: str | None) -> Signal:
    """Intensity by the hour of the day, every day alike; without a start, the run begins at midnight."""
    grid.get("about", anything, None)
    hours = grid.need("hours", list_of(number("an intensity >= 0 g/kWh", low=0.0)))
    if len(hours) != 24:
        raise InputError(grid.path("hours"), hours, "24 values, one an hour of the UTC day")
    midnight = datetime(2000, 1, 1, tzinfo=UTC)
    made = HourlySignal(
        hours,
        midnight,
        grid.get("start_utc", text, start_utc) or midnight,
        grid.get("basis", one_of(*BASES), basis),
        grid.get("source", text, "given in the configuration"),
        wrap=True,
        kind=grid.get("kind", one_of(*KINDS), AVERAGE),
    )
    grid.finish()
    return made


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


def pue_of(site: Section, catalogue: Catalogue, start_utc: str | None) -> float | LoadPue | Signal:
    """PUE of a site: a number, or a mapping: by load, by the clock, or by a file of PUE or of temperature."""
    given = site.get("pue", anything, 1.0)
    if not isinstance(given, Mapping):
        accepted = f"{RATIO}, or {{full_load, fixed_share}}, {{hours, months, zone}} or {{path, column}}"
        return number(accepted, low=1.0)(site.path("pue"), given)
    pue = Section(given, site.path("pue"))
    ratio = number(RATIO, low=1.0)
    if "full_load" in pue.values:
        made: LoadPue | Signal = LoadPue(
            pue.need("full_load", ratio), pue.need("fixed_share", number("a share in [0, 1]", low=0.0, high=1.0))
        )
        pue.finish()
        return made
    start = pue.get("start_utc", text, start_utc)
    if "hours" in pue.values:
        factors = list_of(number("a factor >= 0", low=0.0))
        made = ClockPue(
            pue.need("hours", list_of(ratio)),
            pue.need("zone", text),
            start,
            pue.get("months", factors, None),
            pue.get("source", text, "given in the configuration"),
        )
    else:
        made = _pue_of_file(pue, catalogue, start)
    pue.finish()
    return made


def _pue_of_file(pue: Section, catalogue: Catalogue, start: str | None) -> Signal:
    path, column = Path(pue.need("path", text)), pue.need("column", text)
    wrap = pue.get("wrap", boolean, False)
    base = pue.get("base", number(RATIO, low=1.0), None)
    if base is None:
        made = measured_pue(path, column, start, wrap)
    else:
        real = number("a number")
        made = weather_pue(path, column, start, base, pue.need("per_degree", real), pue.need("above_c", real), wrap)
    if path not in catalogue.files:
        catalogue.files.append(path)
    return made


def water_of(site: Section, catalogue: Catalogue) -> Water | None:
    """Water factors of a site: an entry of conf/water, a mapping of one's own, or null where they are unknown."""
    given = site.get("water", anything, None)
    if given is None:
        return None
    key = site.path("water")
    if isinstance(given, str):
        entry = catalogue.entry("water", given, key)
        known = entry.values
        return Water(known.get("on_site_l_per_kwh"), known.get("off_site_l_per_kwh"), given)
    water = Section(given, key)
    factor = number("a factor >= 0 l/kWh, or null where it is unknown", low=0.0)
    made = Water(
        water.get("on_site_l_per_kwh", factor, None),
        water.get("off_site_l_per_kwh", factor, None),
        water.get("source", text, "given in the configuration"),
    )
    water.finish()
    return made


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
