"""From shares of xPU time and dynamic energy to joules, grams and dollars: per request, per pool, conserved.

A busy replica draws static and host power for as long as it is busy, and dynamic energy on top; an idle one draws idle
and host power. So everything that a pool draws, emits and costs is linear in three numbers that the engines keep: busy
seconds, dynamic joules, and (where intensity varies) their product with it. Facility energy is IT energy times PUE;
operational carbon is facility energy times intensity; embodied carbon and rent go by provisioned time.

Parts are exhaustive: active (shares of requests), wasted (lost to preemption or cut short), idle, boot, network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from sim.accounting.embodied import BY_TIME, BY_USE, ESTIMATES, Embodied
from sim.accounting.inventory import by_basis, market_g, ownership
from sim.accounting.links import client_bytes, mean_intensity, network_j
from sim.accounting.meter import electricity_usd, facility, read
from sim.accounting.provision import provision_of
from sim.accounting.purchased import bought_columns, bought_totals, is_api, part_of
from sim.accounting.signal import Signal, Unknown, kind_of
from sim.accounting.work import useful_flop
from sim.hardware.grounding import grounding
from sim.hardware.sizing import kv_block_bytes
from sim.results import PoolTotals
from sim.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from sim.fleet.pool import LivePool

FloatArray = npt.NDArray[np.float64]
PARTS = ("active", "wasted", "idle", "boot", "network")


@dataclass(slots=True)
class Rates:
    """What a pool's replica, or data-parallel rank, draws, emits and costs per second and joule.

    Attributes:
        active_w, idle_w: IT power beside dynamic energy, of a busy and of an idle replica, host included, and what the
            building draws at any load, over `pue` [W].
        it_active_w, it_idle_w: the same without the building [W].
        pue: facility over IT power; NaN where it varies over time.
        embodied_g_per_s: low, central, high per replica second, or None where unknown [g/s].
        embodied_g_per_busy_s: the same of what is amortised by use, per busy second besides [g/s].
        usd_per_s, usd_per_facility_j: cost of a replica second and of a joule at the meter; NaN where unknown.
        cost_basis, boundary: in words.
        missing: what is unknown, in words.
        tariff: price of electricity where it varies over time [USD/kWh]; `usd_per_facility_j` is 0 then.
    """

    active_w: float
    idle_w: float
    it_active_w: float
    it_idle_w: float
    pue: float
    embodied_g_per_s: tuple[float, float, float] | None
    usd_per_s: float
    usd_per_facility_j: float
    cost_basis: str
    boundary: str
    missing: tuple[str, ...]
    embodied_g_per_busy_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    tariff: Signal | None = None

    def embodied_g(self, busy_s: float, all_s: float) -> tuple[float, float, float] | None:
        """Low, central and high embodied carbon of replica seconds, of which some are busy [g]; None where unknown."""
        if self.embodied_g_per_s is None:
            return None
        low, central, high = (
            time * all_s + use * busy_s for time, use in zip(self.embodied_g_per_s, self.embodied_g_per_busy_s)
        )
        return low, central, high


def rates_of(pool: LivePool) -> Rates:
    """Rates of a pool from its specification."""
    spec, missing = pool.spec, []
    embodied: tuple[float, float, float] | None = None
    used = (0.0, 0.0, 0.0)
    parts: list[tuple[str, Embodied | None]] = [("xPU", spec.embodied)]
    if spec.host is not None:
        parts.append(("host", spec.host.embodied))
    parts += spec.embodied_shares.items()
    known = [(what, each) for what, each in parts if each is not None]
    boundary = " + ".join(f"{what}: {each.boundary} ({each.method})" for what, each in known)
    missing += [f"embodied carbon of the {what} is unknown" for what, each in parts if each is None]
    if len(known) == len(parts):
        embodied, used = (
            _g_per_s([each for _, each in known if each.per == per], spec.xpus_per_engine) for per in (BY_TIME, BY_USE)
        )
    usd_s = usd_j = math.nan
    basis, tariff = "", None
    if spec.cost is None:
        missing.append("cost is unknown")
    else:
        cost = spec.cost.rates()
        usd_s, usd_j, basis = cost.usd_per_xpu_s * spec.xpus_per_engine, cost.usd_per_facility_j, cost.basis
        tariff = cost.tariff
    if isinstance(pool.site.intensity, Unknown):
        missing.append("grid carbon intensity is unknown")
    if pool.link is not None and pool.link.energy_j() is None:
        missing.append("network energy is unknown and left out")
    overhead_w = pool.overhead_w / pool.pue if pool.overhead_w else 0.0
    return Rates(
        pool.timing.static_w + pool.host_w + overhead_w,
        pool.timing.idle_w + pool.host_w + overhead_w,
        pool.timing.static_w + pool.host_w,
        pool.timing.idle_w + pool.host_w,
        pool.pue,
        embodied,
        usd_s,
        usd_j,
        basis,
        boundary,
        tuple(missing),
        used,
        tariff,
    )


def _g_per_s(parts: list[Embodied], xpus: int) -> tuple[float, float, float]:
    """Low, central and high embodied carbon per second of so many xPUs [g/s]."""
    low, central, high = (xpus * sum(each.g_per_s(which) for each in parts) for which in ESTIMATES)
    return low, central, high


def request_columns(records: dict[str, FloatArray], pools: list[LivePool], end_s: float) -> dict[str, FloatArray]:
    """Accounting columns of the requests table; arrays of one value a request.

    A request that did not complete has no active share, and so a leg that went into no answer (`useful` 0): all that it
    took is waste. Of one whose work went in only partly, the rest is.
    """
    size = len(records["request_id"])
    columns = {
        name: np.zeros(size)
        for name in (
            "xpu_s", "energy_j", "energy_prefill_j", "energy_wasted_j", "energy_network_j", "energy_provisioned_j",
            "carbon_operational_g", "carbon_operational_provisioned_g", "carbon_embodied_g",
            "carbon_embodied_provisioned_g", "cost_usd", "cost_prefill_usd", "cost_provisioned_usd",
        )
    }  # fmt: skip
    for pool in pools:
        mine = np.flatnonzero(records["pool"] == pool.index)
        part = {name: values[mine] for name, values in records.items()}
        shares = bought_columns(part, pool) if is_api(pool) else _shares(part, pool, end_s)
        for name, values in shares.items():
            columns[name][mine] = values
    return columns


def _shares(records: dict[str, FloatArray], pool: LivePool, end_s: float) -> dict[str, FloatArray]:
    """Accounting columns of the requests of one pool."""
    rates = rates_of(pool)
    share = records["useful"]
    work_s = records["prefill_s"] + records["decode_s"]
    lost_s = records["waste_s"] + part_of(1.0 - share, work_s)
    active_s = part_of(share, work_s)
    whole_s = active_s + lost_s
    prefill, prefill_g, prefill_usd = _phase(records, "prefill", pool, rates)
    decode, decode_g, decode_usd = _phase(records, "decode", pool, rates)
    waste, waste_g, waste_usd = _phase(records, "waste", pool, rates)
    energy = part_of(share, prefill + decode)
    wasted = waste + part_of(1.0 - share, prefill + decode)
    grams = prefill_g + decode_g + waste_g
    network = network_j(pool.link, records)
    totals = pool_totals(pool, end_s)
    busy_s = whole_s.sum()
    spread = whole_s / busy_s if busy_s > 0.0 else np.zeros_like(whole_s)

    def idle(parts: dict[str, float]) -> FloatArray:
        return spread * (parts["idle"] + parts["boot"])

    embodied = embodied_all = np.full_like(energy, math.nan)
    if rates.embodied_g_per_s is not None and totals.carbon_embodied_g is not None:
        embodied = (rates.embodied_g_per_s[1] + rates.embodied_g_per_busy_s[1]) * whole_s
        embodied_all = embodied + idle(totals.carbon_embodied_g)
    cost = rates.usd_per_s * whole_s + (prefill_usd + decode_usd + waste_usd)
    return {
        "xpu_s": whole_s * pool.spec.xpus_per_engine,
        "energy_j": energy,
        "energy_prefill_j": part_of(share, prefill),
        "energy_wasted_j": wasted,
        "energy_network_j": network,
        "energy_provisioned_j": energy + idle(totals.facility_energy_j),
        "carbon_operational_g": grams,
        "carbon_operational_provisioned_g": grams + idle(totals.carbon_operational_g),
        "carbon_embodied_g": embodied,
        "carbon_embodied_provisioned_g": embodied_all,
        "cost_usd": cost,
        "cost_prefill_usd": rates.usd_per_s * (records["prefill_s"] + records["waste_s"]) + prefill_usd + waste_usd,
        "cost_provisioned_usd": cost + (idle(totals.cost_usd) if totals.cost_usd is not None else math.nan),
    }


def _phase(
    records: dict[str, FloatArray], name: str, pool: LivePool, rates: Rates
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Facility energy [J], its carbon [g] and its price [USD] of each request in one phase."""
    joules = rates.active_w * records[f"{name}_s"] + records[f"{name}_j"]
    if math.isnan(rates.pue):
        weighted: npt.NDArray[np.generic] = records[f"{name}_g"] + 1j * records[f"{name}_facility_j"]
    else:
        weighted = records[f"{name}_g"] if pool.engines[0].varying else joules * pool.weight.at(0.0)
    energy, grams = facility(pool, rates, joules, weighted)
    return energy, grams, electricity_usd(rates, energy, records[f"{name}_usd"])


