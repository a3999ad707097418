"""What fits: weights, KV blocks and number formats of a pool on its accelerators."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from sim.errors import InputError
from sim.hardware.deployment import Deployment
from sim.hardware.expert_group import without_experts
from sim.hardware.kv_layout import KvLayout, group_bytes_per_token, layout_of
from sim.hardware.model import Model
from sim.hardware.xpu import XPU
from sim.units import BYTES_PER_VALUE, GB

if TYPE_CHECKING:
    from sim.fleet.spec import Pool

_MIN_BLOCKS = 2  #: one that the engine keeps for itself, and one to hold a sequence


def weight_bytes_per_xpu(model: Model, tp: int, precision: str, pp: int = 1, dp: int = 1) -> float:
    """Weights that each of `tp` xPUs holds [bytes]; of `pp` stages the fullest, with one of the vocabulary's tables.

    With `dp` ranks, its part of all but the routed experts, and as many of those as the fullest of all xPUs keeps.
    """
    whole = model.weight_bytes(precision)
    if dp > 1:
        own = without_experts(model).weight_bytes(precision)
        return own / tp + (whole - own) * -(-model.experts // (dp * tp)) / model.experts
    if pp == 1:
        return whole / tp
    in_16_bit = max(BYTES_PER_VALUE[precision], 2.0)
    layers = whole - (model.embedding_params + model.head_params) * in_16_bit
    share = -(-model.layers // pp) / model.layers
    return (layers * share + model.head_params * in_16_bit) / tp


def kv_block_bytes(
    model: Model,
    xpu: XPU,
    tp: int,
    kv_precision: str | None,
    block_size: int,
    pp: int = 1,
    windows: bool = False,
) -> float:
    """What one KV block takes on each xPU [bytes]: `block_size` tokens over all layers.

    With `windows`, layers with a window give back what fell out of it, and a block is one of a single group of layers
    (`sim.hardware.kv_layout`).
    """
    deployment = Deployment(model, xpu, tp, kv_precision=kv_precision or "bf16", pp=pp)
    if windows:
        return block_size * group_bytes_per_token(model, tp, deployment.kv_precision) * deployment.stage_share
    return block_size * deployment.kv_bytes_per_token_and_xpu


def kv_layout(pool: Pool, prefixes: bool = False) -> KvLayout:
    """Which KV blocks a sequence of a pool holds; where prompts share `prefixes`, windows give none back."""
    engine = pool.engine
    if not pool.frees_windows or prefixes:
        return KvLayout(engine.block_size)
    return layout_of(pool.model, pool.tp, engine.block_size, engine.max_num_batched_tokens * pool.pp)


def kv_blocks(
    model: Model,
    xpu: XPU,
    tp: int = 1,
    precision: str = "bf16",
    kv_precision: str | None = None,
    block_size: int = 16,
    gpu_memory_utilization: float = 0.9,
    pp: int = 1,
    draft: Model | None = None,
    windows: bool = False,
    dp: int = 1,
) -> int:
    """KV blocks that fit beside the weights: floor((util * memory - weights / tp - reserved) / bytes of a block).

    Args:
        model, xpu, tp: what is served on how many of which xPUs.
        pp: stages of so many xPUs each; draft: a model, or layer, that drafts; dp: ranks that share experts.
        precision, kv_precision: number formats of weights and KV cache; None is 16 bit.
        block_size: tokens a block.
        gpu_memory_utilization: share of the memory that the engine may use.
        windows: see `kv_block_bytes`.

    Returns:
        The number of blocks, never negative.
    """
    free = gpu_memory_utilization * xpu.memory_bytes - xpu.memory_reserved_bytes
    free -= weight_bytes_per_xpu(model, tp, precision, pp, dp)
    block = kv_block_bytes(model, xpu, tp, kv_precision, block_size, pp, windows)
    if draft is not None:
        free -= draft_bytes_per_xpu(model, draft, tp, precision)
        block += kv_block_bytes(draft, xpu, tp, kv_precision, block_size)
    return max(0, math.floor(free / block))


def draft_bytes_per_xpu(model: Model, draft: Model, tp: int, precision: str) -> float:
    """Weights of what drafts that each xPU holds besides [bytes]; a layer of the model's own shares its head."""
    own = draft.hf_id == model.hf_id
    shared = draft.head_params * max(BYTES_PER_VALUE[precision], 2.0) if own else 0.0
    return weight_bytes_per_xpu(draft, tp, precision) - shared / tp


