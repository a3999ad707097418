"""What a pool costs, from configuration: rent, reservation, spot or ownership, and the tariff of its electricity."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from scenarios.entries import Catalogue
from scenarios.schema import Section, anything, boolean, list_of, number, one_of, text
from sim.accounting.cost import ON_DEMAND, RESERVED, SPOT, CostModel, Owned, Rent
from sim.accounting.signal import Signal
from sim.accounting.tariff import PRICE, ClockTariff, market_tariff
from sim.errors import InputError
from sim.fleet.spec import Host
from sim.hardware.catalogue import Entry
from sim.hardware.xpu import XPU

#: Words for `cost`, and the plan of those that rent.
_PLANS = {"rent": ON_DEMAND, "reserved": RESERVED, "spot": SPOT}
_OWNED = "owned"
_CURRENCY = "USD: a tariff says its currency; convert other prices first, and say when in as_of"


def cost_of(
    pool: Section, xpu: XPU, entry: Entry, host: Host | None, catalogue: Catalogue, start_utc: str | None
) -> CostModel | None:
    """``rent``, ``reserved``, ``spot``, ``owned``, a mapping with `type` and any of their fields, or null: unknown."""
    given = pool.get("cost", anything, None)
    if given is None:
        return None
    cost = Section({"type": given} if isinstance(given, str) else given, pool.path("cost"))
    kind = cost.need("type", one_of(*_PLANS, _OWNED))
    rented = kind in _PLANS
    price, price_key = ("usd_per_xpu_hour", "rent_usd_per_hour") if rented else ("purchase_usd_per_xpu", "purchase_usd")
    cls: Any = Rent if rented else Owned
    names = [field.name for field in fields(cls) if field.name not in ("plan", "tariff")]
    defaults = catalogue.entry("cost", kind, pool.path("cost"))
    known: dict[str, Any] = {key: value for key, value in defaults.values.items() if key in names}
    known |= {"source": entry.provenance.get(price_key, ("", "", ""))[1], price: entry.values.get(price_key)}
    if rented:
        known["plan"] = _PLANS[kind]
    else:
        known["nameplate_kw_per_xpu"] = (xpu.tdp_w + (host.power_w if host else 0.0)) / 1000.0
        known["tariff"] = tariff_of(cost, catalogue, start_utc)
    for name in names:
        value = cost.get(name, anything, None)
        if value is not None:
            known[name] = value
            if name == price and "source" not in cost.values:
                known["source"] = "given in the configuration"
    cost.finish()
    if known.get("tariff") is not None and "electricity_usd_per_kwh" in cost.values:
        raise InputError(cost.path("electricity_usd_per_kwh"), known["electricity_usd_per_kwh"], "null with a tariff")
    # A price that nobody knows leaves the pool's cost unknown; it is reported as missing, not as free.
    made: CostModel | None = None if known[price] is None else cls(**known)
    return made


def tariff_of(cost: Section, catalogue: Catalogue, start_utc: str | None) -> Signal | None:
    """A tariff that varies: by the clock, {hours, zone}, or from a file, {path, column}; with its currency."""
    given = cost.get("tariff", anything, None)
    if given is None:
        return None
    if not isinstance(given, Mapping):
        accepted = "{hours, weekend, months, zone} or {path, column}, with currency; or electricity_usd_per_kwh instead"
        raise InputError(cost.path("tariff"), given, accepted)
    tariff = Section(given, cost.path("tariff"))
    currency = tariff.get("currency", text, None)
    if currency != "USD":
        raise InputError(tariff.path("currency"), currency, _CURRENCY)
    start = tariff.get("start_utc", text, start_utc)
    noted = [tariff.get(name, text, "") for name in ("as_of", "region", "source")]
    where = ", ".join(part for part in noted if part)
    if "hours" in tariff.values:
        prices, factors = list_of(number(PRICE)), list_of(number("a factor >= 0", low=0.0))
        made: Signal = ClockTariff(
            tariff.need("hours", prices),
            tariff.need("zone", text),
            start,
            tariff.get("weekend", prices, None),
            tariff.get("months", factors, None),
            where or "given in the configuration",
        )
    else:
        path, wrap = Path(tariff.need("path", text)), tariff.get("wrap", boolean, False)
        made = market_tariff(path, tariff.need("column", text), start, wrap, tariff.get("unit", text, None))
        if path not in catalogue.files:
            catalogue.files.append(path)
    tariff.finish()
    return made
