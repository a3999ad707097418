"""The settings of a vLLM deployment as its `meta.json` records them, as the keys of a pool.

What the file does not state is what vLLM itself would have chosen; `Stated.defaults` says so for each.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

from scenarios.schema import boolean, integer, number, text
from scenarios.vllm_speculation import read_speculation
from sim.errors import InputError

#: vLLM schedules asynchronously by default from this version on, but not where n-grams or a model of their own draft.
#: Source: release notes of vLLM 0.14; its configuration's defaults.
_ASYNC_SINCE = (0, 14)
_DTYPES = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "auto": "bf16"}
_QUANTIZED = {"fp8": "fp8", "awq": "int4", "awq_marlin": "int4", "gptq": "int4", "gptq_marlin": "int4"}
#: What the name of a quantized build says of its weights, where the record does not: the first of these marks it has.
_NAMED = (("fp8", "fp8"), ("w4a16", "int4"), ("awq", "int4"), ("int4", "int4"), ("w8a8", "int8"), ("int8", "int8"))
#: Settings that the simulated engine does not vary: name -> the only value that it stands for.
_FIXED: dict[str, object] = {
    "enable_chunked_prefill": True,
    "policy": "fcfs",
}
_SECTIONS = ("model_config", "cache_config", "parallel_config", "scheduler_config", "compilation_config")


@dataclass(slots=True)
class Stated:
    """What a `meta.json` says.

    Attributes:
        pool: keys of a pool; `xpu` is absent where the file does not name a device.
        device, device_bytes: name and memory of the device [bytes], or None.
        defaults: settings that the file does not state, with what was taken for them.
    """

    pool: dict[str, Any]
    device: str | None
    device_bytes: float | None
    defaults: dict[str, object] = field(default_factory=dict)


def read_meta(meta: object, where: str, given: Collection[str] = ()) -> Stated:
    """Read a parsed `meta.json`.

    Args:
        meta: its content.
        where: the file, for errors.
        given: keys of the pool that the user gives instead; what the file says of them is not read.

    Raises:
        InputError: it names no model, or a setting that the simulated engine does not have.
    """
    reader = _Reader(meta, where)
    for name, only in _FIXED.items():
        value = reader.value(name, only)
        if value != only:
            raise InputError(name, value, f"{only}: the replay has no other", where)
    seqs = reader.get("max_num_seqs", integer(1), 256)
    drafting, draft = reader.speculation()
    asynchronous = reader.version() >= _ASYNC_SINCE and drafting.get("speculative_method") in (None, "mtp")
    engine = {
        "max_num_seqs": seqs,
        "max_num_batched_tokens": reader.get("max_num_batched_tokens", integer(1), 2048),
        "block_size": reader.get("block_size", integer(1), 16),
        "kv_blocks": reader.get("num_gpu_blocks", integer(2), None),
        "gpu_memory_utilization": reader.get("gpu_memory_utilization", number("a share in (0, 1]", above=0.0), 0.9),
        "max_model_len": reader.get("max_model_len", integer(2), None),
        "async_scheduling": reader.get("async_scheduling", boolean, asynchronous),
        "prefix_caching": reader.get("enable_prefix_caching", boolean, True),
        "disable_hybrid_kv_cache_manager": reader.value("disable_hybrid_kv_cache_manager", False),
        "padding": reader.graph_sizes(seqs),
        **drafting,
    }
    readers: dict[str, Callable[[], object]] = {
        "model": reader.model,
        "tp": lambda: reader.get("tensor_parallel_size", integer(1), 1),
        "pp": lambda: reader.value("pipeline_parallel_size", 1),
        "dp": lambda: reader.value("data_parallel_size", 1),
        "expert_parallel": lambda: reader.value("enable_expert_parallel", False),
        "precision": reader.precision,
        "kv_precision": reader.kv_precision,
    }
    pool: dict[str, Any] = {key: read() for key, read in readers.items() if key not in given} | {"engine": engine}
    if draft is not None and "draft" not in given:
        pool["draft"] = draft
    hardware = reader.section("hardware")
    device, memory = hardware.get("device_name"), hardware.get("device_total_memory_bytes")
    named = None if device is None else reader.checked("hardware.device_name", device, text)
    known = None if memory is None else reader.checked("device_total_memory_bytes", memory, number("> 0", above=0.0))
    return Stated(pool, named, known, reader.defaults)


def graph_sizes(max_num_seqs: int) -> list[int]:
    """Batch sizes for which vLLM captures CUDA graphs unless told otherwise: 1, 2, 4, every 8 below 256, every 16 then.

    Source: vLLM 0.15 to 0.19; the list that an RTX 4090 run of vLLM 0.19 recorded for `max_num_seqs` 256.
    """
    most = min(2 * max_num_seqs, 512)
    return [size for size in (1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)) if size <= most]


class _Reader:
    """Looks settings up in the resolved configuration first, then in what the user asked vLLM for."""

    def __init__(self, meta: object, where: str) -> None:
        if not isinstance(meta, Mapping):
            raise InputError("meta.json", type(meta).__name__, "a mapping of settings", where)
        self.meta, self.where = meta, where
        self.defaults: dict[str, object] = {}
        resolved = self.section("resolved_config")
        parts = [resolved.get(name) for name in _SECTIONS]
        self._sources: list[Mapping[str, Any]] = [part for part in parts if isinstance(part, Mapping)]
        self._sources += [resolved, self.section("kv_cache"), self.section("engine_kwargs"), meta]

    def section(self, name: str) -> Mapping[str, Any]:
        """A mapping of the file; empty where it is absent."""
        part = self.meta.get(name)
        if part is not None and not isinstance(part, Mapping):
            raise InputError(name, part, "a mapping of settings", self.where)
        return part or {}

    def value(self, name: str, default: object) -> Any:
        """The first value stated for a setting."""
        return next((source[name] for source in self._sources if source.get(name) is not None), default)

    def get(self, name: str, check: Any, default: Any) -> Any:
        """A setting, checked; `default` is noted where it is not stated."""
        value = self.value(name, None)
        if value is not None:
            return self.checked(name, value, check)
        self.defaults[name] = default
        return default

    def checked(self, name: str, value: object, check: Any) -> Any:
        """`value` after `check`, whose errors name the file."""
        try:
            return check(name, value)
        except InputError as error:
            raise InputError(error.key, error.value, error.accepted, self.where) from None

    def speculation(self) -> tuple[dict[str, Any], str | None]:
        """Engine settings of speculative decoding, and the model that drafts; empty where nothing is drafted."""
        config = self.value("speculative_config", None)
        if not config:
            return {}, None
        return read_speculation(config, lambda name: self.value(name, None), self.where)

    def model(self) -> str:
        """Hugging Face name of the model."""
        return str(self.checked("model", self.value("model", None), text))

    def version(self) -> tuple[int, ...]:
        """Version of vLLM; the newest known one where it is not stated."""
        found = re.match(r"v?(\d+)\.(\d+)", str(self.meta.get("vllm_version", "")))
        return (int(found[1]), int(found[2])) if found else _ASYNC_SINCE

    def precision(self) -> str:
        """Number format of the weights."""
        method = self.value("quantization", None)
        name = self.model().lower()
        named = next((kind for mark, kind in _NAMED if mark in name), None)
        if named is not None and (method is None or method not in _QUANTIZED):
            self.defaults["quantization"] = f"{named}, by the model's name"
            return named
        if method is not None:
            if method not in _QUANTIZED:
                accepted = f"{' | '.join(_QUANTIZED)}, or precision=FORMAT beside it"
                raise InputError("quantization", method, accepted, self.where)
            return _QUANTIZED[method]
        dtype = str(self.value("dtype", "auto")).removeprefix("torch.")
        if dtype not in _DTYPES:
            raise InputError("dtype", dtype, " | ".join(_DTYPES), self.where)
        return _DTYPES[dtype]

    def kv_precision(self) -> str | None:
        """Number format of the KV cache; None for that of the activations."""
        stated = str(self.value("cache_dtype", None) or self.value("kv_cache_dtype", "auto"))
        if stated.startswith("fp8"):
            return "fp8"
        if stated not in ("auto", *_DTYPES):
            raise InputError("kv_cache_dtype", stated, "auto | fp8 | " + " | ".join(_DTYPES), self.where)
        return None

    def graph_sizes(self, max_num_seqs: int) -> list[int]:
        """Sizes of the CUDA graphs; none where the engine ran without."""
        if self.get("enforce_eager", boolean, False):
            return []
        stated = self.value("cudagraph_capture_sizes", None)
        if stated is None:
            sizes = graph_sizes(max_num_seqs)
            self.defaults["cudagraph_capture_sizes"] = f"1 to {sizes[-1]}"
            return sizes
        if not isinstance(stated, list):
            raise InputError("cudagraph_capture_sizes", stated, "a list of batch sizes", self.where)
        return sorted(self.checked("cudagraph_capture_sizes", size, integer(1)) for size in stated)
