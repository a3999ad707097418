"""The accounts of a pool: host and embodied carbon; its cost is in `scenarios.build_cost`."""

from __future__ import annotations

from collections.abc import Mapping

from scenarios.entries import Catalogue
from scenarios.schema import Check, Section, anything, number, one_of, text
from sim.accounting.embodied import (
    BOUNDARIES,
    DEFAULT_LIFETIME_YEARS,
    Embodied,
    act_of,
    by_use,
    in_second_life,
    llmcarbon_of,
    published,
    shared_with_other_uses,
)
from sim.errors import InputError
from sim.fleet.spec import Host
from sim.hardware.catalogue import Entry
from sim.hardware.xpu import XPU

_YEARS: Check[float] = number("a number of years > 0", above=0.0)


def host_of(pool: Section, catalogue: Catalogue) -> Host | None:
    """The server's share per xPU: an entry's id, or its `type` and fields of one's own; null leaves it out."""
    given = pool.get("host", anything, None)
    if given is None:
        return None
    host = Section({"type": given} if isinstance(given, str) else given, pool.path("host"))
    name = host.need("type", text)
    entry = catalogue.entry("host", name, host.path("type") if isinstance(given, Mapping) else host.key)
    known = entry.values
    power_w = host.get("power_w", number("a power >= 0 W", low=0.0), known.get("power_w"))
    kg = host.get("embodied_kg", number("a mass >= 0 kg CO2e", low=0.0), known.get("embodied_kg"))
    boundary = host.get("boundary", one_of(*BOUNDARIES), known.get("boundary") or "server")
    years = host.get("lifetime_years", _YEARS, known.get("lifetime_years") or DEFAULT_LIFETIME_YEARS)
    own = "given in the configuration" if set(host.values) - {"type"} else ""
    source = host.get("source", text, own or entry.provenance.get("power_w", ("", name, ""))[1])
    carbon_source = source if "embodied_kg" in host.values else entry.provenance.get("embodied_kg", ("", name, ""))[1]
    embodied = _life(host, None if kg is None else published(kg, boundary, carbon_source, years))
    host.finish()
    if power_w is None:
        raise InputError(host.path("power_w"), None, f"a power >= 0 W; entry {name} does not know it")
    return Host(power_w, embodied, f"{name}: {source}")


def embodied_of(pool: Section, xpu: XPU, entry: Entry) -> Embodied | None:
    """``act``, ``llmcarbon``, ``published``, a mapping with `method` and its fields, or null where it is unknown."""
    given = pool.get("embodied", anything, None)
    if given is None:
        return None
    embodied = Section({"method": given} if isinstance(given, str) else given, pool.path("embodied"))
    method = embodied.need("method", one_of("act", "llmcarbon", "published", "given", "fixed"))
    years = embodied.get("lifetime_years", _YEARS, DEFAULT_LIFETIME_YEARS)
    if method in ("act", "llmcarbon"):
        made = act_of(xpu, years) if method == "act" else llmcarbon_of(xpu, years)
    elif method == "published":
        kg, boundary = entry.values.get("embodied_published_kg"), entry.values.get("embodied_published_boundary")
        known = kg is not None and boundary is not None
        made = published(kg, boundary, entry.provenance["embodied_published_kg"][1], years) if known else None
    else:
        made = _given(embodied, years)
    made = _life(embodied, made)
    embodied.finish()
    return made


def shares_of(pool: Section) -> dict[str, Embodied | None]:
    """Embodied carbon of racks, network and the like per xPU, by name: `kg`, `boundary` and their fields, or null."""
    shares: dict[str, Embodied | None] = {}
    group = pool.child("embodied_shares")
    for name, given in group.values.items():
        if given is None:
            shares[name] = None
            continue
        share = Section(given, group.path(name))
        made = _life(share, _given(share, share.get("lifetime_years", _YEARS, DEFAULT_LIFETIME_YEARS)))
        share.finish()
        shares[name] = made
    return shares


def _given(embodied: Section, years: float) -> Embodied:
    mass = number("a mass >= 0 kg CO2e", low=0.0)
    return published(
        embodied.need("kg", mass),
        embodied.need("boundary", one_of(*BOUNDARIES)),
        embodied.get("source", text, "given in the configuration"),
        years,
        low_kg=embodied.get("low_kg", mass, None),
        high_kg=embodied.get("high_kg", mass, None),
    )


def _life(section: Section, embodied: Embodied | None) -> Embodied | None:
    """How its carbon is spread: `second_life` {years, share}, `active_hours` (by use) and `use_share`."""
    share = number("a share in [0, 1]", low=0.0, high=1.0)
    second = section.child("second_life")
    hours = section.get("active_hours", number("a number of hours > 0", above=0.0), None)
    use_share = section.get("use_share", share, None)
    if second.values:
        years, carried = second.need("years", _YEARS), second.get("share", share, None)
        second.finish()
        if hours is not None:
            raise InputError(section.path("active_hours"), hours, "null with second_life, which spreads by time")
        embodied = in_second_life(embodied, years, carried) if embodied is not None else None
    if embodied is not None and hours is not None:
        embodied = by_use(embodied, hours)
    if embodied is not None and use_share is not None:
        embodied = shared_with_other_uses(embodied, use_share)
    return embodied
