"""What a scope of a run (all of it, one pool, one SLO class) drew, emitted and cost, by part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.results import LinkTotals, PoolTotals, Result
from sim.units import JOULES_PER_KWH

PARTS = ("active", "wasted", "idle", "boot", "network")
Parts = dict[str, float]


@dataclass(frozen=True, slots=True)
class Footprint:
    """Amounts by part; None where unknown.

    Attributes:
        facility_j, it_j: energy after and before PUE [J].
        operational_g, embodied_g: carbon [g CO2e].
        embodied_range_g: low and high estimate of the embodied carbon [g CO2e].
        cost_usd: cost [USD].
        incomplete: what is missing in the sums, in words.
        water_l: water taken on and off site [l]; None where unknown.
        market_g: market-based operational carbon [g CO2e]; None where what is bought is not known.
    """

    facility_j: Parts | None
    it_j: Parts | None
    operational_g: Parts | None
    embodied_g: Parts | None
    embodied_range_g: tuple[float, float] | None
    cost_usd: Parts | None
    incomplete: tuple[str, ...] = ()
    market_g: float | None = None
    water_l: tuple[float | None, float | None] = (None, None)


def of_pool(pool: PoolTotals) -> Footprint:
    """The footprint of one pool over the whole run."""
    spread = pool.carbon_embodied_range_g
    return Footprint(
        facility_j=_known(pool.facility_energy_j),
        it_j=_known(pool.it_energy_j),
        operational_g=_known(pool.carbon_operational_g),
        embodied_g=_known(pool.carbon_embodied_g),
        embodied_range_g=None if spread is None else (spread[0], spread[2]),
        cost_usd=_known(pool.cost_usd),
        incomplete=tuple(pool.incomplete),
        market_g=pool.carbon_market_g,
        water_l=(pool.water_on_l, pool.water_off_l),
    )


def of_all(pools: Sequence[PoolTotals], links: Sequence[LinkTotals] = ()) -> Footprint:
    """The sum over pools; a quantity that is unknown in one pool is unknown in all.

    What links metered beyond the requests of the pools (caches, drafts and prompts between sites) is network, too.
    """
    parts = [of_pool(pool) for pool in pools]
    ranges = [part.embodied_range_g for part in parts]
    known = [spread for spread in ranges if spread is not None]
    bought = [part.market_g for part in parts if part.market_g is not None]
    return Footprint(
        facility_j=_with_links(_sum(part.facility_j for part in parts), (link.energy_j for link in links)),
        it_j=_with_links(_sum(part.it_j for part in parts), (link.energy_j for link in links)),
        operational_g=_with_links(_sum(part.operational_g for part in parts), (link.carbon_g for link in links)),
        embodied_g=_sum(part.embodied_g for part in parts),
        embodied_range_g=(sum(r[0] for r in known), sum(r[1] for r in known)) if len(known) == len(ranges) else None,
        cost_usd=_sum(part.cost_usd for part in parts),
        incomplete=(
            *(f"{pool.name}: {what}" for pool in pools for what in pool.incomplete),
            *(
                f"link {link.name}: energy between sites is unknown and left out"
                for link in links
                if link.source != "client" and link.energy_j is None and link.bytes_up + link.bytes_down > 0.0
            ),
        ),
        water_l=(_total(pool.water_on_l for pool in pools), _total(pool.water_off_l for pool in pools)),
        market_g=sum(bought) if parts and len(bought) == len(parts) else None,
    )


def of_requests(result: Result, mask: npt.NDArray[np.bool_]) -> Footprint:
    """The footprint of some requests: their shares, idle and boot spread over them by active xPU time.

    Idle time of a pool that served nobody belongs to no request, so scopes of requests may sum to less than the run.
    """
    served = mask & (result.requests["pool"] >= 0)
    column = {name: values[served] for name, values in result.requests.items()}
    own, wasted, network = column["energy_j"], column["energy_wasted_j"], column["energy_network_j"]
    idle = column["energy_provisioned_j"] - own
    pue = {part: np.array([_pue(pool, part) for pool in result.pools] or [1.0])[column["pool"]] for part in PARTS}
    carbon, embodied, cost = (
        column["carbon_operational_provisioned_g"],
        column["carbon_embodied_provisioned_g"],
        column["cost_provisioned_usd"],
    )
    direct = column["carbon_operational_g"]  # of wasted energy, too: the columns do not tell the two apart
    return Footprint(
        facility_j=_parts(own, wasted, idle, network),
        it_j=_parts(own / pue["active"], wasted / pue["wasted"], idle / pue["idle"], network),
        operational_g=_parts(direct, None, carbon - direct, _network_carbon(result, served)),
        embodied_g=_parts(column["carbon_embodied_g"], None, embodied - column["carbon_embodied_g"], None),
        embodied_range_g=None,
        cost_usd=_parts(column["cost_usd"], None, cost - column["cost_usd"], None),
        incomplete=_incomplete_of(result, column["pool"]),
        water_l=_water_of(result, column["pool"], own + wasted + idle),
    )


def _pue(pool: PoolTotals, part: str) -> float:
    """Facility over IT energy of one part of a pool; where it varies, the mean."""
    it_j = pool.it_energy_j.get(part, 0.0)
    return pool.facility_energy_j[part] / it_j if it_j > 0.0 else 1.0


def total(parts: Parts | None, unit: float = 1.0) -> float | None:
    """Sum of the parts in multiples of `unit`, or None where unknown."""
    return None if parts is None else sum(parts.values()) / unit


def describe(footprint: Footprint) -> dict[str, Any]:
    """The summary's keys of a footprint: kWh, kg CO2e and USD, in all and by part; unknown is None."""
    operational, embodied = total(footprint.operational_g, 1e3), total(footprint.embodied_g, 1e3)
    spread, (on, off) = footprint.embodied_range_g, footprint.water_l
    return {
        "energy_kwh": total(footprint.facility_j, JOULES_PER_KWH),
        "it_energy_kwh": total(footprint.it_j, JOULES_PER_KWH),
        "carbon_kg": {
            "operational": operational,
            "operational_market": None if footprint.market_g is None else footprint.market_g / 1e3,
            "embodied": embodied,
            "total": None if operational is None or embodied is None else operational + embodied,
            "embodied_low": None if spread is None else spread[0] / 1e3,
            "embodied_high": None if spread is None else spread[1] / 1e3,
        },
        "water_l": {"on_site": on, "off_site": off, "total": None if on is None or off is None else on + off},
        "cost_usd": total(footprint.cost_usd),
        "parts": {
            "energy_kwh": _by_part(footprint.facility_j, JOULES_PER_KWH),
            "carbon_operational_kg": _by_part(footprint.operational_g, 1e3),
            "carbon_embodied_kg": _by_part(footprint.embodied_g, 1e3),
            "cost_usd": _by_part(footprint.cost_usd, 1.0),
        },
        "incomplete": list(footprint.incomplete),
    }


