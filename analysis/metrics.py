"""summary.json: what users experienced, what the fleet drew, emitted and cost. Definitions: docs/metrics.md.

User-facing metrics cover the counted requests (arrived within [warmup, horizon)); energy, carbon and cost cover the
whole run. What is undefined or unknown is None, never 0 and never NaN.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis import attribution, economics, five_resources, footprint, gaps, sci, sites
from sim.qoe import SLOClass, goodput
from sim.results import STATUSES, Columns, GapSample, LinkTotals, PoolTotals, Result
from sim.units import JOULES_PER_KWH

PERCENTILES = (50, 90, 95, 99)
COMPLETED = STATUSES.index("completed")
#: A request whose token-timeline QoE is at least this counts as well served (Andes).
GOOD_TOKEN_QOE = 0.95

_WEAKER = ("given", "measured", "published", "derived", "assumed")  #: from the firmest ground to the weakest

Mask = npt.NDArray[np.bool_]
Section = dict[str, Any]


def summarize(result: Result, terms: economics.Terms | None = None) -> Section:
    """The whole of summary.json as plain dicts; everything outside ``performance`` depends on the inputs only.

    Args:
        result: a run.
        terms: on what terms it served, for the section `economics`.
    """
    pool, slo_class = result.requests["pool"], result.requests["slo_class"]
    everyone = np.ones(len(result), dtype=np.bool_)
    total = _scope(result, everyone, result.gaps.values(), footprint.of_all(result.pools, result.links))
    total |= {"answer_task": result.task, "window": _window(result), **_basis(result.pools), **_served(result)}
    total |= {name: sum(getattr(link, name) for link in result.links) for name in ("bytes_up", "bytes_down")}
    if result.sessions is not None:
        total["sessions"] = result.sessions
    by_pool = {
        totals.name: _scope(result, pool == index, _gaps(result, 0, index), footprint.of_pool(totals))
        | _about_pool(totals)
        for index, totals in enumerate(result.pools)
    }
    by_class = {}
    for index, slo in enumerate(result.slo_classes):
        mask = slo_class == index
        section = _scope(result, mask, _gaps(result, 1, index), footprint.of_requests(result, mask))
        by_class[slo.name] = section | {"slo": _bounds(slo)}
    summary = {
        "total": total,
        "by_pool": by_pool,
        "by_slo_class": by_class,
        "by_link": {link.name: _about_link(link) for link in result.links},
        "attribution": attribution.of(result),
        "sci": sci.of(total),
        "resources": five_resources.of(result, total["output_tokens"]),
        "performance": _performance(result),
    }
    if result.sites:
        summary["by_site"] = sites.of(result)
    if terms is not None and terms.given:
        summary["economics"] = economics.of(total, terms)
    cleaned: Section = plain(summary)
    return cleaned


def distribution(values: npt.NDArray[Any]) -> Section:
    """Mean and percentiles (numpy's linear ones) of the values that are numbers; None where there are none."""
    known = values[~np.isnan(values)]
    if not len(known):
        return {"mean": None} | {f"p{q}": None for q in PERCENTILES}
    points = np.percentile(known, PERCENTILES)
    return {"mean": float(known.mean())} | {f"p{q}": float(point) for q, point in zip(PERCENTILES, points)}


def plain(value: Any) -> Any:
    """`value` as JSON knows it: plain dicts, lists and Python scalars; NaN and infinity become None."""
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset, np.ndarray)):
        return [plain(item) for item in (sorted(value) if isinstance(value, (set, frozenset)) else value)]
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    if isinstance(value, (int, np.integer)):
        return int(value)
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value if value is None else str(value)


def _scope(result: Result, mask: Mask, samples: Iterable[GapSample], used: footprint.Footprint) -> Section:
    """All metrics of the requests in `mask` and of the footprint that belongs to them."""
    column = result.requests
    completed = mask & (column["status"] == COMPLETED)
    tokens_in = int(column["prompt_tokens"][completed].sum())
    tokens_out = int(column["output_tokens"][completed].sum())
    amounts = footprint.describe(used)
    section = {
        **_experience(result, mask, samples),
        "prompt_tokens": tokens_in,
        "output_tokens": tokens_out,
        "reasoning_tokens": int(column["reasoning_tokens"][completed].sum()),
        "throughput_rps": _ratio(int(completed.sum()), result.end_s),
        "throughput_tokens_per_s": _ratio(tokens_out, result.end_s),
        **amounts,
        **_intensities(amounts, int(completed.sum()), tokens_in, tokens_out),
        **economics.unit_costs(result, mask, amounts["cost_usd"], tokens_in, tokens_out),
    }
    return section | {"usd_per_slo_request": economics.usd_per_slo_request(section)}


