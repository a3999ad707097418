"""Alternatives side by side over common seeds: metrics of each run, paired differences, and what is a tie.

Unknown is None: shown, counted, never ranked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from analysis.metrics import COMPLETED
from analysis.stats import Interval, interval, paired
from sim.results import Result
from sim.units import JOULES_PER_KWH

Row = dict[str, float | None]
_MEMORY = ("weights [GB]", "KV cache there is [GB]", "KV cache at its peak [GB]")
Verdict = Literal["reference", "tie", "better", "worse", "unknown"]


@dataclass(frozen=True, slots=True)
class Metric:
    """One column of a comparison.

    Attributes:
        key: its name in a row.
        label: heading, with the unit.
        best: whether the highest or the lowest is best.
        scale: what values are multiplied with to be shown.
        relative: whether differences are shown as shares of the reference.
    """

    key: str
    label: str
    best: Literal["high", "low"]
    scale: float = 1.0
    relative: bool = False


@dataclass(frozen=True, slots=True)
class Cell:
    """One metric of one alternative.

    Attributes:
        known: of how many seeds it is known.
        mean: over those; None where it is known of none.
        difference: paired difference to the reference; None for itself, and unless both are known of all seeds.
        verdict: what the difference says; ``tie`` where its interval holds zero.
    """

    known: int
    mean: Interval | None
    difference: Interval | None
    verdict: Verdict


@dataclass(frozen=True, slots=True)
class Column:
    """One metric of all alternatives.

    Attributes:
        metric: which.
        reference: the alternative that the others are compared with; None where there is none.
        cells: by alternative.
    """

    metric: Metric
    reference: str | None
    cells: Mapping[str, Cell]


def measures(result: Result, summary: Mapping[str, Any]) -> Row:
    """What one run amounts to, in the terms of a comparison; per 1,000 completed requests where a key says so."""
    total = summary["total"]
    column = result.requests
    done = column["status"] == COMPLETED
    answers = column["quality"][done & column["counted"]]
    completed = int(done.sum())
    active = {name: _active(total["parts"][name]) for name in ("cost_usd", "carbon_operational_kg")}
    embodied = _active(total["parts"]["carbon_embodied_kg"])
    grams = _sum(active["carbon_operational_kg"], embodied)
    kwh = total["energy_kwh"]
    wasted = (total["parts"]["energy_kwh"] or {}).get("wasted")
    compute, memory = summary["resources"]["compute"], summary["resources"]["memory"]
    weights, there, peak = (memory[name]["absolute"] for name in _MEMORY)
    return {
        "requests": float(len(result)),
        "completed_share": _per(completed, len(result)),
        "slo_attainment": total["slo_attainment"],
        "token_qoe": total["token_qoe"],
        "ttft_mean_s": total["ttft_s"]["mean"],
        "tpot_mean_s": total["tpot_s"]["mean"],
        "token_qoe_share_095": total["token_qoe_share_095"],
        "ttft_p50_s": total["ttft_s"]["p50"],
        "ttft_p99_s": total["ttft_s"]["p99"],
        "tpot_p50_s": total["tpot_s"]["p50"],
        "tpot_p99_s": total["tpot_s"]["p99"],
        "e2e_p50_s": total["e2e_s"]["p50"],
        "answer_quality": total["answer_quality"],
        "quality_known_share": _per(float((~np.isnan(answers)).sum()), len(answers)),
        "usd_per_1000_requests": _per(total["cost_usd"], completed / 1e3),
        "usd_active_per_1000_requests": _per(active["cost_usd"], completed / 1e3),
        "g_per_1000_requests": _per(_times(total["carbon_kg"]["total"], 1e3), completed / 1e3),
        "g_active_per_1000_requests": _per(_times(grams, 1e3), completed / 1e3),
        "wh_per_1000_requests": _per(_times(kwh, 1e3), completed / 1e3),
        "gflop_per_output_token": compute["useful work [TFLOP]"]["per_1000_tokens"],
        # contexts that share a prefix count it each, so that their sum can be more than there is
        "memory_gb": weights + min(there, peak),
        "j_per_output_token": total["j_per_token"],
        "network_mb_per_1000_requests": _per((total["bytes_up"] + total["bytes_down"]) / 1e6, completed / 1e3),
        "wh_active_per_1000_requests": _per(_times(_active(total["parts"]["energy_kwh"]), 1e3), completed / 1e3),
        "wasted_energy_share": None if kwh is None or wasted is None else _per(wasted, kwh),
        "escalated_share": _per(float((column["escalations"] > 0).sum()), len(result)),
        "tokens_wasted_per_1000_requests": _per(float(column["tokens_wasted"].sum()), completed / 1e3),
        "mean_w": _per(_times(kwh, JOULES_PER_KWH), result.end_s),
    }


def compare(rows: Mapping[str, Sequence[Row]], metric: Metric, baseline: str | None = None) -> Column:
    """One metric of all alternatives, each against the best of them or against `baseline`.

    Args:
        rows: by alternative, one row a seed, the same seeds in the same order.
        metric: which.
        baseline: the alternative to compare with; None takes the one with the best mean.
    """
    values = {name: [row[metric.key] for row in many] for name, many in rows.items()}
    whole = {name: [v for v in many if v is not None] for name, many in values.items()}
    ranked = {name: interval(many) for name, many in whole.items() if many and len(many) == len(values[name])}
    if baseline is not None:
        reference = baseline if baseline in ranked else None
    elif ranked:
        # Of equals the first: the order of the alternatives does not depend on the results.
        sign = 1.0 if metric.best == "high" else -1.0
        reference = max(ranked, key=lambda name: sign * ranked[name].mean)
    else:
        reference = None
    cells = {}
    for name, many in whole.items():
        mean = interval(many) if many else None
        if name not in ranked or reference is None:
            cells[name] = Cell(len(many), mean, None, "unknown")
        elif name == reference:
            cells[name] = Cell(len(many), mean, None, "reference")
        else:
            difference = paired(many, whole[reference])
            cells[name] = Cell(len(many), mean, difference, _verdict(difference, metric))
    return Column(metric, reference, cells)


def describe(column: Column) -> dict[str, Any]:
    """A column as JSON knows it: by alternative, the mean, the difference and the verdict, with their intervals."""
    return {
        "reference": column.reference,
        "best": column.metric.best,
        "alternatives": {
            name: {
                "seeds_known": cell.known,
                "mean": None if cell.mean is None else _ends(cell.mean),
                "difference": None if cell.difference is None else _ends(cell.difference),
                "verdict": cell.verdict,
            }
            for name, cell in column.cells.items()
        },
    }


def flat(columns: Sequence[Column]) -> list[dict[str, Any]]:
    """One row an alternative and metric, for CSV."""
    return [
        {
            "alternative": name,
            "metric": column.metric.key,
            "seeds_known": cell.known,
            **_named("mean", cell.mean),
            "reference": column.reference,
            **_named("difference", cell.difference),
            "verdict": cell.verdict,
        }
        for column in columns
        for name, cell in column.cells.items()
    ]


def _verdict(difference: Interval, metric: Metric) -> Verdict:
    if difference.holds_zero is None:
        return "unknown"
    if difference.holds_zero:
        return "tie"
    return "better" if (difference.mean > 0.0) == (metric.best == "high") else "worse"


def _ends(of: Interval) -> dict[str, float | None]:
    return {"value": of.mean, "low": of.low, "high": of.high}


def _named(name: str, of: Interval | None) -> dict[str, float | None]:
    if of is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    return {name: of.mean, f"{name}_low": of.low, f"{name}_high": of.high}


def _active(parts: Mapping[str, float | None] | None) -> float | None:
    """What work took, lost work and the network included; not what waiting or booting took."""
    if parts is None:
        return None
    return sum(value for name, value in parts.items() if name not in ("idle", "boot") and value is not None)


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other


def _times(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def _per(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole > 0.0 else part / whole
