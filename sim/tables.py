"""The tables of a `Result` from what the observer kept."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from sim import qoe
from sim.accounting.provision import mean_there
from sim.accounting.purchased import is_api
from sim.accounting.site_power import facility_power, means
from sim.fleet.pool import LivePool
from sim.observer import COMPLETED, Observer
from sim.quality import Answers
from sim.results import REQUEST_COLUMNS, SPAN_COLUMNS, TIMELINE_COLUMNS, Columns
from sim.speech import Speech
from sim.timeline import Series, align
from sim.units import JOULES_PER_KWH
from sim.visible import Hidden

FloatArray = npt.NDArray[np.float64]


def request_table(
    records: dict[str, FloatArray],
    slo_classes: tuple[qoe.SLOClass, ...],
    warmup_s: float,
    horizon_s: float,
    quality: FloatArray,
    hidden: Hidden,
    speech: Speech,
) -> Columns:
    """Identity, times, QoE and quality of every request; accounting comes from `sim.accounting.ledger`."""
    done = records["status"] == COMPLETED
    down, arrival = records["downlink_s"], records["arrival_s"]
    nan = np.where(done, 0.0, np.nan)  # times of a request that did not complete do not apply
    output = records["output_tokens"]
    # a request that comes within the engine's tolerance after a step boundary is scheduled at that boundary
    scheduled = np.maximum(records["scheduled_s"], records["queued_s"])
    first_delay, last_delay = records["first_delay_s"], records["last_delay_s"]
    ttft = records["first_s"] - arrival + first_delay + down + nan
    e2e = records["last_s"] - arrival + last_delay + down + nan
    decode = records["last_s"] - records["first_s"] + nan
    tpot = np.full_like(decode, np.nan)
    np.divide(decode + (last_delay - first_delay), output - 1.0, out=tpot, where=output > 1)
    reasoning, ttfv = hidden.columns(ttft)
    slo = records["slo_class"].astype(np.int64)
    deadline = records["deadline_s"]
    columns: Columns = {
        **{name: records[name] for name in ("request_id", "arrival_s", "status", "slo_class", "pool", "replica")},
        "counted": (arrival >= warmup_s) & (arrival < horizon_s),
        "tenant": records["tenant"],
        "prompt_tokens": records["prompt_tokens"],
        "context_tokens": np.zeros(len(done)),
        "cached_tokens": records["cached_tokens"],
        "output_tokens": output,
        "reasoning_tokens": reasoning,
        "ttft_s": ttft,
        "ttfv_s": ttfv,
        "first_audio_s": speech.column(slo) + nan,
        "tpot_s": tpot,
        "e2e_s": e2e,
        "uplink_s": records["queued_s"] - arrival + nan,
        "retrieval_s": nan,
        "queue_s": scheduled - records["queued_s"] + nan,
        "prefill_s": records["first_s"] - scheduled + nan,
        "decode_s": decode,
        "downlink_s": last_delay + down + nan,
        "itl_max_s": records["itl_max_s"] + nan,
        "preemptions": records["preemptions"],
        "token_qoe": records["token_qoe"],
        "token_qoe_v2": records["token_qoe_v2"],
        "quality": quality,
        "legs": records["pool"] >= 0,
        "escalations": np.zeros(len(done)),
        "tokens_wasted": np.zeros(len(done)),
        "deadline_s": np.where(np.isinf(deadline), np.nan, deadline),
    }
    columns["slo_met"] = done & qoe.all_met(columns, slo_classes)
    return typed(columns, REQUEST_COLUMNS)


def answer_quality(records: dict[str, FloatArray], pools: list[LivePool], answers: Answers) -> FloatArray:
    """How correct the answer of every request is: that of the pool which completed it."""
    quality = np.full(len(records["status"]), np.nan)
    for pool in pools:
        mine = np.flatnonzero((records["pool"] == pool.index) & (records["status"] == COMPLETED))
        quality[mine] = answers.answered(mine, pool.name)  # requests are in the order of their numbers, from 0
    return quality


def timeline_table(observer: Observer, pools: list[LivePool], end_s: float) -> Columns:
    """What every pool did in every time bin."""
    every = [series for pool in observer.series for series in pool.all()]
    width = align(every, end_s)
    bins = max(1, int(np.ceil(end_s / width - 1e-9)))
    start = np.arange(bins) * width
    lasted = np.minimum(start + width, end_s) - start
    length = lasted if end_s > 0.0 else np.full(bins, width)  # a run of no duration still has a bin, and draws nothing
    parts = []
    for pool, series in zip(pools, observer.series):

        def mean(of: Series) -> FloatArray:
            level: FloatArray = of.per_bin(bins)[0] / length
            return level

        level, points = series.tokens.per_bin(bins)
        power = facility_power(pool, series.busy, series.dyn_w, start, length)
        intensity = means(pool.site.intensity, start, length)
        capacity = pool.replicas * pool.blocks * pool.spec.engine.block_size or math.nan  # an API has none
        parts.append(
            {
                "pool": np.full(bins, pool.index),
                "t_s": start,
                "bin_s": length,
                "power_w": power,
                "energy_j": power * lasted,
                "intensity_g_per_kwh": intensity,
                "carbon_g": power * lasted * intensity / JOULES_PER_KWH,
                "queue": mean(series.queue),
                "running": mean(series.running),
                "kv_use": mean(series.kv_tokens) / capacity,
                "replicas": np.full(bins, _there(pool, start, length)),
                "arrivals": series.arrivals.per_bin(bins)[1],
                "output_tokens": level + points,
            }
        )
    return typed({name: np.concatenate([part[name] for part in parts]) for name in TIMELINE_COLUMNS}, TIMELINE_COLUMNS)


def _there(pool: LivePool, start_s: Any, length_s: Any) -> Any:
    """Replicas provisioned, by bin or always."""
    if is_api(pool):
        return 0.0
    return float(pool.spec.replicas) if pool.spec.plan is None else mean_there(pool, start_s, length_s)[0]


def span_table(observer: Observer) -> Columns | None:
    """Every span of every replica, or None if they were not kept."""
    if observer.spans is None:
        return None
    rows = np.concatenate(observer.spans) if observer.spans else np.empty((0, 11))
    names = ("pool", "replica", "t0_s", "steps", "a_s", "b_s", "decoding", "prefill_tokens", "context_tokens")
    columns: Columns = {name: rows[:, i] for i, name in enumerate(names)}
    columns["dyn_j"] = rows[:, 10]
    return typed(columns, SPAN_COLUMNS)


def typed(columns: Columns, schema: dict[str, tuple[str, str, str]], copy: bool = True) -> Columns:
    """Columns in the order and with the types of their schema, as far as they are there; without `copy`, those that
    have the type already are shared."""
    there = ((name, dtype) for name, (dtype, _, _) in schema.items() if name in columns)
    return {name: columns[name].astype(dtype, copy=copy) for name, dtype in there}