def _experience(result: Result, mask: Mask, samples: Iterable[GapSample]) -> Section:
    """What the users of some requests saw. Latencies are of the counted requests that completed."""
    column = result.requests
    counted = mask & column["counted"]
    done = counted & (column["status"] == COMPLETED)
    met, qoe = column["slo_met"][counted], column["token_qoe"][counted]
    sample = gaps.merge(samples)
    itl = {"mean": gaps.mean(sample)} | {f"p{q}": v for q, v in zip(PERCENTILES, gaps.percentiles(sample, PERCENTILES))}
    by_status = np.bincount(column["status"][mask], minlength=len(STATUSES))
    return {
        "requests": {
            "arrived": int(mask.sum()),
            **dict(zip(STATUSES, by_status)),
            "counted": len(met),
            "slo_met": met.sum(),
        },
        **{name: distribution(column[name][done]) for name in ("ttft_s", "ttfv_s", "first_audio_s", "tpot_s")},
        "itl_s": itl,
        **{name: distribution(column[name][done]) for name in ("e2e_s", "queue_s")},
        "goodput_rps": goodput(met, result.observed_s),
        "slo_attainment": _ratio(int(met.sum()), len(met)),
        **_deadlines(column, counted, done),
        "token_qoe": _ratio(float(qoe.sum()), len(qoe)),
        "token_qoe_v2": _ratio(float(column["token_qoe_v2"][counted].sum()), len(met)),
        "token_qoe_share_095": _ratio(int((qoe >= GOOD_TOKEN_QOE).sum()), len(qoe)),
        "answer_quality": _ratio(float(column["quality"][done].sum()), int(done.sum())),
        **(_several_legs(column, mask) if result.legs is not None else {}),
    }


def _deadlines(column: Columns, counted: Mask, done: Mask) -> Section:
    """How many counted requests had a deadline, and the share of those that were done by then."""
    due = counted & ~np.isnan(column["deadline_s"])
    kept = due & done & (column["e2e_s"] <= column["deadline_s"])
    return {"deadlines": int(due.sum()), "deadlines_met": _ratio(int(kept.sum()), int(due.sum()))}


def _several_legs(column: Columns, mask: Mask) -> Section:
    """What a policy did besides serving once, for all requests in `mask`."""
    count = int(mask.sum())
    return {
        "legs_per_request": _ratio(float(column["legs"][mask].sum()), count),
        "escalated": _ratio(int((column["escalations"][mask] > 0).sum()), count),
        "tokens_wasted": column["tokens_wasted"][mask].sum(),
        "wasted_kwh": float(column["energy_wasted_j"][mask].sum()) / JOULES_PER_KWH,
    }


def _intensities(amounts: Section, requests: int, tokens_in: int, tokens_out: int) -> Section:
    """Money, carbon and energy per output token, per input + output token, and per completed request."""
    usd, kwh = amounts["cost_usd"], amounts["energy_kwh"]
    kg = amounts["carbon_kg"]
    grams = None if kg["total"] is None else kg["total"] * 1e3
    operational = None if kg["operational"] is None else kg["operational"] * 1e3
    joules = None if kwh is None else kwh * JOULES_PER_KWH
    litres = amounts["water_l"]["total"]
    mtok, mtok_both = tokens_out / 1e6, (tokens_in + tokens_out) / 1e6
    return {
        "usd_per_mtok": _ratio(usd, mtok),
        "usd_per_mtok_in_out": _ratio(usd, mtok_both),
        "usd_per_request": _ratio(usd, requests),
        "g_per_mtok": _ratio(grams, mtok),
        "g_per_mtok_in_out": _ratio(grams, mtok_both),
        "g_per_request": _ratio(grams, requests),
        "g_operational_per_mtok": _ratio(operational, mtok),
        "l_per_mtok": _ratio(litres, mtok),
        "l_per_request": _ratio(litres, requests),
        "j_per_token": _ratio(joules, tokens_out),
        "j_per_token_in_out": _ratio(joules, tokens_in + tokens_out),
        "j_per_request": _ratio(joules, requests),
    }


def _ratio(part: float | None, whole: float) -> float | None:
    """part / whole; None where either is missing: a zero denominator has no answer."""
    return None if part is None or not whole > 0 else part / whole


def _gaps(result: Result, axis: int, index: int) -> list[GapSample]:
    """Gap samples of one pool (axis 0) or one SLO class (axis 1)."""
    return [sample for key, sample in sorted(result.gaps.items()) if key[axis] == index]