def _known(parts: Parts | None) -> Parts | None:
    """The parts, or None if any of them is not a number: unknown is never 0."""
    return None if not parts or any(np.isnan(value) for value in parts.values()) else dict(parts)


def _sum(many: Iterable[Parts | None]) -> Parts | None:
    sums: Parts = {}
    for parts in many:
        if parts is None:
            return None
        for name, value in parts.items():
            sums[name] = sums.get(name, 0.0) + value
    return sums or None


def _with_links(parts: Parts | None, metered: Iterable[float | None]) -> Parts | None:
    """Sums over pools, with the network at least what the links metered, as far as that is known."""
    if parts is None:
        return None
    return _known(parts | {"network": max(parts.get("network", 0.0), sum(each or 0.0 for each in metered))})


def _parts(
    active: npt.NDArray[Any],
    wasted: npt.NDArray[Any] | None,
    idle: npt.NDArray[Any],
    network: npt.NDArray[Any] | float | None,
) -> Parts | None:
    """Sums by part; None if a request's value is unknown. Boot is spread together with idle."""
    columns = {"active": active, "wasted": wasted, "idle": idle, "network": network}
    return _known({name: float(np.sum(column)) for name, column in columns.items() if column is not None})


def _network_carbon(result: Result, served: npt.NDArray[np.bool_]) -> float:
    """Operational carbon of the network that some requests used, by their share of each pool's network energy [g]."""
    grams = 0.0
    pool, energy = result.requests["pool"], result.requests["energy_network_j"]
    for index, totals in enumerate(result.pools):
        of_the_pool = energy[pool == index].sum()
        if of_the_pool > 0.0:
            share = energy[served & (pool == index)].sum() / of_the_pool
            grams += float(share) * totals.carbon_operational_g.get("network", 0.0)
    return grams


def _total(values: Iterable[float | None]) -> float | None:
    """Sum of amounts; None where there are none, or one is unknown."""
    known = list(values)
    return sum(value for value in known if value is not None) if known and None not in known else None


def _water_of(result: Result, pools: npt.NDArray[Any], energy_j: npt.NDArray[Any]) -> tuple[float | None, float | None]:
    """Water of some requests, by their share of the energy of each pool's building [l]."""
    by_pool = np.bincount(pools, weights=energy_j, minlength=len(result.pools))
    on, off = [], []
    for pool, joules in zip(result.pools, by_pool):
        building_j = sum(part_j for part, part_j in pool.facility_energy_j.items() if part != "network")
        if joules > 0.0 or np.isnan(joules):
            share = float(joules) / building_j
            for litres, whole in ((on, pool.water_on_l), (off, pool.water_off_l)):
                litres.append(None if whole is None else whole * share)
    return _total(on), _total(off)


def _incomplete_of(result: Result, pools: npt.NDArray[Any]) -> tuple[str, ...]:
    used = (result.pools[index] for index in np.unique(pools))
    return tuple(f"{pool.name}: {what}" for pool in used for what in pool.incomplete)


def _by_part(parts: Parts | None, unit: float) -> dict[str, float | None] | None:
    if parts is None:
        return None
    names = [*PARTS, *(name for name in parts if name not in PARTS)]
    return {name: parts[name] / unit if name in parts else None for name in names}
