"""What a site's own plant changes in the books: carbon, energy, water and cost of its pools.

Requests, and the parts of pools, stay at the grid's intensity and the tariff. What plant and battery change is a part
of its own in every total, `on_site`: battery losses in energy; grams and dollars of imports less those of the load, and
what the plant itself emits and costs. A pool's portion of a step goes by its energy in it. So shares and parts still
sum to the totals.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sim.accounting.ledger import rates_of
from sim.accounting.on_site import OnSite
from sim.accounting.ppa import MATCHING, Ppa, matched
from sim.accounting.site_power import means
from sim.results import PoolTotals
from sim.units import JOULES_PER_KWH, SECONDS_PER_YEAR

if TYPE_CHECKING:
    from sim.accounting.settlement import Balance, Steps
    from sim.fleet.pool import LivePool
    from sim.fleet.spec import Site

FloatArray = npt.NDArray[np.float64]
PART = "on_site"


class Books:
    """The books of one site.

    Args:
        site: whose.
        pools, totals, by_pool: its pools, their totals, which are written to, and their energy by step [kWh].
        found: its energy by step; steps: when these were.
        intensity: of the grid by step [g/kWh].
    """

    def __init__(
        self,
        site: Site,
        pools: list[LivePool],
        totals: list[PoolTotals],
        by_pool: list[FloatArray],
        found: Balance,
        steps: Steps,
        intensity: FloatArray,
    ) -> None:
        self.site, self.pools, self.totals, self.found, self.steps = site, pools, totals, found, steps
        self.on_site, self.intensity, self.by_pool = site.on_site or OnSite(), intensity, by_pool
        load = found.load
        self.portions = [np.divide(own, load, out=np.zeros_like(own), where=load > 0.0) for own in by_pool]
        whole = float(load.sum())
        self.shares = [float(own.sum()) / whole if whole > 0.0 else 0.0 for own in by_pool]

    def carbon(self, contracted: FloatArray | None) -> tuple[dict[str, float | None], dict[str, float] | None]:
        """Give the pools their part of carbon, energy and water.

        Args:
            contracted: output under a contract by step [kWh]; None without one.

        Returns:
            `carbon_kg` and `matched_share` of `SiteEnergy`.
        """
        found, solar = self.found, self.on_site.solar
        counts = solar is not None and self.site.intensity.basis != "direct"  # a life cycle is no stack's emission
        per_kwh = solar.life_cycle_g_per_kwh if solar is not None and counts else 0.0
        plant = per_kwh * (found.solar - found.exported)
        alone = self._building_g()
        change = (found.imported - found.load) * self.intensity + plant
        imports = self._by_pool(found.imported)
        for each, share, own, grams, took in zip(
            self.totals, self.shares, self.by_pool, self._by_pool(change), imports
        ):
            each.carbon_operational_g[PART] = grams
            each.facility_energy_j[PART] = found.lost_kwh * JOULES_PER_KWH * share
            if each.water_off_l is not None and share > 0.0:  # nothing is taken behind the meter
                each.water_off_l *= took / float(own.sum())
        embodied, (market, share_matched) = self._embodied(), self._market(plant, contracted)
        kg = {
            "grid_alone": alone,
            "operational": self._building_g(),
            "solar_life_cycle": float(plant.sum()),
            "operational_market": market,
            "embodied_battery": embodied,
        }
        return {name: None if grams is None else grams / 1e3 for name, grams in kg.items()}, share_matched

    def cost(self) -> float | None:
        """Give the pools their part of cost; returns its sum [USD], None where a pool's is unknown.

        It is what imports cost more or less than the load would have, less what exports earn, and what plant and
        battery cost. Where electricity is in a rent, nothing is saved.
        """
        found, solar, battery, unknown = self.found, self.on_site.solar, self.on_site.battery, []
        yearly = 0.0
        for what, plant in (("solar plant", solar), ("battery", battery)):
            if plant is not None and plant.usd_per_year is None:
                unknown.append(f"cost of the {what} is unknown and left out")
            elif plant is not None and plant.usd_per_year is not None:
                yearly += plant.usd_per_year
        earned = found.exported * (solar.export_usd_per_kwh if solar is not None else 0.0)
        of_plant = self._by_pool(yearly * self.steps.length_s / SECONDS_PER_YEAR - earned)
        booked: list[float | None] = []
        for pool, each, portion, fixed in zip(self.pools, self.totals, self.portions, of_plant):
            each.incomplete += tuple(unknown)
            if each.cost_usd is not None:
                change = portion * (found.imported - found.load) * self._price(pool)
                each.cost_usd[PART] = float(change.sum()) + fixed
            booked.append(None if each.cost_usd is None else each.cost_usd[PART])
        return None if None in booked else sum(usd for usd in booked if usd is not None)

    def _price(self, pool: LivePool) -> FloatArray:
        """What a pool pays for a kWh by step; nothing where that is in its rent [USD/kWh]."""
        rates = rates_of(pool)
        if rates.tariff is not None:
            return means(rates.tariff, self.steps.start_s, self.steps.length_s)
        return np.full_like(self.intensity, rates.usd_per_facility_j * JOULES_PER_KWH)

    def _by_pool(self, amount: FloatArray) -> list[float]:
        """An amount by step, shared by the pools."""
        return [float((portion * amount).sum()) for portion in self.portions]

    def _building_g(self) -> float:
        """Operational carbon of all pools but for their networks [g]."""
        parts = (each.carbon_operational_g.items() for each in self.totals)
        return sum(grams for part in parts for name, grams in part if name != "network")

    def _market(self, plant: FloatArray, contracted: FloatArray | None) -> tuple[float | None, dict[str, float] | None]:
        """Market-based carbon of imports and plant, booked to the pools [g], None where unknown; and matched shares."""
        imported, ppa, market, shares = self.found.imported, self.on_site.ppa, self.site.market, None
        bought: FloatArray | None = None
        if ppa is not None and contracted is not None:
            bought, shares = self._bought(ppa, contracted)
        elif market is not None and (mean := market.g_per_kwh()) is not None:
            bought = imported * mean
        known = bought is not None and bool(np.isfinite(bought).all())
        building = self._by_pool(bought + plant) if bought is not None and known else []
        for i, each in enumerate(self.totals):
            each.carbon_market_g = building[i] + each.carbon_operational_g["network"] if known else None
        return sum(building) if known else None, shares

    def _bought(self, ppa: Ppa, contracted: FloatArray) -> tuple[FloatArray | None, dict[str, float]]:
        """Carbon of imports under a contract by step [g], None where unknown; and the shares of them it covers."""
        imported, start = self.found.imported, self.steps.start_s
        covered: Mapping[str, FloatArray] = {how: matched(imported, contracted, start, how) for how in MATCHING}
        whole = float(imported.sum())
        shares = {how: float(each.sum()) / whole if whole > 0.0 else 0.0 for how, each in covered.items()}
        own, residual = covered[ppa.matching], ppa.residual(self.intensity)
        return None if residual is None else own * ppa.g_per_kwh + (imported - own) * residual, shares

    def _embodied(self) -> float | None:
        """Give the pools the battery's embodied carbon; returns it [g], None where unknown."""
        battery, end_s = self.on_site.battery, float(self.steps.length_s.sum())
        spread = (0.0, 0.0, 0.0) if battery is None else battery.embodied_g(end_s)
        for each, share in zip(self.totals, self.shares):
            if spread is None:
                each.incomplete += ("embodied carbon of the battery is unknown",)
                each.carbon_embodied_g = each.carbon_embodied_range_g = None
            elif each.carbon_embodied_g is not None and each.carbon_embodied_range_g is not None:
                each.carbon_embodied_g[PART] = spread[1] * share
                low, central, high = (old + new * share for old, new in zip(each.carbon_embodied_range_g, spread))
                each.carbon_embodied_range_g = (low, central, high)
                if battery is not None:
                    each.embodied_boundary += " + battery: pack (published)"
        return None if spread is None else spread[1]
