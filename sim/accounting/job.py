"""What a job on some xPUs takes that all run until it is done: energy, carbon and money."""

from __future__ import annotations

from dataclasses import dataclass

from sim.accounting.billing import billed_s
from sim.accounting.cost import CostModel
from sim.accounting.signal import Signal
from sim.errors import number
from sim.fleet.spec import Pool
from sim.units import JOULES_PER_KWH


@dataclass(frozen=True, slots=True)
class JobRates:
    """What a job's books grow by.

    Attributes:
        xpu_w, host_w: power of an xPU, and of its share of the server [W].
        pue: power usage effectiveness of the building.
        intensity: carbon intensity of its electricity [g CO2e/kWh].
        cost: how the xPUs are paid for; None where not known.
        embodied_g_per_xpu_s: low, central and high carbon of making it all [g CO2e/s]; None where not known.
    """

    xpu_w: float
    host_w: float
    pue: float
    intensity: Signal
    cost: CostModel | None
    embodied_g_per_xpu_s: tuple[float, float, float] | None


@dataclass(frozen=True, slots=True)
class JobAccount:
    """What a job took: energy at the facility [J], carbon [g CO2e] and money [USD]; None where not known.

    Attributes:
        xpu_s: time of all xPUs [s].
        energy_j, operational_g, usd: in all.
        embodied_g: low, central and high.
    """

    xpu_s: float
    energy_j: float
    operational_g: float
    embodied_g: tuple[float, float, float] | None
    usd: float | None


def job_rates(pool: Pool, intensity: Signal, pue: float, power_share: float) -> JobRates:
    """Rates of the xPUs of a pool, each drawing `power_share` of its limit."""
    share = number("power_share", power_share, "a share in (0, 1]", above=0.0, high=1.0)
    over = number("pue", pue, "a ratio of at least 1", low=1.0)
    host = pool.host
    parts = [pool.embodied, *pool.embodied_shares.values(), *([host.embodied] if host is not None else [])]
    embodied: tuple[float, float, float] | None = (0.0, 0.0, 0.0)
    for part in parts:
        if part is None or embodied is None:
            embodied = None
        else:
            low, central, high = embodied
            embodied = (low + part.g_per_s("low"), central + part.g_per_s(), high + part.g_per_s("high"))
    return JobRates(
        share * pool.xpu.tdp_w,
        host.power_w if host is not None else 0.0,
        over,
        intensity,
        pool.cost,
        embodied,
    )


def job_account(xpus: float, seconds: float, rates: JobRates) -> JobAccount:
    """The books of a job from t = 0 to `seconds` [s] on `xpus` xPUs."""
    xpu_s = xpus * seconds
    watts = xpus * (rates.xpu_w + rates.host_w) * rates.pue
    energy_j = watts * seconds
    embodied = rates.embodied_g_per_xpu_s
    return JobAccount(
        xpu_s,
        energy_j,
        watts * rates.intensity.integral(0.0, seconds) / JOULES_PER_KWH,
        None if embodied is None else (embodied[0] * xpu_s, embodied[1] * xpu_s, embodied[2] * xpu_s),
        None if rates.cost is None else _usd(rates.cost, xpus, seconds, watts),
    )


def _usd(cost: CostModel, xpus: float, seconds: float, watts: float) -> float:
    """Billed time of the xPUs, and electricity at its price of the moment [USD]."""
    prices = cost.rates()
    if prices.tariff is not None:
        electricity = watts * prices.tariff.integral(0.0, seconds) / JOULES_PER_KWH
    else:
        electricity = prices.usd_per_facility_j * watts * seconds
    return prices.usd_per_xpu_s * xpus * billed_s(cost, (), seconds) + electricity