def _needs(pool: Pool) -> tuple[float, float]:
    """Weights and bytes of a KV block on each xPU, those of what drafts included."""
    draft, size = pool.drafting_model, pool.engine.block_size
    weights = weight_bytes_per_xpu(pool.model, pool.tp, pool.precision, pool.pp, pool.dp)
    block = kv_block_bytes(pool.model, pool.xpu, pool.tp, pool.kv_precision, size, pool.pp, pool.frees_windows)
    if draft is not None:
        weights += draft_bytes_per_xpu(pool.model, draft, pool.tp, pool.precision)
        block += kv_block_bytes(draft, pool.xpu, pool.tp, pool.kv_precision, size)
    return weights, block


def check_fit(pool: Pool, prefixes: bool = False) -> int:
    """Check that a pool can hold its model; return its KV blocks, the engine's own spare block included.

    Returns:
        `pool.engine.kv_blocks` where it is set, else the number that `kv_blocks` derives; where prompts share
        `prefixes`, as many whole ones, over all layers, as take the same memory (see `kv_layout`).

    Raises:
        InputError: the chip lacks a format, `tp` does not divide the heads, or the model does not fit; the message
            then says by how many GB, and what would make it fit.
    """
    _check_formats(pool)
    problem = _tp_problem(pool, pool.tp)
    if problem:
        raise InputError(f"pools.{pool.name}.tp", pool.tp, problem)
    _check_split(pool)
    if pool.engine.kv_blocks is not None:
        blocks = _check_explicit(pool, pool.engine.kv_blocks)
    else:
        blocks = _blocks(pool, pool.tp, pool.precision)
        if blocks < _least(pool):
            raise _misfit(pool, pool.engine.gpu_memory_utilization, pool.xpu.memory_reserved_bytes)
    if prefixes and pool.frees_windows:
        whole = kv_block_bytes(pool.model, pool.xpu, pool.tp, pool.kv_precision, pool.engine.block_size, pool.pp)
        return max(_MIN_BLOCKS, math.floor(blocks * _needs(pool)[1] / whole))
    return blocks


def _least(pool: Pool) -> int:
    """Blocks below which no sequence fits."""
    return _MIN_BLOCKS - 1 + kv_layout(pool).needs(1)


def _check_explicit(pool: Pool, blocks: int) -> int:
    """A user's own number of blocks overrides what the runtime reserves, but not the size of the memory."""
    weights, block = _needs(pool)
    most = math.floor((pool.xpu.memory_bytes - weights) / block)
    if most < _least(pool):
        raise _misfit(pool, 1.0, 0.0)
    if blocks < _least(pool):
        accepted = f"at least {_least(pool)}, so that a token fits, or null to derive it from memory"
        raise InputError(f"pools.{pool.name}.engine.kv_blocks", blocks, accepted)
    if blocks > most:
        accepted = f"at most the {most} blocks that fit {pool.xpu.id}, or null to derive it from memory"
        raise InputError(f"pools.{pool.name}.engine.kv_blocks", blocks, accepted)
    return blocks


def _misfit(pool: Pool, utilization: float, reserved: float) -> InputError:
    model, xpu = pool.model, pool.xpu
    weights, block = _needs(pool)
    short = weights + reserved + _least(pool) * block - utilization * xpu.memory_bytes
    return InputError(
        f"pools.{pool.name}.model",
        model.id,
        f"a model that fits: its {pool.precision} weights take {weights / GB:.1f} GB on each {xpu.id} at tp={pool.tp}, "
        f"{short / GB:.1f} GB more than there is room for ({utilization:.0%} of {xpu.memory_bytes / GB:.1f} GB, "
        f"less {reserved / GB:.1f} GB for the runtime); {_remedy(pool)}",
    )


