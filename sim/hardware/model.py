"""A language model's shape: what decides its memory, its work and its traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from sim.errors import InputError
from sim.hardware.xpu import check_finite
from sim.units import BYTES_PER_VALUE

_PLACE_BYTES = 0.25  #: 2 bits tell which of four weights one is
ATTENTION_KINDS = ("mha", "gqa", "mla")
_POSITIVE = ("layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "params", "params_active", "max_context")
_NON_NEGATIVE = (
    *("embedding_params", "kv_lora_rank", "rope_dim", "window", "window_layers", "window_kv_heads", "window_head_dim"),
    *("linear_layers", "experts", "experts_per_token", "moe_layers", "expert_params"),
)


class LayerRange(NamedTuple):
    """Layers `first` to `end` - 1 of the model `of`, which has `layers`."""

    of: str
    first: int
    end: int
    layers: int


@dataclass(frozen=True, slots=True)
class Vision:
    """The tower that turns images into tokens.

    Attributes:
        params: its parameters, in 16 bit.
        layers, hidden: its dimensions.
        patches_per_token: patches of an image that become one token of the language model.
    """

    params: float
    layers: int
    hidden: int
    patches_per_token: float

    def __post_init__(self) -> None:
        check_finite("models.vision", self, positive=("params", "layers", "hidden", "patches_per_token"))


@dataclass(frozen=True, slots=True)
class Model:
    """The architecture of a decoder-only transformer.

    Attributes:
        id, hf_id: catalogue id and Hugging Face name.
        aliases: other names that mean this entry (base, instruct and quantized builds).
        layers, hidden, heads, kv_heads, head_dim, vocab: the usual dimensions.
        params: all parameters.
        params_active: parameters a token passes through (equal to `params` in a dense model), embeddings included.
        embedding_params: parameters of an input embedding table that is only looked up; 0 where the output head shares
            the table, which then is multiplied and streamed like any other weight.
        max_context: longest prompt + output [tokens].
        attention: ``mha`` | ``gqa`` | ``mla``.
        kv_lora_rank, rope_dim: MLA only: width of the cached latent and of the rotary key; `kv_heads` is then 1, the
            one latent that all heads share, and `head_dim` the width of a value head.
        window, window_layers: tokens a sliding-window (or chunked) layer attends to, and how many layers do; 0 = none.
        window_kv_heads, window_head_dim: KV heads and head width of those layers; 0 = as in the full-attention layers.
        sparse_attention: True if windowed layers read that many tokens out of all, and so keep all of them.
        linear_layers: layers with a state of constant size instead of a KV cache.
        experts, experts_per_token, moe_layers, expert_params: MoE only: routed experts a layer, those a token visits,
            how many layers have them, and parameters of one expert.
        sorted_sampling: True if the generation config that comes with the model samples by top-p or top-k.
        penalized_sampling: True if that config penalizes repetition.
        checkpoint_precision: number format of the published weights, or empty.
        weight_sparsity: share of the layers' weights that are pruned: neither stored nor read, but for 2 bits of place
            for each that is kept (two of four); they are multiplied all the same.
        quality: scores by benchmark (`sim.hardware.keys.TASKS`), in [0, 1]; what is not known is absent.
        vision: the tower for images, whose weights `params` leaves out; None where it reads text alone.
        part: which layers of a model it is (`sim.hardware.layers`); None for a whole one.
        provenance: for every field that the catalogue gave, its (unit, source, kind).
    """

    id: str
    hf_id: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    params: float
    params_active: float
    embedding_params: float
    max_context: int
    attention: str = "gqa"
    aliases: tuple[str, ...] = ()
    kv_lora_rank: int = 0
    rope_dim: int = 0
    window: int = 0
    window_layers: int = 0
    window_kv_heads: int = 0
    window_head_dim: int = 0
    sparse_attention: bool = False
    linear_layers: int = 0
    experts: int = 0
    experts_per_token: int = 0
    moe_layers: int = 0
    expert_params: float = 0.0
    sorted_sampling: bool = False
    penalized_sampling: bool = False
    checkpoint_precision: str = ""
    weight_sparsity: float = 0.0
    quality: Mapping[str, float] = field(default_factory=dict)
    vision: Vision | None = None
    part: LayerRange | None = None
    provenance: Mapping[str, tuple[str, str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_finite(f"models.{self.id}", self, positive=_POSITIVE, non_negative=_NON_NEGATIVE)
        if self.attention not in ATTENTION_KINDS:
            raise InputError(f"models.{self.id}.attention", self.attention, " | ".join(ATTENTION_KINDS))
        if self.heads % self.kv_heads:
            raise InputError(f"models.{self.id}.kv_heads", self.kv_heads, f"a divisor of heads ({self.heads})")
        if self.attention == "mla" and not self.kv_lora_rank:
            raise InputError(f"models.{self.id}.kv_lora_rank", 0, "the latent width, at least 1, of an mla model")
        if self.linear_layers + self.window_layers > self.layers:
            raise InputError(f"models.{self.id}.window_layers", self.window_layers, f"at most layers ({self.layers})")
        if bool(self.window) != bool(self.window_layers):
            raise InputError(f"models.{self.id}.window", self.window, "set together with window_layers, or both 0")
        if not 0.0 <= self.weight_sparsity < 1.0:
            raise InputError(f"models.{self.id}.weight_sparsity", self.weight_sparsity, "a share in [0, 1)")
        for task, score in self.quality.items():
            if not isinstance(score, (int, float)) or not 0.0 <= score <= 1.0:
                raise InputError(f"models.{self.id}.quality.{task}", score, "a score in [0, 1]")
        if not self.params_active <= self.params:
            raise InputError(f"models.{self.id}.params_active", self.params_active, f"at most params ({self.params:g})")
        if self.experts and not 1 <= self.experts_per_token <= self.experts:
            key = f"models.{self.id}.experts_per_token"
            raise InputError(key, self.experts_per_token, f"1 to experts ({self.experts})")

    @property
    def kv_layers(self) -> int:
        """Layers that keep a KV cache, sliding-window ones included."""
        return self.layers - self.linear_layers

    @property
    def keeps_windows(self) -> bool:
        """Whether some layers need the KV of the last tokens alone."""
        return self.window_layers > 0 and not self.sparse_attention

    @property
    def head_params(self) -> float:
        """Parameters of the output head: one row a vocabulary entry."""
        return float(self.vocab * self.hidden)

    def kv_values_per_layer(self, windowed: bool = False) -> int:
        """Values cached per token and layer: keys and values of all KV heads, or the MLA latent and rotary key."""
        if self.attention == "mla":
            return self.kv_lora_rank + self.rope_dim
        if windowed:
            return 2 * (self.window_kv_heads or self.kv_heads) * (self.window_head_dim or self.head_dim)
        return 2 * self.kv_heads * self.head_dim

    @property
    def full_kv_share(self) -> float:
        """Share of a token's KV cache that full-attention layers hold, in [0, 1]."""
        full = (self.kv_layers - self.window_layers) * self.kv_values_per_layer()
        return full / max(1, full + self.window_layers * self.kv_values_per_layer(windowed=True))

    def kv_bytes_per_token(self, kv_precision: str = "bf16") -> float:
        """KV cache of one token over all layers [bytes]. Llama-3-8B in BF16: 131,072."""
        full = (self.kv_layers - self.window_layers) * self.kv_values_per_layer()
        windowed = self.window_layers * self.kv_values_per_layer(windowed=True)
        return (full + windowed) * _bytes(kv_precision)

    def weight_bytes(self, precision: str = "bf16") -> float:
        """All weights [bytes]. Quantized builds leave the vocabulary tables in 16 bit, and so does this count."""
        tower = 0.0 if self.vision is None else 2.0 * self.vision.params
        return tower + self._mixed_bytes(self.params, self.embedding_params + self.head_params, precision)

    def streamed_bytes(self, tokens: float, precision: str = "bf16") -> float:
        """Weights that a step over `tokens` tokens reads [bytes]; see `streamed_params` and `weight_bytes`."""
        return self._mixed_bytes(self.streamed_params(tokens), self.head_params, precision)

    def _mixed_bytes(self, params: float, in_16_bit: float, precision: str) -> float:
        size = _bytes(precision)
        kept = (params - in_16_bit) * (1.0 - self.weight_sparsity)
        return kept * (size + (_PLACE_BYTES if self.weight_sparsity else 0.0)) + in_16_bit * max(size, 2.0)

    def streamed_params(self, tokens: float) -> float:
        """Parameters that a step over `tokens` tokens reads: all but the embedding table and experts not visited."""
        unvisited = self.experts - self.visited_experts(tokens)
        return self.params - self.embedding_params - self.moe_layers * self.expert_params * unvisited

    def visited_experts(self, tokens: float) -> float:
        """Distinct experts of a layer that `tokens` tokens are expected to visit, E * (1 - (1 - k/E)^tokens), if every
        token picks k of E at random."""
        if not self.experts:
            return 0.0
        return self.experts * (1.0 - math.pow(1.0 - self.experts_per_token / self.experts, tokens))

    def gemm_flops_per_token(self) -> float:
        """Multiply-adds of one token outside attention, times two [FLOP]."""
        return 2.0 * (self.params_active - self.embedding_params)

    def attention_flops_per_pair(self, windowed: bool = False, prefill: bool = False) -> float:
        """FLOP for one (query token, context token) pair: QK and PV over the full-attention (or windowed) layers.

        Decoding an MLA model multiplies the cached latent itself; its prefill first widens keys and values to heads,
        which is cheaper per pair (`prefill`). Source: DeepSeek-V2 (arXiv 2405.04434), section 2.1.
        """
        layers = self.window_layers if windowed else self.kv_layers - self.window_layers
        if self.attention == "mla":
            width = self.head_dim if prefill else self.kv_lora_rank
            return 2.0 * layers * self.heads * (2 * width + self.rope_dim)
        head_dim = (self.window_head_dim or self.head_dim) if windowed else self.head_dim
        return 4.0 * layers * self.heads * head_dim


def _bytes(precision: str) -> float:
    try:
        return BYTES_PER_VALUE[precision]
    except KeyError:
        raise InputError("precision", precision, " | ".join(BYTES_PER_VALUE)) from None
