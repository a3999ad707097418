"""The keys that catalogue entries may have: their units, and what a value must be."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sim.units import BYTES_PER_VALUE, GB, GIB

TASKS = ("mmlu", "gsm8k", "humaneval", "math500")  #: benchmarks whose scores a model's quality may have

Units = Mapping[str, float]  #: accepted units, each with its factor to the SI unit of the key

_COUNT: Units = {"count": 1.0}
_PARAMS: Units = {"parameters": 1.0}
_TOKENS: Units = {"tokens": 1.0}
_FLAG: Units = {"flag": 1.0}
_TEXT: Units = {"text": 1.0}
_BYTES: Units = {"bytes": 1.0, "MB": 1e6, "MiB": 2.0**20, "GB": GB, "GiB": GIB}
_RATIO: Units = {"ratio": 1.0}
_BYTES_PER_S: Units = {"bytes/s": 1.0, "GB/s": 1e9, "TB/s": 1e12}
_FLOPS: Units = {"FLOP/s": 1.0, "TFLOP/s": 1e12, "TOP/s": 1e12}
_SECONDS: Units = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_SHORT: Units = {**_SECONDS, "ns": 1e-9, "ps": 1e-12}
_WATTS: Units = {"W": 1.0}
_SHARE: Units = {"share of peak": 1.0}
#: curves: the unit of y counts, x is a number of what the unit says
_BY_HEADS: Units = {"(KV heads, alpha)": 1.0, "(query heads, alpha)": 1.0}
_BY_TOKENS: Units = {"(tokens, share)": 1.0}
_START: Units = {"(KV heads, us)": 1e-6}
_CURVES = (_BY_HEADS, _BY_TOKENS, _START)
_FORMATS: Units = {"formats": 1.0}

XPU_KEYS: Mapping[str, Units] = {
    **{f"peak_flops.{name}": _FLOPS for name in BYTES_PER_VALUE},
    "weight_only_formats": _FORMATS,
    "memory_bytes": _BYTES,
    "memory_reserved_bytes": _BYTES,
    "memory_type": _TEXT,
    "bandwidth_bytes_per_s": _BYTES_PER_S,
    "tdp_w": _WATTS,
    "idle_w": _WATTS,
    "standby_s": _SECONDS,
    "sleep_w": _WATTS,
    "die_mm2": {"mm2": 1.0},
    "node_nm": {"nm": 1.0},
    **{f"timing.{name}": _SHARE for name in ("compute_eff", "weight_eff", "kv_eff", "attn_eff")},
    **{
        f"timing.{name}": _SECONDS
        for name in ("step_overhead_s", "layer_overhead_s", "seq_overhead_s", "moe_overhead_s", "peer_overhead_s")
    },
    "timing.link_bytes_per_s": _BYTES_PER_S,
    "timing.link_latency_s": _SECONDS,
    **dict.fromkeys(("timing.skew_decode", "timing.skew_mixed"), _BY_HEADS),
    **dict.fromkeys(("timing.compute_curve", "timing.weight_curve"), _BY_TOKENS),
    "timing.attn_start": _START,
    **dict.fromkeys(("timing.gemm_tile", "timing.attn_pad"), _TOKENS),
    "timing.attn_tile": {"rows": 1.0},
    **{f"timing.{name}": _SHORT for name in ("idle_tile_s", "sort_s", "penalty_step_s", "penalty_token_s")},
    "timing.activation_passes": {"passes": 1.0},
    **dict.fromkeys(("timing.narrow_eff", "timing.moe_eff"), _RATIO),
    **{f"power.{name}": _WATTS for name in ("static_w", "compute_w", "memory_w", "active_w", "peak_w")},
    "rent_usd_per_hour": {"USD/h": 1.0},
    "purchase_usd": {"USD": 1.0},
    "embodied_published_kg": {"kg CO2e": 1.0},
    "embodied_published_boundary": _TEXT,
}
MODEL_KEYS: Mapping[str, Units] = {
    **dict.fromkeys(("layers", "heads", "kv_heads", "vocab", "window_layers", "window_kv_heads"), _COUNT),
    **dict.fromkeys(("linear_layers", "experts", "experts_per_token", "moe_layers"), _COUNT),
    **{name: {"values": 1.0} for name in ("hidden", "head_dim", "kv_lora_rank", "rope_dim", "window_head_dim")},
    **dict.fromkeys(("params", "params_active", "embedding_params", "expert_params"), _PARAMS),
    **dict.fromkeys(("max_context", "window"), _TOKENS),
    "attention": _TEXT,
    **dict.fromkeys(("sorted_sampling", "penalized_sampling", "sparse_attention"), _FLAG),
    "checkpoint_precision": _TEXT,
    "weight_sparsity": {"share": 1.0},
    "vision.params": _PARAMS,
    "vision.layers": _COUNT,
    "vision.hidden": {"values": 1.0},
    "vision.patches_per_token": {"patches": 1.0},
    **{f"quality.{task}": {"share": 1.0} for task in TASKS},
}
#: A serving stack replaces the overheads of the xPU it runs on.
STACK_KEYS: Mapping[str, Units] = dict.fromkeys(
    ("step_overhead_s", "layer_overhead_s", "seq_overhead_s", "peer_overhead_s"), _SECONDS
)
TEXT_KEYS = ("name", "hf_id", "aliases", "note")  #: plain text beside the constants

_WHOLE = (*_COUNT, "values", *_PARAMS, *_TOKENS)
_NULLABLE = (
    *("standby_s", "sleep_w"),
    *("memory_type", "die_mm2", "node_nm", "timing.link_bytes_per_s", "rent_usd_per_hour", "purchase_usd"),
    *("embodied_published_kg", "embodied_published_boundary", "checkpoint_precision"),
)


def convert(key: str, value: Any, unit: str, units: Units) -> Any:
    """Return the value of `key` in the SI unit of its key.

    Raises:
        TypeError: the value cannot be one of this key; the message says what can.
    """
    if value is None:
        if key not in _NULLABLE:
            raise TypeError("a value; null is for what may stay unknown")
        return None
    if units is _TEXT:
        if not isinstance(value, str):
            raise TypeError("text")
        return value
    if units is _FLAG:
        if not isinstance(value, bool):
            raise TypeError("true or false")
        return value
    if units is _FORMATS:
        if not isinstance(value, Sequence) or any(name not in BYTES_PER_VALUE for name in value):
            raise TypeError(f"a list of formats out of {' | '.join(BYTES_PER_VALUE)}")
        return tuple(value)
    if units in _CURVES:
        if not isinstance(value, Sequence) or not all(_is_pair(item) for item in value):
            raise TypeError(f"a list of pairs {' or '.join(units).replace('(', '[').replace(')', ']')}")
        return tuple((float(x), float(y) * units[unit]) for x, y in value)
    if not _is_number(value):
        raise TypeError("a finite number")
    if unit in _WHOLE:
        if value != int(value):
            raise TypeError("a whole number")
        return int(value)
    return float(value) * units[unit]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(item: object) -> bool:
    return isinstance(item, Sequence) and len(item) == 2 and all(_is_number(number) for number in item)
