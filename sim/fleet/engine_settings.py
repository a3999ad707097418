"""Settings of one replica's serving engine, under vLLM's names: plain data, checked at birth."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import InputError, instance, instances, number, whole
from sim.hardware.speculation import METHODS
from sim.serving.queues import ORDERS

ANDES = "andes"
BATCHING = ("chunked", "whole", "static")
_COUNT = "a whole number of at least 1"
_PADDING = "ascending whole numbers of at least 1, or []"


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """Settings of one serving engine, under vLLM's names.

    Attributes:
        max_num_seqs: most sequences that run at once.
        max_num_batched_tokens: token budget of one step; prompts are prefilled in chunks that fit it.
        block_size: tokens a KV block holds.
        kv_blocks: KV blocks there are, or None to derive them from memory.
        gpu_memory_utilization: share of xPU memory the engine may use.
        max_model_len: longest prompt + output [tokens], or None for the model's own limit.
        async_scheduling: True if a step is scheduled while the one before runs: an arrival waits a step longer, and who
            ends leaves seat and memory a step later.
        front_end_s: time from a request's arrival at the pool to the engine's queue that occupies nothing [s].
        tokenize_s, tokenize_s_per_token: time that a request, and each token of its prompt, besides occupies a process
            of the replica's API server for parsing and tokenizing; requests queue for it [s].
        front_end_workers: such processes a replica has.
        detokenize_s: time that the replica's API server takes to turn an output token into text, one at a time [s].
        prefix_caching: True if prompts share the KV blocks of a common prefix; needs a workload that names prefixes.
        offload_bytes: host memory of a replica that keeps evicted prefixes; 0 drops them [bytes].
        offload_bytes_per_s: speed at which they are loaded again, while the replica computes nothing [bytes/s].
        sorted_sampling: True if every step sorts all logits, as vLLM up to 0.15 does to sample by top-p or top-k.
        penalized_sampling: True if every step applies repetition penalties, for which vLLM counts what was generated.
        scheduler: order of admission: ``fcfs``, ``priority`` (smaller first), ``sjf`` (fewest tokens), ``edf``
            (earliest deadline), ``vtc`` (fair share by tenant); see `sim.serving.queues`; or ``andes`` (QoE-aware).
        andes_quantum_s: time between two decisions of ``andes`` [s].
        andes_preemptions: preemptions of a request beyond which ``andes`` lets it stay.
        batching: ``chunked`` as in vLLM V1 and Sarathi, ``whole`` (Orca: prompts are never split) or ``static`` (nobody
            joins a batch before it has ended); the latter two reserve the memory of a request's whole life.
        swap_bytes: host memory of a replica that keeps the KV of preempted requests; 0 computes it again [bytes].
        swap_bytes_per_s: speed of copies to it and back, during which the replica computes nothing [bytes/s].
        adapter_slots: fine-tuned adapters that can be loaded at once; 0 serves the base model to all.
        adapter_load_s: time to load one, during which the replica computes nothing [s].
        speculative_tokens: tokens drafted ahead for each sequence and verified in one step; 0 drafts none.
        speculative_method: who drafts: ``ngram``, ``mtp`` (a layer of the model's own) or the pool's ``draft_model``.
        acceptance_rate: probability that a drafted token is accepted if those before it were; depends on model, draft
            and text, so it has no default.
        disable_hybrid_kv_cache_manager: True if layers with a window keep the KV of all tokens nevertheless.
        padding: token counts, ascending, to which smaller steps are padded (CUDA graph sizes); empty for none.
    """

    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    kv_blocks: int | None = None
    gpu_memory_utilization: float = 0.9
    max_model_len: int | None = None
    async_scheduling: bool = False
    sorted_sampling: bool = False
    penalized_sampling: bool = False
    padding: tuple[int, ...] = ()
    prefix_caching: bool = False
    disable_hybrid_kv_cache_manager: bool = False
    front_end_s: float = 0.0
    tokenize_s: float = 0.0
    tokenize_s_per_token: float = 0.0
    front_end_workers: int = 1
    detokenize_s: float = 0.0
    scheduler: str = "fcfs"
    batching: str = "chunked"
    swap_bytes: float = 0.0
    swap_bytes_per_s: float = 25e9
    andes_quantum_s: float = 1.0
    andes_preemptions: int = 1
    adapter_slots: int = 0
    adapter_load_s: float = 0.0
    offload_bytes: float = 0.0
    offload_bytes_per_s: float = 25e9
    speculative_tokens: int = 0
    speculative_method: str = "ngram"
    acceptance_rate: float | None = None

    def __post_init__(self) -> None:
        for key in ("max_num_seqs", "max_num_batched_tokens", "block_size", "front_end_workers"):
            whole(f"engine.{key}", getattr(self, key), _COUNT, low=1)
        if self.max_num_batched_tokens < self.max_num_seqs:
            raise InputError(
                "engine.max_num_batched_tokens",
                self.max_num_batched_tokens,
                f"at least engine.max_num_seqs ({self.max_num_seqs}), so that every running sequence fits a step",
            )
        if self.kv_blocks is not None:
            whole("engine.kv_blocks", self.kv_blocks, "at least 2, or null to derive it from memory", low=2)
        number("engine.gpu_memory_utilization", self.gpu_memory_utilization, "a share in (0, 1]", above=0.0, high=1.0)
        if self.max_model_len is not None:
            whole("engine.max_model_len", self.max_model_len, "at least 2 tokens, or null", low=2)
        flags = ("async_scheduling", "sorted_sampling", "penalized_sampling", "prefix_caching")
        for key in (*flags, "disable_hybrid_kv_cache_manager"):
            instance(f"engine.{key}", getattr(self, key), bool, "true | false")
        for key in ("front_end_s", "tokenize_s", "tokenize_s_per_token", "detokenize_s"):
            number(f"engine.{key}", getattr(self, key), "a time >= 0 s", low=0.0)
        number("engine.adapter_load_s", self.adapter_load_s, "a time >= 0 s", low=0.0)
        number("engine.swap_bytes", self.swap_bytes, "a size >= 0 bytes", low=0.0)
        number("engine.swap_bytes_per_s", self.swap_bytes_per_s, "a speed > 0 bytes/s", above=0.0)
        whole("engine.adapter_slots", self.adapter_slots, "a whole number of at least 0", low=0)
        for key, known in (("scheduler", (*ORDERS, ANDES)), ("batching", BATCHING), ("speculative_method", METHODS)):
            if getattr(self, key) not in known:
                raise InputError(f"engine.{key}", getattr(self, key), " | ".join(known))
        number("engine.offload_bytes", self.offload_bytes, "a size >= 0 bytes", low=0.0)
        number("engine.offload_bytes_per_s", self.offload_bytes_per_s, "a speed > 0 bytes/s", above=0.0)
        if self.offload_bytes and not self.prefix_caching:
            raise InputError("engine.offload_bytes", self.offload_bytes, "0 where engine.prefix_caching is false")
        self._check_speculation()
        number("engine.andes_quantum_s", self.andes_quantum_s, "a time > 0 s", above=0.0)
        whole("engine.andes_preemptions", self.andes_preemptions, "a whole number of at least 0", low=0)
        if self.batching != "chunked" and self.scheduler == ANDES:
            raise InputError("engine.batching", self.batching, "chunked where engine.scheduler is andes")
        if self.batching != "chunked" and self.prefix_caching:
            raise InputError("engine.batching", self.batching, "chunked where engine.prefix_caching is true")
        given = instances("engine.padding", self.padding, object, _PADDING)
        sizes = tuple(whole("engine.padding", size, _PADDING, low=1) for size in given)
        object.__setattr__(self, "padding", sizes)
        if list(sizes) != sorted(set(sizes)):
            raise InputError("engine.padding", sizes, _PADDING)

    def _check_speculation(self) -> None:
        drafts = whole("engine.speculative_tokens", self.speculative_tokens, "a whole number of at least 0", low=0)
        if self.acceptance_rate is not None:
            number("engine.acceptance_rate", self.acceptance_rate, "a probability in [0, 1]", low=0.0, high=1.0)
        elif drafts:
            accepted = "a probability in [0, 1] where engine.speculative_tokens is not 0: measure it, it has no default"
            raise InputError("engine.acceptance_rate", None, accepted)
        if self.max_num_batched_tokens < self.max_num_seqs * (1 + drafts):
            raise InputError(
                "engine.max_num_batched_tokens",
                self.max_num_batched_tokens,
                f"at least max_num_seqs * (1 + speculative_tokens) = {self.max_num_seqs * (1 + drafts)}, so that every "
                "running sequence fits a step",
            )