def pool_totals(pool: LivePool, end_s: float) -> PoolTotals:
    """Totals of idle and boot, and identity; `close_totals` adds what the requests took."""
    spec, site, rates = pool.spec, pool.site, rates_of(pool)
    intensity = site.intensity
    meter, there = read(pool, rates, end_s), provision_of(pool, end_s)
    idle_s, boot_s, idle_j, boot_j = meter.idle_s, meter.boot_s, meter.idle.facility_j, meter.boot.facility_j
    whole, xpus = intensity.integral(0.0, end_s), spec.replicas * spec.xpus_per_replica
    totals = PoolTotals(
        spec.name, site.name, site.kind, spec.model.id, spec.xpu.id, spec.replicas, xpus,
        pool.blocks, spec.engine.block_size, pool.layout.full + pool.layout.windowed, rates.pue,
        provisioned_s=spec.xpus_per_engine * there.there_s,
        busy_s=meter.busy_s,
        idle_s=idle_s,
        boot_s=boot_s,
        facility_energy_j={"idle": idle_j, "boot": boot_j},
        carbon_operational_g={"idle": meter.idle.grams, "boot": meter.boot.grams},
        intensity_mean=whole / end_s if end_s > 0.0 else intensity.at(0.0),
        intensity_basis=intensity.basis,
        intensity_source=intensity.source,
        intensity_kind=kind_of(intensity),
        embodied_boundary=rates.boundary,
        cost_basis=rates.cost_basis,
        incomplete=rates.missing,
        quality=spec.served_quality,
        grounding=grounding(spec.xpu, spec.model),
        peak_flop_per_s=spec.xpu.peak_flops.get("bf16", spec.xpu.peak_flops.get("fp16")),
        weight_bytes=spec.replicas * spec.model.weight_bytes(spec.precision),
        kv_bytes=xpus * pool.blocks * kv_block_bytes(
            spec.model, spec.xpu, spec.tp, spec.kv_precision, spec.engine.block_size, spec.pp, spec.frees_windows
        ),
    )  # fmt: skip
    totals.intensity_by_basis = by_basis(intensity, totals.intensity_mean)
    totals.ownership = ownership(spec.cost)
    parts = [spec.embodied, *([spec.host.embodied] if spec.host else []), *spec.embodied_shares.values()]
    if all(part is not None for part in parts):
        totals.embodied_full_kg = xpus * sum(part.central_kg * part.share for part in parts if part is not None)
    if rates.embodied_g_per_s is not None:
        per_s = rates.embodied_g_per_s[1]
        kept_idle_s = idle_s + (there.kept_s - there.there_s)
        totals.carbon_embodied_g = {"idle": per_s * kept_idle_s, "boot": per_s * boot_s}
        totals.carbon_embodied_range_g = rates.embodied_g(meter.busy_s, there.kept_s)
    if spec.cost is not None:
        unused_s = there.paid_s - there.there_s  # what is billed beyond its use
        totals.billed_s = totals.provisioned_s + unused_s * spec.xpus_per_engine
        totals.cost_usd = {
            "idle": rates.usd_per_s * (idle_s + unused_s) + meter.idle.usd,
            "boot": rates.usd_per_s * boot_s + meter.boot.usd,
        }
    return totals


