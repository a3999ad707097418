"""What `hybridfleet breakeven` compares: prices of APIs, and a replica that is rented or owned, measured by runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.breakeven import HOURS
from analysis.study import Input
from scenarios.build_api import price_of
from scenarios.entries import Catalogue
from scenarios.schema import list_of, number
from scenarios.size_inference import best_replica, goodput_rps, request_count, serve_replica
from scenarios.size_inputs import SizeInputs, place_of, scenario_file
from sim.accounting.api_price import ApiPrice
from sim.accounting.cost import CostRates
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.units import JOULES_PER_KWH, SECONDS_PER_HOUR, TOKENS_PER_MTOK

FloatArray = npt.NDArray[np.float64]
_NODE = "the catalogue's price of an xPU x {0.node_price_ratio:g} for its share of the server (node.price_ratio)"
_DAY_S = HOURS * SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class Api:
    """A price list for the workload's own mix of tokens.

    Attributes:
        name: id of its entry; serves: the model, as its entry says.
        usd_per_token: of prompt and output tokens together [USD]; basis: in words.
    """

    name: str
    serves: str
    usd_per_token: float
    basis: str


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica, whoever owns it.

    Attributes:
        pool: with `tp` and `pp` as chosen; prompt, output: mean tokens of a request.
        requests_per_s: highest rate at which it meets the SLO, a value a seed [1/s].
        rent_usd_per_hour, own_usd_per_hour: of all its xPUs, the latter without electricity [USD/h].
        idle_usd_per_hour: electricity of an owned one that idles [USD/h]; work_usd_per_token: beyond that [USD].
        rent_basis, own_basis: in words.
    """

    pool: Pool
    prompt: float
    output: float
    requests_per_s: tuple[float, ...]
    rent_usd_per_hour: float
    own_usd_per_hour: float
    idle_usd_per_hour: float
    work_usd_per_token: float
    rent_basis: str
    own_basis: str

    @property
    def tokens(self) -> float:
        """Mean prompt and output tokens of a request."""
        return self.prompt + self.output

    @property
    def tokens_per_day(self) -> tuple[float, float, float]:
        """Capacity: least, mean and most of the seeds [tokens/day]."""
        rates = self.requests_per_s
        low, mean, high = (_DAY_S * self.tokens * rate for rate in (min(rates), sum(rates) / len(rates), max(rates)))
        return low, mean, high


def measure(model: str, inputs: SizeInputs, rent: Mapping[str, Any], own: Mapping[str, Any], seeds: int) -> Replica:
    """Capacity and energy of a replica from runs, and its prices.

    Args:
        model: id; inputs: as of `hybridfleet size`.
        rent, own: fields of either cost in place of the catalogue's; own hardware comes with its share of a server.
        seeds: how many, from `inference.seed` on.

    Raises:
        InputError: a price is not known, or no number of xPUs holds the model or meets the SLO.
    """
    rented, site, _, purchase_usd = place_of(model, _costing(inputs, {"type": "rent", **rent}))
    if "purchase_usd_per_xpu" not in own and purchase_usd is not None:
        own = {"purchase_usd_per_xpu": inputs.node_price_ratio * purchase_usd, "source": _NODE.format(inputs), **own}
    owned = place_of(model, _costing(inputs, {"type": "owned", **own}))[0]
    rates = {}
    for name, pool, price in (("rent", rented, "usd_per_xpu_hour"), ("own", owned, "purchase_usd_per_xpu")):
        if pool.cost is None:
            raise InputError(f"{name}.{price}", None, f"a price: the entry of {pool.xpu.id} knows none")
        rates[name] = pool.cost.rates()
    each, closed, first, (prompt, output, _) = best_replica(rented, site, inputs)
    found = [first]
    for seed in range(1, seeds):
        asked = replace(inputs, inference=replace(inputs.inference, seed=inputs.inference.seed + seed))
        found.append(goodput_rps(each, site, closed, asked))
    result = serve_replica(each, site, first, request_count(closed, inputs), inputs)
    totals, done = result.pools[0], result.requests["status"] == 0
    energy = totals.facility_energy_j
    idle_w = energy["idle"] / totals.idle_s
    tokens = float((result.requests["prompt_tokens"] + result.requests["output_tokens"])[done].sum())
    above_j = (energy["active"] + energy["wasted"] - idle_w * totals.busy_s) / tokens
    usd_per_j = _electricity(rates["own"])
    hourly = each.xpus_per_replica * SECONDS_PER_HOUR
    return Replica(
        each,
        prompt,
        output,
        tuple(found),
        rates["rent"].usd_per_xpu_s * hourly,
        rates["own"].usd_per_xpu_s * hourly,
        idle_w * SECONDS_PER_HOUR * usd_per_j,
        above_j * usd_per_j,
        rates["rent"].basis,
        rates["own"].basis,
    )