def _window(result: Result) -> Section:
    return {
        "warmup_s": result.warmup_s,
        "horizon_s": result.horizon_s,
        "observed_s": result.observed_s,
        "end_s": result.end_s,
    }


def _basis(pools: list[PoolTotals]) -> Section:
    """What the totals rest on: bases and boundaries, and the electricity of each site."""
    return {
        "intensity_basis": sorted({pool.intensity_basis for pool in pools if pool.intensity_basis}),
        "intensity_kind": sorted({pool.intensity_kind for pool in pools if pool.intensity_kind}),
        "embodied_boundary": sorted({pool.embodied_boundary for pool in pools if pool.embodied_boundary}),
        "cost_basis": sorted({pool.cost_basis for pool in pools if pool.cost_basis}),
        "sites": {
            pool.site: {
                "kind": pool.site_kind,
                "pue": pool.pue,
                "intensity_g_per_kwh": pool.intensity_mean,
                "intensity_basis": pool.intensity_basis,
                "intensity_kind": pool.intensity_kind,
                "intensity_source": pool.intensity_source,
            }
            for pool in pools
        },
    }


def _about_pool(pool: PoolTotals) -> Section:
    """Who the pool is, and how busy it was."""
    names = ("site", "site_kind", "model", "xpu", "replicas", "xpus", "kv_blocks", "block_size", "kv_groups", "pue")
    used = ("busy_s", "idle_s", "boot_s", "dummy_s", "waited_s", "steps", "preemptions", "loaded_tokens")
    moved = ("bytes_up", "bytes_down")
    basis = (
        "ownership",
        "provider",
        "embodied_full_kg",
        "intensity_by_basis",
        "intensity_basis",
        "intensity_kind",
        "intensity_source",
        "embodied_boundary",
        "cost_basis",
    )
    return {
        **{name: getattr(pool, name) for name in names},
        "provisioned_xpu_s": pool.provisioned_s,
        "utilization": _ratio(pool.busy_s, pool.busy_s + pool.idle_s + pool.boot_s),
        **{name: getattr(pool, name) for name in (*used, *moved)},
        "intensity_g_per_kwh": pool.intensity_mean,
        **{name: getattr(pool, name) for name in basis},
        "quality": pool.quality,
        "grounding": pool.grounding,
    }


def _about_link(link: LinkTotals) -> Section:
    """What a link joins and carried."""
    return {
        "source": link.source,
        "target": link.target,
        "bytes_up": link.bytes_up,
        "bytes_down": link.bytes_down,
        "energy_kwh": None if link.energy_j is None else link.energy_j / JOULES_PER_KWH,
        "carbon_kg": None if link.carbon_g is None else link.carbon_g / 1e3,
        "intensity_g_per_kwh": link.intensity_mean,
        "down_s": link.down_s,
    }


def _served(result: Result) -> Section:
    """Quality of the answers given, by benchmark, and the weakest ground that any pool in use stands on.

    A benchmark counts only where the score of every pool that answered is known.
    """
    done = np.bincount(result.requests["pool"][result.requests["status"] == COMPLETED], minlength=len(result.pools))
    used = [(pool, int(count)) for pool, count in zip(result.pools, done) if count]
    tasks = set.intersection(*(set(pool.quality) for pool, _ in used)) if used else set()
    answers = sum(count for _, count in used)
    grounds: dict[str, list[str]] = {}
    for pool, _ in used:
        for what, kind in pool.grounding.items():
            grounds.setdefault(what, []).append(kind)
    return {
        "quality": {task: sum(pool.quality[task] * count for pool, count in used) / answers for task in sorted(tasks)},
        "grounding": {what: max(kinds, key=_WEAKER.index) for what, kinds in grounds.items()},
    }


def _bounds(slo: SLOClass) -> Section:
    names = ("ttft_s", "ttfv_s", "first_audio_s", "sentence_tokens", "tts_s", "tpot_s", "e2e_s", "expected_ttft_s",
             "digest_tokens_per_s")  # fmt: skip
    return {name: getattr(slo, name) for name in names}


def _performance(result: Result) -> Section:
    """Speed of the loop and peak memory of the process; the only part that differs between two equal runs."""
    return {
        "wall_s": result.wall_s,
        "requests_per_s": _ratio(len(result), result.wall_s),
        "peak_rss_mb": _peak_rss_mb(),
    }


def _peak_rss_mb() -> float | None:
    """Peak resident memory of this process [MB]; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # not a POSIX system
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6
