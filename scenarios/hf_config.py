"""What a Hugging Face ``config.json`` says of a model, with the vocabularies of its many families folded into one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sim.errors import InputError

#: What transformers fills in where a published config of these types leaves it out.
_DEFAULTS: Mapping[str, Mapping[str, Any]] = {
    "gemma3_text": {
        "num_attention_heads": 8,
        "num_key_value_heads": 4,
        "head_dim": 256,
        "vocab_size": 262208,
        "max_position_embeddings": 131072,
        "sliding_window_pattern": 6,
    },
    "gemma2": {"sliding_window_pattern": 2, "head_dim": 256},
    "bloom": {"seq_length": 2048},
}
#: Types whose MLP has two matrices, whose output head is the embedding table, and whose queries, keys and values have
#: biases, although their configs need not say so.
_UNGATED = (
    "bloom",
    "codegen",
    "falcon",
    "gpt2",
    "gpt_bigcode",
    "gpt_neo",
    "gpt_neox",
    "gptj",
    "mpt",
    "nemotron",
    "nemotron_h",
    "opt",
    "phi",
    "starcoder2",
)
_TIED = (
    "bloom",
    "cohere",
    "cohere2",
    "falcon",
    "gemma",
    "gemma2",
    "gemma3_text",
    "gemma4_text",
    "gpt2",
    "gpt_bigcode",
    "mpt",
    "opt",
)
_QKV_BIAS = (
    "bloom",
    "gpt2",
    "qwen2",
    "qwen2_moe",
    "qwen2_vl",
    "qwen2_5_vl",
)
_NO_DECODER = (
    "albert",
    "bert",
    "clip",
    "deberta",
    "distilbert",
    "electra",
    "roberta",
    "siglip",
    "t5",
    "umt5",
    "vit",
    "xlm-roberta",
)

FULL, WINDOW, LINEAR, NONE = "full", "window", "linear", "none"  #: kinds of token mixing in a layer


@dataclass(slots=True)
class HFConfig:
    """The decoder's part of a config, with the names of different model families folded into one.

    Attributes:
        text: the mapping that describes the text decoder (multimodal configs nest it).
        root: the whole file.
        type: its `model_type`.
    """

    text: Mapping[str, Any]
    root: Mapping[str, Any]
    type: str

    @classmethod
    def read(cls, config: object) -> HFConfig:
        """Find the decoder in a parsed ``config.json``.

        Raises:
            InputError: it is not the config of a decoder-only language model.
        """
        if not isinstance(config, Mapping):
            raise InputError("config", type(config).__name__, "a JSON object, as in a Hugging Face config.json")
        nested = (config.get(key) for key in ("text_config", "llm_config", "language_config"))
        text = next((part for part in nested if isinstance(part, Mapping)), config)
        kind = text.get("model_type", config.get("model_type"))
        if not isinstance(kind, str):
            raise InputError("model_type", kind, "the name of an architecture, such as llama")
        if config.get("is_encoder_decoder") or kind.lower() in _NO_DECODER:
            raise InputError("model_type", kind, "a decoder-only language model")
        return cls({**_DEFAULTS.get(kind, {}), **text}, config, kind)

    def count(self, *names: str, default: int | None = None, least: int = 0) -> int:
        """The first of these keys that is there and not null, as a whole number.

        Raises:
            InputError: none is there and there is no default, or the value is no whole number of at least `least`.
        """
        for name in names:
            value = self.text.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value != value // 1 or value < least:
                raise InputError(name, value, f"a whole number of at least {least}")
            return int(value)
        if default is None:
            raise InputError(names[0], None, f"a whole number; the config has none of {', '.join(names)}")
        return default

    def items(self, name: str, length: int | None = None) -> list[Any] | None:
        """The list under this key, or None where there is none; of `length` items if given.

        Raises:
            InputError: it is something else.
        """
        value = self.text.get(name)
        if value is None or value == []:
            return None
        if not isinstance(value, list) or (length is not None and len(value) != length):
            raise InputError(name, value, f"a list of {length} items" if length is not None else "a list")
        return value

    def flag(self, *names: str) -> bool:
        """True if any of these keys is true."""
        return any(self.text.get(name) is True for name in names)

    @property
    def layers(self) -> int:
        return self.count("num_hidden_layers", "n_layer", "n_layers", "num_layers", least=1)

    @property
    def hidden(self) -> int:
        return self.count("hidden_size", "n_embed", "n_embd", "d_model", least=1)

    @property
    def heads(self) -> int:
        return self.count("num_attention_heads", "n_head", "n_heads", least=1)

    @property
    def kv_heads(self) -> int:
        """KV heads; as many as heads where the config names none, and one for Falcon's multi-query attention."""
        default = 1 if self.flag("multi_query") and not self.flag("new_decoder_architecture") else self.heads
        return self.count("num_key_value_heads", "num_kv_heads", "n_head_kv", default=default, least=1)

    @property
    def head_dim(self) -> int:
        return self.count("head_dim", default=self.hidden // self.heads, least=1)

    @property
    def vocab(self) -> int:
        return self.count("vocab_size", least=1)

    @property
    def max_context(self) -> int:
        names = ("max_position_embeddings", "n_positions", "seq_length", "n_ctx", "max_seq_len", "max_sequence_length")
        return self.count(*names, least=2)

    @property
    def tied(self) -> bool:
        """Whether the output head shares the embedding table."""
        for part in (self.text, self.root):
            if part.get("tie_word_embeddings") is not None:
                return bool(part["tie_word_embeddings"])
        return self.type in _TIED

    @property
    def mla(self) -> bool:
        return bool(self.text.get("kv_lora_rank"))

    @property
    def experts(self) -> int:
        experts = self.count("n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts", default=0)
        return experts if experts > 1 else 0

    @property
    def experts_per_token(self) -> int:
        names = (
            "num_experts_per_tok",
            "experts_per_token",
            "top_k_experts",
            "num_experts_per_token",
            "moe_topk",
            "moe_k",
        )
        return self.count(*names, least=1) if self.experts else 0

    @property
    def expert_width(self) -> int:
        return self.count("moe_intermediate_size", "expert_intermediate_size", "intermediate_size", least=1)

    @property
    def mlp_matrices(self) -> int:
        """Matrices in an MLP: three where a gate multiplies the first, else two."""
        return 2 if self.type in _UNGATED else 3

    @property
    def qkv_bias(self) -> bool:
        return self.type in _QKV_BIAS or self.flag("attention_bias", "qkv_bias", "bias")

    @property
    def window(self) -> int:
        """Tokens that a windowed, chunked or sparse layer attends to; 0 where there is none."""
        if self.text.get("use_sliding_window") is False:
            return 0
        names = ("sliding_window", "attention_chunk_size", "index_topk")
        window = self.count(*names, default=0)
        return 0 if window >= self.max_context else window

    def layer_kinds(self) -> list[str]:
        """How each layer mixes tokens, in order: `FULL`, `WINDOW`, `LINEAR` or `NONE` (an MLP alone)."""
        pattern = self.text.get("hybrid_override_pattern")
        if isinstance(pattern, str):
            return [{"*": FULL, "M": LINEAR}.get(letter, NONE) for letter in pattern]
        types = self.items("layer_types", self.layers)
        if types is not None:
            names = {"sliding_attention": WINDOW, "chunked_attention": WINDOW, "linear_attention": LINEAR}
            return [names.get(str(name), FULL) if self.window or "linear" in str(name) else FULL for name in types]
        windowed = self._windowed if self.window else lambda layer: False
        return [WINDOW if windowed(layer) else FULL for layer in range(self.layers)]

    def _windowed(self, layer: int) -> bool:
        every = self.count("sliding_window_pattern", "_sliding_window_pattern", default=0)
        if every:
            return (layer + 1) % every != 0
        if self.text.get("attention_chunk_size"):
            rotary = self.items("no_rope_layers", self.layers)  # 1: the layer has rotary positions, and is chunked
            every = self.count("no_rope_layer_interval", default=4, least=1)
            return bool(rotary[layer]) if rotary else (layer + 1) % every != 0
        if "max_window_layers" in self.text:
            return layer >= self.count("max_window_layers")
        return True

    def moe_layers(self) -> list[bool]:
        """Which layers have routed experts."""
        layers = range(self.layers)
        pattern = self.text.get("hybrid_override_pattern")
        if not self.experts:
            return [False] * self.layers
        if isinstance(pattern, str):
            return [letter == "E" for letter in pattern]
        listed, dense = self.items("moe_layers"), self.items("mlp_only_layers") or ()
        if listed is not None:
            return [layer in listed for layer in layers]
        first = self.count("first_k_dense_replace", default=0)
        every = self.count("moe_layer_freq", "decoder_sparse_step", "interleave_moe_layer_step", default=1, least=1)
        offset = 0 if "moe_layer_freq" in self.text else 1
        return [layer >= first and layer not in dense and (layer + offset) % every == 0 for layer in layers]

    def checkpoint_precision(self) -> str | None:
        """Number format of the published weights, where the config tells."""
        quantization = self.root.get("quantization_config") or self.text.get("quantization_config")
        if isinstance(quantization, Mapping):
            words = str(quantization).lower()
            for mark, name in (("fp4", "fp4"), ("'type': 'float'", "fp8"), ("fp8", "fp8"), ("e4m3", "fp8")):
                if mark in words:
                    return name
            four = any(mark in words for mark in ("'bits': 4", "'num_bits': 4", "load_in_4bit': true"))
            return "int4" if four else "int8"
        dtype = self.text.get("torch_dtype") or self.text.get("dtype") or self.root.get("torch_dtype")
        return {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}.get(str(dtype))