def _remedy(pool: Pool) -> str:
    """The least parallelism, and the widest number format, with which the pool's model would fit."""
    degrees = (2**i for i in range(8) if 2**i > pool.tp and not _tp_problem(pool, 2**i))
    tp = next((degree for degree in degrees if _blocks(pool, degree, pool.precision) >= _least(pool)), None)
    formats = sorted(pool.xpu.weight_formats, key=lambda name: BYTES_PER_VALUE[name], reverse=True)
    smaller = (name for name in formats if BYTES_PER_VALUE[name] < BYTES_PER_VALUE[pool.precision])
    precision = next((name for name in smaller if _blocks(pool, pool.tp, name) >= _least(pool)), None)
    fits = [f"tp={tp}"] * (tp is not None) + [f"precision={precision}"] * (precision is not None)
    return (
        f"{' or '.join(fits)} would fit" if fits else "neither more parallelism nor a smaller format of this xPU fits"
    )


def _blocks(pool: Pool, tp: int, precision: str) -> int:
    util, size, kv = pool.engine.gpu_memory_utilization, pool.engine.block_size, pool.kv_precision
    draft, windows = pool.drafting_model, pool.frees_windows
    return kv_blocks(pool.model, pool.xpu, tp, precision, kv, size, util, pool.pp, draft, windows, pool.dp)


def _check_formats(pool: Pool) -> None:
    if pool.precision not in pool.xpu.weight_formats:
        has = " | ".join(pool.xpu.weight_formats)
        raise InputError(f"pools.{pool.name}.precision", pool.precision, f"a format that {pool.xpu.id} has: {has}")
    if pool.kv_precision is not None and pool.kv_precision not in BYTES_PER_VALUE:
        accepted = f"{' | '.join(BYTES_PER_VALUE)}, or null for 16 bit"
        raise InputError(f"pools.{pool.name}.kv_precision", pool.kv_precision, accepted)


def _tp_problem(pool: Pool, tp: int) -> str:
    """What `tp` would have to be, or an empty text where the model can be sharded so on this xPU."""
    model = pool.model
    if model.heads % tp:
        return f"a divisor of the {model.heads} attention heads of {model.id}"
    if model.kv_heads % tp and tp % model.kv_heads:
        return f"a divisor or a multiple of the {model.kv_heads} KV heads of {model.id}"
    if tp > 1 and not (pool.interconnect or pool.xpu.timing.link_bytes_per_s):
        return f"1: {pool.xpu.id} has no link to a peer in the catalogue; or name an interconnect"
    return ""


def _check_split(pool: Pool) -> None:
    """Refuse stages and experts that the model or the xPUs do not have."""
    key, model = f"pools.{pool.name}", pool.model
    if pool.pp > model.layers:
        raise InputError(f"{key}.pp", pool.pp, f"at most the {model.layers} layers of {model.id}")
    if pool.pp > 1 and not (pool.interconnect or pool.xpu.timing.link_bytes_per_s):
        accepted = f"1: {pool.xpu.id} has no link to a peer in the catalogue; or name an interconnect"
        raise InputError(f"{key}.pp", pool.pp, accepted)
    if pool.expert_parallel and not model.experts:
        raise InputError(f"{key}.expert_parallel", True, f"false: {model.id} has no experts")
    if pool.dp > 1:
        _check_group(pool)
    a_node = pool.node_xpus
    if a_node is not None and pool.tp > a_node and pool.tp % a_node:
        raise InputError(f"{key}.node_xpus", a_node, f"a divisor of tp ({pool.tp}), or at least as many")


def _check_group(pool: Pool) -> None:
    """Refuse data-parallel ranks that leave xPUs without experts, without a link, or in nodes of unequal size."""
    key, model, xpus = f"pools.{pool.name}", pool.model, pool.xpus_per_replica
    if xpus > model.experts:
        accepted = f"so many ranks that dp * tp is at most the {model.experts} experts of {model.id}"
        raise InputError(f"{key}.dp", pool.dp, accepted)
    if not (pool.interconnect or pool.xpu.timing.link_bytes_per_s):
        accepted = f"1: {pool.xpu.id} has no link to a peer in the catalogue; or name an interconnect"
        raise InputError(f"{key}.dp", pool.dp, accepted)
    a_node = pool.node_xpus
    if a_node is not None and xpus > a_node and (xpus % a_node or a_node % pool.tp):
        accepted = f"a multiple of tp ({pool.tp}) and a divisor of dp * tp ({xpus}), or at least as many"
        raise InputError(f"{key}.node_xpus", a_node, accepted)