def close_totals(pool: LivePool, requests: dict[str, npt.NDArray[np.generic]], steps: int, end_s: float) -> PoolTotals:
    """Totals of a pool with every part, from its engines' meters (not from the requests' shares, which must match)."""
    if is_api(pool):
        return bought_totals(pool, requests, end_s)
    totals, rates, site = pool_totals(pool, end_s), rates_of(pool), pool.site
    meter = read(pool, rates, end_s)
    mine = requests["pool"] == pool.index
    wasted_share = requests["energy_wasted_j"][mine]
    wasted_j = float(wasted_share.sum())
    meter_s, meter_j, meter_g = meter.busy_s, meter.busy.facility_j, meter.busy.grams
    wasted_j = min(wasted_j + meter.lost.facility_j, meter_j)  # or rounding leaves a negative rest
    network_j = pool.link.energy_j() if pool.link is not None else 0.0
    network_j = float(requests["energy_network_j"][mine].sum()) if network_j is not None else 0.0
    waste_share = wasted_j / meter_j if meter_j > 0.0 else 0.0
    totals.facility_energy_j |= {"active": meter_j - wasted_j, "wasted": wasted_j, "network": network_j}
    totals.it_energy_j = _split(meter.busy.it_j, waste_share, network_j)
    totals.it_energy_j |= {"idle": meter.idle.it_j, "boot": meter.boot.it_j}
    if math.isnan(rates.pue) or pool.overhead_w:  # of the run, as it came out
        it_j = meter.busy.it_j + meter.idle.it_j + meter.boot.it_j
        totals.pue = (meter_j + meter.idle.facility_j + meter.boot.facility_j) / it_j if it_j > 0.0 else math.nan
    mean = totals.intensity_mean
    if pool.link is not None:
        mean = mean_intensity(pool.link.spec, {pool.site.name: pool.site}, end_s)
    network_g = network_j * mean / JOULES_PER_KWH
    totals.carbon_operational_g |= _split(meter_g, waste_share, network_g)
    totals.carbon_market_g = market_g(pool, totals)
    if site.water is not None:
        it_j, facility_j = (
            sum(joules for part, joules in energy.items() if part != "network")
            for energy in (totals.it_energy_j, totals.facility_energy_j)
        )
        totals.water_on_l, totals.water_off_l = site.water.litres(it_j, facility_j)
    if rates.embodied_g_per_s is not None and totals.carbon_embodied_g is not None:
        totals.carbon_embodied_g |= _split(
            (rates.embodied_g_per_s[1] + rates.embodied_g_per_busy_s[1]) * meter_s, waste_share, 0.0
        )
    if totals.cost_usd is not None:
        totals.cost_usd |= _split(rates.usd_per_s * meter_s + meter.busy.usd, waste_share, 0.0)
    totals.bytes_up = client_bytes(pool.link, requests["prompt_tokens"][mine], up=True)
    totals.bytes_down = client_bytes(pool.link, requests["output_tokens"][mine], up=False)
    done = mine & (requests["status"] == 0)
    tokens = [requests[name][done] for name in ("prompt_tokens", "cached_tokens", "output_tokens")]
    totals.useful_flop = useful_flop(pool.spec.model, tokens[0], tokens[1], tokens[2])
    totals.steps = steps
    totals.output_tokens = int(requests["output_tokens"][mine].sum())
    caches = [engine.prefix for engine in pool.engines if engine.prefix is not None]
    totals.loaded_tokens = sum(cache.loads * cache.unit for cache in caches)
    totals.preemptions = sum(engine.preemptions for engine in pool.engines)
    ranks = [rank for group in pool.groups for rank in group.ranks]
    totals.dummy_s, totals.waited_s = sum(rank.dummy_s for rank in ranks), sum(rank.waited_s for rank in ranks)
    return totals


def _split(busy: float, waste_share: float, network: float) -> dict[str, float]:
    return {"active": busy * (1.0 - waste_share), "wasted": busy * waste_share, "network": network}
