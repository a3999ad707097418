"""What an inventory asks of a pool besides: whose it is, and its carbon by other bases and by what was bought."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.accounting.cost import Owned, Rent
from sim.accounting.signal import Signal
from sim.results import PoolTotals
from sim.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool


def by_basis(intensity: Signal, mean: float) -> dict[str, float]:
    """Mean intensity on the run's basis, and on the other one where the grid's entry has it [g/kWh]."""
    other: float | None = getattr(intensity, "other", None)
    known = {intensity.basis: mean} if intensity.basis else {}
    if known and other is not None:
        known["direct" if intensity.basis == "lca" else "lca"] = other
    return known


def ownership(cost: object) -> str:
    """Whose the hardware is, by how it is paid for."""
    return "owned" if isinstance(cost, Owned) else "rented" if isinstance(cost, Rent) else ""


def market_g(pool: LivePool, totals: PoolTotals) -> float | None:
    """Market-based carbon [g]: the building by what its site buys, the network, which others run, by location."""
    market = pool.site.market
    bought = None if market is None else market.g_per_kwh()
    if bought is None:
        return None
    building_j = sum(joules for part, joules in totals.facility_energy_j.items() if part != "network")
    return building_j * bought / JOULES_PER_KWH + totals.carbon_operational_g["network"]
