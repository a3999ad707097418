"""What the meters of a pool read at the end of a run: energy, its carbon and its price, by state of its replicas.

Exact in every case: engines keep seconds and joules, and where intensity, PUE or tariff varies, their products with it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sim.accounting.provision import provision_of
from sim.accounting.signal import Unknown
from sim.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from sim.accounting.ledger import Rates
    from sim.fleet.pool import LivePool


@dataclass(frozen=True, slots=True)
class Reading:
    """Energy, carbon and price of one state.

    Attributes:
        it_j, facility_j: before and after PUE and overhead [J].
        grams: operational carbon [g CO2e].
        usd: price of the energy at the meter, 0 where it is in the price of the time; NaN where unknown [USD].
    """

    it_j: float
    facility_j: float
    grams: float
    usd: float


@dataclass(frozen=True, slots=True)
class Meter:
    """All states of a pool's replicas.

    Attributes:
        busy_s, idle_s, boot_s: replica seconds.
        busy, idle, boot: what they drew; `lost` is the part of `busy` in steps that the end of the run cut short.
    """

    busy_s: float
    idle_s: float
    boot_s: float
    busy: Reading
    idle: Reading
    boot: Reading
    lost: Reading


def read(pool: LivePool, rates: Rates, end_s: float) -> Meter:
    """Read the meters of a pool, whose engines have been halted, at the end of a run."""
    engines, weight = pool.engines, pool.weight
    busy: complex = sum((engine.busy + engine.lost for engine in engines), 0j)
    lost: complex = sum((engine.lost for engine in engines), 0j)
    there = provision_of(pool, end_s)
    boot_s = there.boot_s
    idle_s = there.there_s - busy.real - boot_s
    if engines[0].varying:
        busy_ws = sum(engine.busy_gs + engine.lost_gs for engine in engines)
        busy_w = sum(engine.busy_g + engine.lost_g for engine in engines)
        lost_w = sum(engine.lost_g for engine in engines)
    else:
        now = weight.at(0.0)
        busy_ws = busy.real * now
        busy_w, lost_w = ((rates.active_w * each.real + each.imag) * now for each in (busy, lost))
    idle_w = rates.idle_w * (there.awake_w - busy_ws)
    boot_w = rates.active_w * there.booting_w

    def reading(watts: float, it_w: float, seconds: float, dynamic_j: float, weighted: Any) -> Reading:
        joules, grams = facility(pool, rates, watts * seconds + dynamic_j, weighted)
        usd = electricity_usd(rates, joules, getattr(weighted, "usd", 0.0))
        return Reading(it_w * seconds + dynamic_j, joules, grams, usd)

    return Meter(
        busy.real,
        idle_s,
        boot_s,
        reading(rates.active_w, rates.it_active_w, busy.real, busy.imag, busy_w),
        reading(rates.idle_w, rates.it_idle_w, idle_s, 0.0, idle_w),
        reading(rates.active_w, rates.it_active_w, boot_s, 0.0, boot_w),
        reading(rates.active_w, rates.it_active_w, lost.real, lost.imag, lost_w),
    )


def facility(pool: LivePool, rates: Rates, joules: Any, weighted: Any) -> tuple[Any, Any]:
    """Facility energy [J] and carbon [g] of IT energy; numbers or arrays.

    Args:
        pool, rates: whose.
        joules: IT energy, with what the building adds at any load [J].
        weighted: its product with the pool's weight over time: `real` with intensity, times the PUE where that varies,
            and then `imag` with the PUE.
    """
    unknown = math.nan if isinstance(pool.site.intensity, Unknown) else 1.0
    if math.isnan(rates.pue):
        return weighted.imag, weighted.real * unknown / JOULES_PER_KWH
    return rates.pue * joules, rates.pue * weighted.real * unknown / JOULES_PER_KWH


def electricity_usd(rates: Rates, facility_j: Any, priced: Any) -> Any:
    """Price of electricity [USD]; numbers or arrays.

    Args:
        rates: whose.
        facility_j: energy at the meter [J].
        priced: where the tariff varies, the product of IT energy with it, and with the PUE where that varies, too.
    """
    if rates.tariff is None:
        return rates.usd_per_facility_j * facility_j
    return (1.0 if math.isnan(rates.pue) else rates.pue) * priced / JOULES_PER_KWH
