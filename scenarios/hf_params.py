"""Parameters of a model's text decoder, counted matrix by matrix from its ``config.json``.

Vision and audio towers and multi-token-prediction layers are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass

from scenarios.hf_config import FULL, LINEAR, NONE, HFConfig
from sim.errors import InputError


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Parameters of the text decoder.

    Attributes:
        total: all of them.
        active: those that a token passes through, both vocabulary tables included.
        embedding: of an input table of its own; 0 where the output head shares it.
        expert: of one routed expert.
    """

    total: int
    active: int
    embedding: int
    expert: int


def count_parameters(hf: HFConfig) -> ParameterCount:
    """Count the parameters of the text decoder."""
    table = hf.vocab * hf.hidden
    expert = hf.mlp_matrices * hf.hidden * hf.expert_width + _expert_bias(hf) if hf.experts else 0
    kinds, moe = hf.layer_kinds(), hf.moe_layers()
    if not len(kinds) == len(moe) == hf.layers:
        raise InputError("num_hidden_layers", hf.layers, f"the number of layers that are listed ({len(kinds)})")
    layers = sum(_layer(hf, kind, routed) for kind, routed in zip(kinds, moe, strict=True))
    total = layers + sum(moe) * hf.experts * expert + table + hf.hidden + (0 if hf.tied else table)
    idle = sum(moe) * (hf.experts - hf.experts_per_token) * expert
    return ParameterCount(total, total - idle, 0 if hf.tied else table, expert)


def _layer(hf: HFConfig, kind: str, routed: bool) -> int:
    """All of a layer but its routed experts."""
    norms = 2 * hf.hidden
    if hf.text.get("hybrid_override_pattern"):  # such a layer is a mixer or an MLP, never both
        mlp = _routed_extras(hf) if routed else _dense_mlp(hf) if kind == NONE else 0
        return norms // 2 + mlp + (0 if kind == NONE else _mixer(hf, kind))
    if routed:
        # Gemma 4 runs a dense MLP beside its experts in every layer
        beside = _dense_mlp(hf) if hf.flag("enable_moe_block") else 0
        return norms + _mixer(hf, kind) + _routed_extras(hf) + beside
    return norms + _mixer(hf, kind) + _dense_mlp(hf)


def _mixer(hf: HFConfig, kind: str) -> int:
    if kind == LINEAR:
        return _mamba(hf) if "mamba_num_heads" in hf.text else _delta_net(hf)
    if hf.mla:
        return _latent_attention(hf) + _indexer(hf)
    heads, kv_heads, width = hf.heads, hf.kv_heads, hf.head_dim
    kv_matrices = 2
    if kind == FULL and hf.text.get("global_head_dim"):
        width = hf.count("global_head_dim")
        kv_heads = hf.count("num_global_key_value_heads", default=kv_heads)
        kv_matrices = 1 if hf.flag("attention_k_eq_v") else 2
    queries = heads * width * (2 if hf.flag("attn_output_gate") or hf.type == "qwen3_next" else 1)
    keys_values = kv_matrices * kv_heads * width
    bias = queries + keys_values if hf.qkv_bias else 0
    return hf.hidden * (queries + keys_values + heads * width) + bias


def _latent_attention(hf: HFConfig) -> int:
    """Multi-head latent attention. Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1."""
    latent, rope = hf.count("kv_lora_rank"), hf.count("qk_rope_head_dim")
    nope, value = hf.count("qk_nope_head_dim"), hf.count("v_head_dim")
    rank = hf.count("q_lora_rank", default=0)
    queries = hf.heads * (nope + rope)
    down_up = (hf.hidden + queries) * rank if rank else hf.hidden * queries
    keys_values = hf.hidden * (latent + rope) + latent * hf.heads * (nope + value)
    return down_up + keys_values + hf.heads * value * hf.hidden


def _indexer(hf: HFConfig) -> int:
    """The token selector of sparse attention. Source: DeepSeek-V3.2 report (arXiv 2512.02556), section 2."""
    heads, width = hf.count("index_n_heads", default=0), hf.count("index_head_dim", default=0)
    rank = hf.count("q_lora_rank", default=hf.hidden)
    return rank * heads * width + hf.hidden * (width + heads)


def _mamba(hf: HFConfig) -> int:
    """A Mamba-2 mixer. Source: Dao and Gu (arXiv 2405.21060)."""
    heads = hf.count("mamba_num_heads")
    inner = heads * hf.count("mamba_head_dim")
    states = 2 * hf.count("n_groups", default=1) * hf.count("ssm_state_size")
    convolution = (inner + states) * (hf.count("conv_kernel", default=4) + 1)
    return hf.hidden * (2 * inner + states + heads) + convolution + 3 * heads + inner + inner * hf.hidden


def _delta_net(hf: HFConfig) -> int:
    """A gated delta rule mixer. Source: Yang et al. (arXiv 2412.06464)."""
    keys = hf.count("linear_num_key_heads") * hf.count("linear_key_head_dim")
    value_heads = hf.count("linear_num_value_heads")
    values = value_heads * hf.count("linear_value_head_dim")
    convolution = (2 * keys + values) * hf.count("linear_conv_kernel_dim", default=4)
    return hf.hidden * (2 * keys + 2 * values + 2 * value_heads) + convolution + values * hf.hidden


def _dense_mlp(hf: HFConfig) -> int:
    names = ("intermediate_size_mlp", "intermediate_size", "ffn_dim", "ffn_hidden_size", "n_inner")
    width = hf.count(*names, default=4 * hf.hidden, least=1)
    return hf.mlp_matrices * hf.hidden * width


def _routed_extras(hf: HFConfig) -> int:
    """Router and shared experts of a layer with routed experts."""
    shared = hf.count("n_shared_experts", default=0)
    width = hf.count("moe_shared_expert_intermediate_size", default=hf.expert_width) * shared
    width += hf.count("shared_expert_intermediate_size", default=0)
    if hf.type.startswith("llama4"):
        width += hf.expert_width
    return hf.hidden * hf.experts + hf.mlp_matrices * hf.hidden * width


def _expert_bias(hf: HFConfig) -> int:
    return 2 * hf.expert_width + hf.hidden if hf.type == "gpt_oss" else 0
