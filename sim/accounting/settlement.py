"""A site's energy balance after a run: solar serves the load first, a battery as its policy says, the grid the rest.

What a plant delivers changes nothing of what is served, so it is settled once the power of the site is known, in steps
of some minutes. What follows for carbon and cost is in `sim.accounting.site_books`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sim.accounting.battery import Battery, Store
from sim.accounting.on_site import OnSite, SiteEnergy
from sim.accounting.signal import Signal
from sim.accounting.site_books import Books
from sim.accounting.site_power import facility_power, means
from sim.results import PoolTotals
from sim.rng import Streams
from sim.timeline import Metered
from sim.units import JOULES_PER_KWH, SECONDS_PER_HOUR

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool
    from sim.fleet.spec import Site
    from sim.observer import PoolSeries

FloatArray = npt.NDArray[np.float64]
_W_PER_KW = 1e3


@dataclass(frozen=True, slots=True)
class Steps:
    """The steps of a run in which a site is settled: arrays of one value a step [s, h]."""

    start_s: FloatArray
    length_s: FloatArray
    hours: FloatArray

    @classmethod
    def until(cls, end_s: float, step_s: float) -> Steps:
        """Steps from 0 to `end_s`; the last may be shorter."""
        start: FloatArray = step_s * np.arange(max(1, math.ceil(end_s / step_s - 1e-9)), dtype=np.float64)
        length = np.minimum(start + step_s, end_s) - start
        return cls(start, length, length / SECONDS_PER_HOUR)

    def energy(self, power: Signal | None) -> FloatArray:
        """Energy of a signal in kW by step [kWh]; none without one."""
        return np.zeros_like(self.hours) if power is None else means(power, self.start_s, self.length_s) * self.hours


@dataclass(frozen=True, slots=True)
class Balance:
    """Where a site's energy came from and went to, by step [kWh].

    Attributes:
        load, solar: what its pools drew, and the plant could deliver.
        charged, discharged: into and out of the battery; from_sun: of `charged`, surplus of the plant.
        imported, exported, curtailed: from and to the grid; surplus that was not used.
        stored: content of the battery after the step; lost_kwh: its losses in all.
    """

    load: FloatArray
    solar: FloatArray
    charged: FloatArray
    discharged: FloatArray
    from_sun: FloatArray
    imported: FloatArray
    exported: FloatArray
    curtailed: FloatArray
    stored: FloatArray
    lost_kwh: float

    def sums(self) -> dict[str, float]:
        """Over the run [kWh]; `stored` is what is left at its end."""
        by_step = {
            "load": self.load, "solar": self.solar, "solar_to_load": np.minimum(self.solar, self.load),
            "solar_to_battery": self.from_sun, "exported": self.exported, "curtailed": self.curtailed,
            "charged": self.charged, "discharged": self.discharged, "imported": self.imported,
        }  # fmt: skip
        whole = {name: float(each.sum()) for name, each in by_step.items()}
        return whole | {"battery_losses": self.lost_kwh, "stored": float(self.stored[-1])}


def meter_sites(pools: Sequence[LivePool], series: Sequence[PoolSeries]) -> None:
    """Let the power of pools be kept in the steps of their sites, where these have something to settle."""
    for pool, each in zip(pools, series):
        on_site = pool.site.on_site
        if on_site is not None:
            each.busy, each.dyn_w = (Metered(old, on_site.step_s) for old in (each.busy, each.dyn_w))


def settle_sites(
    pools: Sequence[LivePool],
    series: Sequence[PoolSeries],
    totals: Sequence[PoolTotals],
    end_s: float,
    streams: Streams,
) -> list[SiteEnergy]:
    """Settle every site that has something to; the totals of its pools get their part `on_site`.

    Args:
        pools, series, totals: by pool; the series as `meter_sites` left them.
        end_s: end of the run [s].
        streams: of the run, for errors of forecasts.
    """
    settled = []
    for site in {pool.site_name: pool.site for pool in pools}.values():
        if site.on_site is None or end_s <= 0.0:
            continue
        steps = Steps.until(end_s, site.on_site.step_s)
        mine = [i for i, pool in enumerate(pools) if pool.site_name == site.name]
        by_pool = [_load(pools[i], series[i], totals[i], steps) for i in mine]
        found = balance(site, np.sum(by_pool, axis=0), steps, streams)
        intensity = means(site.intensity, steps.start_s, steps.length_s)
        contracted = steps.energy(site.on_site.ppa.power) if site.on_site.ppa is not None else None
        books = Books(site, [pools[i] for i in mine], [totals[i] for i in mine], by_pool, found, steps, intensity)
        carbon, share = books.carbon(contracted)
        columns = _columns(found, steps, intensity)
        peak = {name: float(columns[f"{name}_kw"].max()) for name in ("load", "import")}
        if site.power_budget is not None:
            columns["budget_kw"] = means(site.power_budget.kw, steps.start_s, steps.length_s)
            peak["least_below_budget"] = float((columns["budget_kw"] - columns["load_kw"]).min())
        settled.append(SiteEnergy(site.name, found.sums(), peak, carbon, share, books.cost(), columns))
    return settled


def balance(site: Site, load: FloatArray, steps: Steps, streams: Streams) -> Balance:
    """Balance every step of a site that draws `load` [kWh by step]."""
    on_site = site.on_site or OnSite()
    solar = steps.energy(on_site.solar.power if on_site.solar is not None else None)
    moved, stored, lost = np.zeros_like(load), np.zeros_like(load), 0.0
    if on_site.battery is not None:
        moved, stored, lost = _dispatch(on_site.battery, site, load, solar, steps, streams)
    charged, discharged = np.maximum(-moved, 0.0), np.maximum(moved, 0.0)
    surplus, lacking = np.maximum(solar - load, 0.0), np.maximum(load - solar, 0.0)
    from_sun = np.minimum(charged, surplus)
    none = np.zeros_like(load)
    spare = np.where(surplus - from_sun > 1e-12 * surplus, surplus - from_sun, none)  # a rounding error is no energy
    exports = on_site.solar is not None and on_site.solar.export
    imported = np.maximum(lacking - discharged, 0.0) + (charged - from_sun)
    exported, curtailed = (spare, none) if exports else (none, spare)
    return Balance(load, solar, charged, discharged, from_sun, imported, exported, curtailed, stored, lost)


def _load(pool: LivePool, series: PoolSeries, totals: PoolTotals, steps: Steps) -> FloatArray:
    """Facility energy of a pool by step [kWh], which sums to its meter: a PUE that changes in a step is its mean."""
    assert isinstance(series.busy, Metered)
    assert isinstance(series.dyn_w, Metered)
    power = facility_power(pool, series.busy.fine, series.dyn_w.fine, steps.start_s, steps.length_s)
    energy: FloatArray = power / _W_PER_KW * steps.hours
    metered = sum(j for part, j in totals.facility_energy_j.items() if part != "network") / JOULES_PER_KWH
    return energy * (metered / energy.sum()) if energy.sum() > 0.0 else energy


def _dispatch(
    battery: Battery, site: Site, load: FloatArray, solar: FloatArray, steps: Steps, streams: Streams
) -> tuple[FloatArray, FloatArray, float]:
    """Energy out of the battery (below 0: into it) and its content by step; and its losses [kWh]."""
    policy, store = copy.deepcopy(battery.policy), Store(battery)  # a policy may remember: every run has its own
    forecast = battery.forecast.of(f"battery at {site.name}", site.intensity, streams)
    moved, stored, now = [], [], 0.0

    def expected(t_s: float) -> float:
        return forecast.at(now, t_s)

    for start, of_load, of_sun, hours in zip(*(each.tolist() for each in (steps.start_s, load, solar, steps.hours))):
        now = start
        wanted = policy.dispatch(now, of_load / hours, of_sun / hours, expected, store.soc)
        moved.append(store.move(wanted, (of_load - of_sun) / hours, hours) * hours)
        stored.append(store.kwh)
    return np.array(moved), np.array(stored), store.lost_kwh


def _columns(found: Balance, steps: Steps, intensity: FloatArray) -> dict[str, FloatArray]:
    """Columns as in `sim.accounting.on_site.STEP_COLUMNS`."""
    energies = {
        "load_kw": found.load, "solar_kw": found.solar, "battery_kw": found.discharged - found.charged,
        "import_kw": found.imported, "export_kw": found.exported, "curtailed_kw": found.curtailed,
    }  # fmt: skip
    return {
        "t_s": steps.start_s,
        "step_s": steps.length_s,
        **{name: each / steps.hours for name, each in energies.items()},
        "stored_kwh": found.stored,
        "intensity_g_per_kwh": intensity,
    }
