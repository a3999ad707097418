"""What a run's tokens cost and earn: unit costs by phase, and revenue, margin, carbon price and penalties by terms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sim.results import Result
from sim.units import TOKENS_PER_MTOK

KG_PER_TONNE = 1e3


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a fleet serves; None for what does not apply.

    Attributes:
        usd_per_mtok_in, usd_per_mtok_out, usd_per_request: what users pay for completed requests [USD].
        carbon_usd_per_t: price of emissions, operational and embodied [USD/t CO2e]; carbon_in_cost: whether they count
            as a cost, or stand beside it.
        slo_violation_usd: owed for every request that missed its SLO [USD].
    """

    usd_per_mtok_in: float | None = None
    usd_per_mtok_out: float | None = None
    usd_per_request: float | None = None
    carbon_usd_per_t: float | None = None
    carbon_in_cost: bool = False
    slo_violation_usd: float | None = None

    @property
    def sells(self) -> bool:
        """Whether users pay anything."""
        return any(each is not None for each in (self.usd_per_mtok_in, self.usd_per_mtok_out, self.usd_per_request))

    @property
    def given(self) -> bool:
        """Whether there is anything to reckon."""
        return self.sells or self.carbon_usd_per_t is not None or self.slo_violation_usd is not None


def unit_costs(
    result: Result, mask: npt.NDArray[np.bool_], usd: float | None, tokens_in: int, tokens_out: int
) -> dict[str, float | None]:
    """Cost of a prompt and of an output token [USD per million]; they give the whole cost back.

    The whole cost (idle and boot as well) is split as requests' own cost is between the computing of prompts and the
    decoding of answers. None where there are no such tokens, or the cost is unknown.

    Args:
        result: the run; mask: whose requests.
        usd: their cost; tokens_in, tokens_out: tokens of those that completed.
    """
    column = result.requests
    own = float(column["cost_usd"][mask].sum())
    if usd is None or not own > 0.0:
        return {"usd_per_mtok_in": None, "usd_per_mtok_out": None}
    share = float(column["cost_prefill_usd"][mask].sum()) / own
    return {
        "usd_per_mtok_in": _per(usd * share, tokens_in / TOKENS_PER_MTOK),
        "usd_per_mtok_out": _per(usd * (1.0 - share), tokens_out / TOKENS_PER_MTOK),
    }


def usd_per_slo_request(scope: Mapping[str, Any]) -> float | None:
    """Cost of a request that met its SLO, those counted standing for all [USD]; of any scope of a summary."""
    met = scope["slo_attainment"]
    return None if met is None else _per(scope["cost_usd"], met * scope["requests"]["arrived"])


def of(total: Mapping[str, Any], terms: Terms) -> dict[str, Any]:
    """The summary's section `economics`: what was earned and owed; None is unknown, or not on the terms.

    Args:
        total: the summary's section `total`.
        terms: by which it is reckoned.
    """
    done, attainment = total["requests"]["completed"], total["slo_attainment"]
    revenue = None
    if terms.sells:
        tokens = (terms.usd_per_mtok_in or 0.0) * total["prompt_tokens"]
        tokens += (terms.usd_per_mtok_out or 0.0) * total["output_tokens"]
        revenue = tokens / TOKENS_PER_MTOK + (terms.usd_per_request or 0.0) * done
    missed = None if attainment is None else (1.0 - attainment) * total["requests"]["arrived"]
    penalties = _times(missed, terms.slo_violation_usd)
    carbon = _times(total["carbon_kg"]["total"], _over(terms.carbon_usd_per_t, KG_PER_TONNE))
    owed = [total["cost_usd"]]
    owed += [penalties] if terms.slo_violation_usd is not None else []
    owed += [carbon] if terms.carbon_usd_per_t is not None and terms.carbon_in_cost else []
    costs = None if None in owed else sum(owed)
    margin = None if revenue is None or costs is None else revenue - costs
    return {
        "terms": asdict(terms),
        "revenue_usd": revenue,
        "cost_usd": total["cost_usd"],
        "slo_violations": missed,
        "slo_violations_usd": penalties,
        "carbon_usd": carbon,
        "costs_usd": costs,
        "margin_usd": margin,
        "margin_share": _per(margin, revenue or 0.0),
        "price_factor_without_margin": _per(costs, revenue or 0.0),
    }


def lines(summary: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What the section says, for people: name and value."""
    found = summary.get("economics")
    if found is None:
        return
    names = {
        "revenue_usd": "revenue [USD]",
        "cost_usd": "cost of the fleet [USD]",
        "slo_violations_usd": "owed for missed SLOs [USD]",
        "carbon_usd": "carbon at its price [USD]" + ("" if found["terms"]["carbon_in_cost"] else ", not in the margin"),
        "margin_usd": "margin [USD]",
        "margin_share": "margin, of revenue",
        "price_factor_without_margin": "prices at which nothing is left, of those given",
    }
    asked = {
        "slo_violations_usd": found["terms"]["slo_violation_usd"] is not None,
        "carbon_usd": found["terms"]["carbon_usd_per_t"] is not None,
    }
    sells = any(found["terms"][key] is not None for key in ("usd_per_mtok_in", "usd_per_mtok_out", "usd_per_request"))
    for key, name in names.items():
        if asked.get(key, sells or key == "cost_usd"):
            yield name, "unknown" if found[key] is None else f"{found[key]:.4g}"


def _per(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole > 0.0 else part / whole


def _times(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one * other


def _over(value: float | None, by: float) -> float | None:
    return None if value is None else value / by
