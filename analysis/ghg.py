"""A run as rows of a corporate inventory, after the GHG Protocol's scopes. An estimate, not an assured inventory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

NOT_AVAILABLE = "not available"


@dataclass(frozen=True, slots=True)
class Row:
    """One line.

    Attributes:
        scope, category, method: where it belongs; what: a pool and the reason.
        kg: mass [kg CO2e]; None where it is not available.
        note: on what it rests, or what is missing.
    """

    scope: str
    category: str
    method: str
    what: str
    kg: float | None
    note: str


def rows(summary: Mapping[str, Any], devices: bool = False, grid_losses: float | None = None) -> list[Row]:
    """The inventory of a run.

    Electricity of owned pools is scope 2, on direct intensity; what its life cycle adds and grid losses are scope 3,
    category 3; owned hardware is category 2, in full in the year of purchase. Rented pools and APIs are the customer's
    scope 3.

    Args:
        summary: contents of summary.json.
        devices: count users' devices too, which are outside otherwise.
        grid_losses: share of generated electricity lost on the way; None leaves that row not available.

    Source: GHG Protocol, Scope 2 Guidance (2015) and Corporate Value Chain Standard (2011).
    """
    found: list[Row] = []
    for name, pool in summary["by_pool"].items():
        if pool["site_kind"] == "device" and not devices:
            found.append(Row("outside", "", "", f"{name}: users' devices", None, "not selected; add --devices"))
        elif pool["ownership"] == "owned":
            found += _owned(name, pool, grid_losses)
        elif pool["ownership"] == "rented":
            found += _rented(name, pool)
        elif pool["ownership"] == "bought":
            found += _bought(name, pool)
        else:
            found.append(Row("not classified", "", "", name, None, "the pool's cost does not say owned or rented"))
    return found


def _owned(name: str, pool: Mapping[str, Any], grid_losses: float | None) -> Iterator[Row]:
    energy = _building(pool["parts"]["energy_kwh"])
    direct, lca = (_by_intensity(pool, basis) for basis in ("direct", "lca"))
    needs = "needs a run with basis=direct, or a grid with both bases"
    yield Row(
        "2", "", "location-based", f"{name}: electricity", direct, needs if direct is None else "direct intensity"
    )
    market, network = pool["carbon_kg"]["operational_market"], _part(pool, "carbon_operational_kg", "network")
    known = market is not None and pool["intensity_basis"] == "direct"
    note = "direct intensity" if known else "needs basis=direct, contracts and a residual mix (market)"
    yield Row("2", "", "market-based", f"{name}: electricity", market - network if known else None, note)
    upstream = None if direct is None or lca is None else lca - direct
    yield Row("3", "3", "location-based", f"{name}: fuels and plants", upstream, "life-cycle less direct intensity")
    lost = None if direct is None or grid_losses is None else direct * grid_losses / (1.0 - grid_losses)
    note = "no share given" if lost is None else f"share {grid_losses}"
    yield Row("3", "3", "location-based", f"{name}: grid losses", lost, note)
    full, amortised = pool["embodied_full_kg"], pool["carbon_kg"]["embodied"]
    yield Row("3", "2", "", f"{name}: hardware, in full", full, "counts in the year of purchase")
    yield Row(
        "memo",
        "",
        "",
        f"{name}: hardware, amortised",
        amortised,
        f"for {energy or 0.0:.4g} kWh of work; not to be added",
    )
    yield from _network(name, pool)


def _rented(name: str, pool: Mapping[str, Any]) -> Iterator[Row]:
    use = pool["parts"]["carbon_operational_kg"]
    basis = f"{pool['intensity_basis'] or 'unknown'} intensity"
    yield Row("3", "1", "location-based", f"{name}: electricity of rented xPUs", _building(use), basis)
    yield Row("3", "1", "", f"{name}: hardware, amortised", pool["carbon_kg"]["embodied"], "the provider's, by time")
    yield from _network(name, pool)


def _bought(name: str, pool: Mapping[str, Any]) -> Iterator[Row]:
    use, guess = _building(pool["parts"]["carbon_operational_kg"]), "an estimate of energy, by the site's intensity"
    note = "not disclosed; needs an estimate (energy) and a grid" if use is None else guess
    yield Row("3", "1", "location-based", f"{name}: electricity of {pool['provider']}", use, note)
    yield Row("3", "1", "", f"{name}: hardware of {pool['provider']}", pool["carbon_kg"]["embodied"], "not disclosed")
    yield from _network(name, pool)


def _network(name: str, pool: Mapping[str, Any]) -> Iterator[Row]:
    if "network energy is unknown and left out" in pool["incomplete"]:
        yield Row("3", "1", "location-based", f"{name}: network", None, "energy per byte is not known")
    elif network := _part(pool, "carbon_operational_kg", "network"):
        yield Row("3", "1", "location-based", f"{name}: network", network, f"{pool['intensity_basis']} intensity")


def _by_intensity(pool: Mapping[str, Any], basis: str) -> float | None:
    """Carbon of a pool's building on a basis [kg]: the run's if it is its own, else by the grid's mean."""
    if pool["intensity_basis"] == basis:
        return _building(pool["parts"]["carbon_operational_kg"])
    if "on_site" in (pool["parts"]["energy_kwh"] or {}):
        return None  # a mean does not tell in which hours a site with a plant of its own imports
    mean, energy = pool["intensity_by_basis"].get(basis), _building(pool["parts"]["energy_kwh"])
    return None if mean is None or energy is None else energy * mean / 1e3


def _building(parts: Mapping[str, float | None] | None) -> float | None:
    return None if parts is None else sum(value or 0.0 for part, value in parts.items() if part != "network")


def _part(pool: Mapping[str, Any], amount: str, part: str) -> float:
    parts = pool["parts"][amount]
    return 0.0 if parts is None else parts[part] or 0.0