def _costing(inputs: SizeInputs, cost: Mapping[str, Any]) -> SizeInputs:
    return replace(inputs, site={**inputs.site, "cost": dict(cost)})


def _electricity(rates: CostRates) -> float:
    """Price of a joule at the meter; of a tariff over time, the mean of its first day [USD/J]."""
    if rates.tariff is None:
        return rates.usd_per_facility_j
    return rates.tariff.integral(0.0, _DAY_S) / _DAY_S / JOULES_PER_KWH


def apis(names: Sequence[str], replica: Replica, cached: float, search: Sequence[Any]) -> list[Api]:
    """Price lists for the replica's mix of tokens.

    Args:
        names: of entries of conf/api; cached: share of prompt tokens charged as cached.
        replica: whose mean lengths count; search: further folders of the catalogue.

    Raises:
        InputError: there is no such entry, or it has no price.
    """
    found = []
    for name in names:
        entry = Catalogue(tuple(search)).entry("api", name, "api")
        price: ApiPrice | None = price_of(entry)
        if price is None:
            raise InputError("api", name, "an API with prices of prompt and output tokens")
        usd = price.usd(1.0, replica.prompt, cached * replica.prompt, replica.output) / replica.tokens
        serves = str(entry.values.get("model") or entry.values.get("serves", name))
        found.append(Api(name, serves, usd, price.rates().basis))
    return found


def profile_of(value: Any, search: Sequence[Any]) -> FloatArray:
    """Shares of the 24 hours of a day: ``flat``, ``diurnal`` (the curve of that workload) or 24 weights.

    Raises:
        InputError: it is none of these.
    """
    accepted = "flat | diurnal, or 24 weights of the hours"
    if value == "flat":
        return np.full(HOURS, 1.0 / HOURS)
    if value == "diurnal":
        value = scenario_file("workload", "diurnal", "profile", search)["arrivals"]["weights"]
    if isinstance(value, str):
        raise InputError("profile", value, accepted)
    weights = np.array(list_of(number(accepted, low=0.0))("profile", value))
    if len(weights) != HOURS or not weights.sum() > 0.0:
        raise InputError("profile", value, accepted)
    shares: FloatArray = weights / weights.sum()
    return shares


def inputs_of(replica: Replica, offers: Sequence[Api], spread: float) -> list[Input]:
    """Every number that a comparison starts from, with its source."""
    low, mean, high = replica.tokens_per_day
    what = f"{replica.pool.xpus_per_replica} x {replica.pool.xpu.id} with {replica.pool.model.id}"
    runs = f"highest rate within the SLO, {len(replica.requests_per_s)} seeds of simulated runs of {what}"
    energy = "simulated, at the highest rate: between idle and that, in proportion"
    return [
        Input("capacity", f"{mean:.4g} ({low:.4g} to {high:.4g})", "tokens/day", "derived", runs),
        Input("prompt", f"{replica.prompt:.4g}", "tokens", "derived", "mean of the workload"),
        Input("output", f"{replica.output:.4g}", "tokens", "derived", "mean of the workload"),
        Input("rent", f"{replica.rent_usd_per_hour:.4g}", "USD/h", "published", replica.rent_basis),
        Input("own", f"{replica.own_usd_per_hour:.4g}", "USD/h", "derived", replica.own_basis),
        Input("own, idle electricity", f"{replica.idle_usd_per_hour:.4g}", "USD/h", "derived", "simulated idle power"),
        Input(
            "own, electricity of work",
            f"{replica.work_usd_per_token * TOKENS_PER_MTOK:.4g}",
            "USD/Mtok",
            "derived",
            energy,
        ),
        Input("spread", f"{spread:g}", "share", "assumed", "of hardware prices, which are asked where and when one is"),
        *(
            Input(each.name, f"{each.usd_per_token * TOKENS_PER_MTOK:.4g}", "USD/Mtok", "published", each.basis)
            for each in offers
        ),
    ]
