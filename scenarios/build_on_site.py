"""A site's solar plant, battery and contract, from configuration."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from scenarios.entries import Catalogue
from scenarios.schema import Check, Section, anything, boolean, list_of, number, one_of, text
from scenarios.targets import instantiate
from sim.accounting.battery import Battery, BatteryPolicy, CarbonAware, SelfConsumption
from sim.accounting.forecast import forecast_model
from sim.accounting.on_site import STEP_S, OnSite
from sim.accounting.ppa import GRID, MATCHING, Ppa
from sim.accounting.signal import Constant, Signal, Sum
from sim.accounting.solar import UNITS, ClearSky, Solar, daily, measured
from sim.errors import InputError
from sim.fleet.power_budget import PowerBudget

#: Keys of a site that are read here.
ON_SITE_KEYS = ("solar", "battery", "ppa", "settlement_s", "power_budget")
_POLICIES = {"self_consumption": SelfConsumption, "carbon_aware": CarbonAware}
_SOURCES = "one of: path and column of a file; hours; latitude and longitude, for a clear sky"
_INTENSITY: Check[float] = number("an intensity >= 0 g/kWh", low=0.0)
_USD: Check[float] = number("USD a year >= 0, or null where it is unknown", low=0.0)


def on_site_of(
    site: Section, catalogue: Catalogue, start_utc: str | None, plugins: Collection[str] = ()
) -> OnSite | None:
    """What a site has of its own; None where it has nothing to settle. One with a power budget has."""
    step_s = site.get("settlement_s", number("a time of at least 1 s", low=1.0), STEP_S)
    parts = [_given(site.child(name)) for name in ("solar", "battery", "ppa")]
    solar, battery, ppa = parts
    limited = site.get("power_budget", anything, None) is not None
    if not limited and not any(part.values for part in parts):
        return None
    if ppa.values and site.get("market", anything, None) is not None:
        raise InputError(ppa.key, dict(ppa.values), "null with market: both say what the site buys")
    made = OnSite(
        _solar(solar, catalogue, start_utc) if solar.values else None,
        _battery(battery, catalogue, plugins) if battery.values else None,
        _ppa(ppa, catalogue, start_utc) if ppa.values else None,
        step_s,
    )
    for part in parts:
        part.finish()
    return made


def _given(part: Section) -> Section:
    """The keys that are not null: a preset names all, of which a plant uses some."""
    return Section({name: value for name, value in part.values.items() if value is not None}, part.key)


def power_budget_of(
    site: Section, catalogue: Catalogue, start_utc: str | None, on_site: OnSite | None
) -> PowerBudget | None:
    """What a site's pools may draw: a number of kW, or a mapping; None for no limit but their own.

    Args:
        on_site: of the same site, for a budget that follows its solar plant.
    """
    given = site.get("power_budget", anything, None)
    if given is None:
        return None
    budget = Section(given if isinstance(given, Mapping) else {"kw": given}, site.path("power_budget"))
    follows = budget.get("plus_solar", boolean, False)
    law = catalogue.clock_law(budget.get("clock_law", text, "dvfs"), budget.path("clock_law"))
    if "kw" in budget.values:
        kw: Signal = Constant(budget.need("kw", number("a power > 0 kW, or a mapping", above=0.0)))
    elif "hours" in budget.values:
        kw = daily(
            1.0, budget.need("hours", list_of(number("a power > 0 kW", above=0.0))), _start(budget, start_utc),
            key="power_budget",
        )  # fmt: skip
    else:
        kw = _power(budget, catalogue, start_utc, "power_budget")
    budget.finish()
    if follows:
        if on_site is None or on_site.solar is None:
            raise InputError(budget.path("plus_solar"), True, "false at a site without solar")
        kw = Sum(kw, on_site.solar.power)
    return PowerBudget(kw, law)


def _start(plant: Section, start_utc: str | None) -> str | None:
    return plant.get("start_utc", text, start_utc)


def _solar(solar: Section, catalogue: Catalogue, start_utc: str | None) -> Solar:
    known = catalogue.entry("on_site", "default", solar.key).values
    export = solar.get("export", boolean, False)
    paid = solar.get("export_usd_per_kwh", number("a price in USD/kWh"), 0.0)
    if paid and not export:
        raise InputError(solar.path("export_usd_per_kwh"), paid, "0 without export: true, for surplus is curtailed")
    return Solar(
        _power(solar, catalogue, start_utc, "solar"),
        solar.get("life_cycle_g_per_kwh", _INTENSITY, known["solar_life_cycle_g_per_kwh"]),
        export,
        paid,
        solar.get("usd_per_year", _USD, None),
    )


def _power(plant: Section, catalogue: Catalogue, start_utc: str | None, name: str) -> Signal:
    """Output of a plant: from a file, by the hour of the day, or of a clear sky."""
    start = _start(plant, start_utc)
    rating = number("a power >= 0 kW", low=0.0)
    kinds = [kind for kind in ("path", "hours", "latitude") if kind in plant.values]
    if len(kinds) != 1:
        raise InputError(plant.key, sorted(plant.values), f"{_SOURCES}; all others null")
    if "path" in plant.values:
        path = Path(plant.need("path", text))
        unit, wrap = plant.get("unit", one_of(*UNITS), "kW"), plant.get("wrap", boolean, False)
        signal: Signal = measured(
            path, plant.need("column", text), start, unit, plant.get("peak_kw", rating, None), wrap, name
        )
        if path not in catalogue.files:
            catalogue.files.append(path)
        return signal
    if "hours" in plant.values:
        source = plant.get("source", text, "given in the configuration")
        shares = plant.need("hours", list_of(number("a share >= 0 of peak_kw", low=0.0)))
        return daily(plant.need("peak_kw", rating), shares, start, source, name)
    ratio = catalogue.entry("on_site", "default", plant.key).values["performance_ratio"]
    return ClearSky(
        plant.need("peak_kw", rating),
        plant.need("latitude", number("degrees from -90 to 90", low=-90.0, high=90.0)),
        plant.need("longitude", number("degrees from -180 to 180", low=-180.0, high=180.0)),
        start,
        plant.get("performance_ratio", number("a share in (0, 1]", above=0.0, high=1.0), ratio),
        plant.get("months", list_of(number("a factor >= 0", low=0.0)), None),
        name,
    )


def _battery(battery: Section, catalogue: Catalogue, plugins: Collection[str]) -> Battery:
    known = catalogue.entry("on_site", "default", battery.key).values
    share, mass = number("a share in (0, 1]", above=0.0, high=1.0), number("a mass >= 0 kg CO2e/kWh", low=0.0)
    kg = battery.get("embodied_kg_per_kwh", mass, None)
    default = known["battery_embodied_kg_per_kwh"]
    return Battery(
        battery.need("kwh", number("an energy >= 0 kWh", low=0.0)),
        battery.need("kw", number("a power >= 0 kW", low=0.0)),
        battery.get("efficiency", share, known["battery_efficiency"]),
        _policy(battery, plugins),
        forecast_model(
            battery.path("forecast"), instantiate(battery.get("forecast", anything, "noisy"), battery.path("forecast"))
        ),
        (default["low"], default["central"], default["high"]) if kg is None else (kg, kg, kg),
        battery.get("lifetime_years", number("a number of years > 0", above=0.0), known["battery_lifetime_years"]),
        battery.get("usd_per_year", _USD, None),
    )


def _policy(battery: Section, plugins: Collection[str]) -> BatteryPolicy:
    given, key = battery.get("policy", anything, "self_consumption"), battery.path("policy")
    if isinstance(given, str) and given in _POLICIES:
        return _POLICIES[given]()
    if not isinstance(given, Mapping):
        accepted = f"{' | '.join(_POLICIES)}, or a _target_ such as sim.accounting.battery.CarbonAware"
        raise InputError(key, given, accepted)
    made: BatteryPolicy = instantiate(given, key, plugins)
    return made


def _ppa(ppa: Section, catalogue: Catalogue, start_utc: str | None) -> Ppa:
    residual = ppa.get("residual_g_per_kwh", anything, None)
    if residual not in (None, GRID):
        residual = number(f"an intensity >= 0 g/kWh, {GRID}, or null", low=0.0)(
            ppa.path("residual_g_per_kwh"), residual
        )
    return Ppa(
        _power(ppa, catalogue, start_utc, "ppa"),
        ppa.need("matching", one_of(*MATCHING)),
        ppa.need("g_per_kwh", _INTENSITY),
        residual,  # type: ignore[arg-type]
    )
