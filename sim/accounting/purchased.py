"""The books of an API pool: dollars by its price list; energy and carbon by an estimate, else unknown, and never 0.

What was sent is paid for, whether it completed or not. An API that nobody used has cost nothing and drawn nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import numpy.typing as npt

from sim.accounting.inventory import by_basis
from sim.accounting.links import client_bytes, mean_intensity, network_j
from sim.accounting.signal import Signal, Unknown, kind_of
from sim.results import PoolTotals
from sim.units import JOULES_PER_KWH

if TYPE_CHECKING:
    from sim.fleet.live_api import LiveApi
    from sim.fleet.pool import LivePool

FloatArray = npt.NDArray[np.float64]


def is_api(pool: LivePool) -> TypeGuard[LiveApi]:
    """Whether a pool is bought by the token."""
    return hasattr(pool, "provider")


def bought_columns(records: dict[str, FloatArray], pool: LiveApi) -> dict[str, FloatArray]:
    """Accounting columns of the requests of one API pool: see `sim.accounting.ledger.request_columns`."""
    sent, share = records["scheduled_s"] >= 0.0, records["useful"]
    prompt, cached = (np.where(sent, records[name], 0.0) for name in ("prompt_tokens", "cached_tokens"))
    output, none = records["output_tokens"], np.zeros(len(sent))
    unknown = np.where(sent, math.nan, 0.0)
    price, guess = pool.api.price, pool.api.energy
    usd = unknown if price is None else price.usd(sent.astype(np.float64), prompt, cached, output)
    read_j = unknown if guess is None else guess.j_per_token_in * prompt
    joules = unknown if guess is None else read_j + guess.j_per_token_out * output
    mean = _means(pool.site.intensity, records["scheduled_s"], records["last_s"], sent)
    grams = joules * mean / JOULES_PER_KWH
    energy = part_of(share, joules)
    pool.lost_usd, pool.lost_g = (float(part_of(1.0 - share, each).sum()) for each in (usd, grams))
    return {
        "xpu_s": none,
        "energy_j": energy,
        "energy_prefill_j": part_of(share, read_j),
        "energy_wasted_j": part_of(1.0 - share, joules),
        "energy_network_j": network_j(pool.link, records),
        "energy_provisioned_j": energy,
        "carbon_operational_g": grams,
        "carbon_operational_provisioned_g": grams,
        "carbon_embodied_g": unknown,
        "carbon_embodied_provisioned_g": unknown,
        "cost_usd": usd,
        "cost_prefill_usd": unknown if price is None else price.usd(sent.astype(np.float64), prompt, cached, none),
        "cost_provisioned_usd": usd,
    }


def part_of(share: FloatArray, amount: FloatArray) -> FloatArray:
    """A share of an amount; none of an unknown one is none."""
    return np.where(share > 0.0, share * amount, 0.0)


def _means(signal: Signal, start_s: FloatArray, end_s: FloatArray, sent: npt.NDArray[np.bool_]) -> FloatArray:
    """Mean intensity while each request was served [g/kWh]; 0 for those that were not sent."""
    means = np.zeros(len(sent))
    if math.isinf(signal.next_change(0.0)):
        means[sent] = signal.at(0.0)
        return means
    for i in np.flatnonzero(sent):
        start, end = float(start_s[i]), float(end_s[i])
        means[i] = signal.integral(start, end) / (end - start) if end > start else signal.at(start)
    return means


def bought_totals(pool: LiveApi, requests: dict[str, npt.NDArray[Any]], end_s: float) -> PoolTotals:
    """Totals of an API pool, once `bought_columns` has told what was lost: money and energy by its own invoice.

    The requests' shares have to match it.
    """
    spec, site, bill = pool.api, pool.site, pool.provider.invoice
    mine, price, guess = requests["pool"] == pool.index, spec.price, spec.energy
    intensity, used = site.intensity, bill.requests > 0
    usd = None if price is None else price.usd(bill.requests, bill.prompt, bill.cached, bill.output)
    joules = math.nan if used else 0.0
    if guess is not None:
        joules = guess.j_per_token_in * bill.prompt + guess.j_per_token_out * bill.output
    wasted_j = float(requests["energy_wasted_j"][mine].sum())
    network_j = float(requests["energy_network_j"][mine].sum())
    grams = float(requests["carbon_operational_g"][mine].sum())
    idle = {"idle": 0.0, "boot": 0.0}
    mean = intensity.integral(0.0, end_s) / end_s if end_s > 0.0 else intensity.at(0.0)
    carbon_mean = mean if pool.link is None else mean_intensity(pool.link.spec, {site.name: site}, end_s)
    facility = idle | {"active": joules - wasted_j, "wasted": wasted_j, "network": network_j}
    totals = PoolTotals(
        spec.name, site.name, site.kind, spec.model_id, "", 0, 0, 0, 1, 1, math.nan,
        provider=spec.provider,
        facility_energy_j=facility,
        it_energy_j=dict(facility),  # an estimate does not tell the two apart
        carbon_operational_g=idle | {
            "active": grams - pool.lost_g, "wasted": pool.lost_g,
            "network": network_j * carbon_mean / JOULES_PER_KWH if network_j else 0.0,
        },
        carbon_embodied_g=None if used else idle | {"active": 0.0},
        carbon_embodied_range_g=None if used else (0.0, 0.0, 0.0),
        intensity_mean=mean,
        intensity_basis=intensity.basis,
        intensity_source=intensity.source,
        intensity_kind=kind_of(intensity),
        intensity_by_basis=by_basis(intensity, mean),
        ownership="bought",
        embodied_boundary="",
        cost_basis="" if price is None else price.rates().basis,
        incomplete=tuple(_missing(pool, used)),
        quality=spec.served_quality,
        grounding={"timing": spec.latency_kind},
        output_tokens=bill.output,
        bytes_up=client_bytes(pool.link, requests["prompt_tokens"][mine], up=True),
        bytes_down=client_bytes(pool.link, requests["output_tokens"][mine], up=False),
    )  # fmt: skip
    totals.water_on_l = totals.water_off_l = None if used else 0.0
    totals.carbon_market_g = None if used else 0.0
    if usd is not None:
        totals.cost_usd = idle | {"active": usd - pool.lost_usd, "wasted": pool.lost_usd, "network": 0.0}
    return totals


def _missing(pool: LiveApi, used: bool) -> list[str]:
    """What is unknown of an API that was used, in words."""
    spec, missing = pool.api, []
    if used and spec.price is None:
        missing.append("cost is unknown")
    if used:
        missing.append(f"embodied carbon and water of {spec.provider} are not disclosed")
    if used and spec.energy is None:
        missing.append(f"energy of {spec.provider} is not disclosed")
    elif used and isinstance(pool.site.intensity, Unknown):
        missing.append("grid carbon intensity is unknown")
    if pool.link is not None and pool.link.energy_j() is None:
        missing.append("network energy is unknown and left out")
    return missing
