"""What training a model takes: arithmetic, memory by part, and how many xPUs that is."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sim.errors import InputError, number
from sim.hardware.lora import Lora
from sim.hardware.model import Model
from sim.hardware.xpu import XPU
from sim.units import BYTES_PER_VALUE, GB

#: What is kept of the activations for the backward pass.
RECOMPUTATION = ("none", "selective", "full")
STATES = ("weights", "gradients", "optimizer")  #: what ZeRO can shard, in the order in which it is kept
_LARGEST = 1 << 20  #: xPUs beyond which a run is said to fit nowhere


@dataclass(frozen=True, slots=True)
class TrainingState:
    """Bytes that a trained parameter takes beside activations.

    Attributes:
        weight_bytes, gradient_bytes: of the copies that kernels work on [bytes/parameter].
        optimizer_bytes: master weights and moments [bytes/parameter].

    Source: Rajbhandari et al., ZeRO (arXiv 1910.02054), section 3.1: mixed-precision Adam takes 2 + 2 + 12 bytes.
    """

    weight_bytes: float = 2.0
    gradient_bytes: float = 2.0
    optimizer_bytes: float = 12.0

    def __post_init__(self) -> None:
        for key in ("weight_bytes", "gradient_bytes", "optimizer_bytes"):
            number(key, getattr(self, key), "a number >= 0 bytes a parameter", low=0.0)


@dataclass(frozen=True, slots=True)
class Layout:
    """How a run is spread over xPUs: tensor parallelism within a node, and data parallelism between such groups.

    Attributes:
        tp: xPUs that share each layer, its sequence included.
        zero: stage of ZeRO: 0 shards nothing over all xPUs, 1 the optimizer, 2 gradients too, 3 weights too.
        micro_batch: sequences that a group computes at once.
        sequence: tokens of a sequence.
        recomputation: one of `RECOMPUTATION`.
    """

    tp: int = 1
    zero: int = 3
    micro_batch: int = 1
    sequence: int = 4096
    recomputation: str = "selective"

    def __post_init__(self) -> None:
        for key in ("tp", "micro_batch", "sequence"):
            number(key, getattr(self, key), "a whole number of at least 1", low=1.0)
        if self.zero not in (0, 1, 2, 3):
            raise InputError("zero", self.zero, "0 | 1 | 2 | 3")
        if self.recomputation not in RECOMPUTATION:
            raise InputError("recomputation", self.recomputation, " | ".join(RECOMPUTATION))


@dataclass(frozen=True, slots=True)
class TrainingMemory:
    """Memory of a run by part.

    Attributes:
        weights, gradients, optimizer: of one copy of the model [bytes].
        activations: of one micro-batch in one group of `tp` xPUs [bytes].
        xpus: on how many xPUs.
        per_xpu: what each of them holds [bytes].
    """

    weights: float
    gradients: float
    optimizer: float
    activations: float
    xpus: int
    per_xpu: float


def pairs_per_token(model: Model, sequence: int) -> tuple[float, float]:
    """Mean number of context tokens that a token attends to, itself included: in full and in windowed layers."""
    full = (sequence + 1) / 2.0
    window = min(model.window, sequence)
    return full, (window * (window + 1) / 2.0 + (sequence - window) * window) / sequence


def forward_flops_per_token(model: Model, sequence: int) -> tuple[float, float]:
    """Multiply-adds of one token's forward pass, times two: by parameters (2 N), and in causal attention [FLOP].

    N are the parameters a token passes through, tables of embeddings included, as in the usual 6 N D.
    """
    full, windowed = pairs_per_token(model, sequence)
    attention = model.attention_flops_per_pair(prefill=True) * full
    if model.window_layers:
        attention += model.attention_flops_per_pair(windowed=True, prefill=True) * windowed
    return 2.0 * model.params_active, attention


def training_flops(
    model: Model, tokens: float, sequence: int, attention: bool = True, lora: Lora | None = None
) -> float:
    """Arithmetic of a run, 6 N D + three times that of causal attention [FLOP].

    A backward pass takes twice the forward pass. Where adapters alone are trained, the gradients of the weights are not
    computed: 4 N D, and 6 a parameter of the adapters. What is computed again to save memory does not count, as in MFU.

    Args:
        model: what is trained.
        tokens: tokens that it sees, D.
        sequence: tokens of a sequence.
        attention: False leaves attention out, which is 6 N D alone.
        lora: adapters, or None if all is trained.

    Source: Kaplan et al. (arXiv 2001.08361) for 6 N D; Chowdhery et al., PaLM (arXiv 2204.02311), appendix B, for
    attention and MFU, there without the causal mask; Hu et al., LoRA (arXiv 2106.09685).
    """
    count = number("tokens", tokens, "a number of tokens > 0", above=0.0)
    by_weights, by_attention = forward_flops_per_token(model, sequence)
    by_token = (3.0 if lora is None else 2.0) * by_weights + (3.0 * by_attention if attention else 0.0)
    if lora is not None:
        by_token += 6.0 * lora.params(model)
    return by_token * count


def training_seconds(flops: float, xpus: float, peak_flops: float, mfu: float) -> float:
    """Time of a run, FLOP / (xPUs x peak x MFU) [s].

    LLaMA-65B on 1.4e12 tokens and 2,048 A100 at an MFU of 47 %: 21 days.
    """
    share = number("mfu", mfu, "a share in (0, 1]", above=0.0, high=1.0)
    return flops / (number("xpus", xpus, "a number > 0", above=0.0) * peak_flops * share)


def activation_bytes(model: Model, layout: Layout) -> float:
    """Activations that a group of `tp` xPUs keeps of a micro-batch for the backward pass [bytes].

    With s tokens of b sequences, width h, a heads, v entries of the vocabulary and L layers in 16 bit:

        s b h (34 + 5 a s / h) L    nothing is computed again
        s b h 34 L                  selective: attention is, as FlashAttention does
        s b h (2 L + 34)            full: the input of each layer is kept, and one layer is whole while it runs

    and at both ends s b h + 4 s b h (1 + v / h): dropout of the embedding, last norm, head and logits in 32 bit. The
    sequence is sharded too where layers are (`tp`). Layers are GPT's, of width 4 h; gated ones and experts differ.

    Source: Korthikanti et al. (arXiv 2205.05198), equations 1 to 6 and section 4.3.
    """
    unit = float(layout.sequence * layout.micro_batch * model.hidden)
    whole = 34.0 if layout.recomputation == "selective" else 34.0 + 5.0 * model.heads * layout.sequence / model.hidden
    layers = whole * model.layers
    if layout.recomputation == "full":
        layers = 2.0 * model.layers + 34.0
    return unit * (layers + 1.0 + 4.0 * (1.0 + model.vocab / model.hidden))


def training_memory(
    model: Model,
    layout: Layout,
    xpus: int,
    state: TrainingState | None = None,
    lora: Lora | None = None,
    base_precision: str = "bf16",
) -> TrainingMemory:
    """Memory of a run on so many xPUs, by part.

    Args:
        model: what is trained, or what adapters are trained for.
        layout: how it is spread.
        xpus: all of them; a multiple of `layout.tp`.
        state: bytes of a trained parameter; None for mixed-precision Adam.
        lora: adapters; the model itself then is frozen, in `base_precision`, without gradients or optimizer.
        base_precision: number format of frozen weights.
    """
    kept = state or TrainingState()
    trained = model.params if lora is None else lora.params(model)
    weights = trained * kept.weight_bytes
    if lora is not None:
        weights += model.params * BYTES_PER_VALUE[base_precision]
    parts = {
        "weights": weights,
        "gradients": trained * kept.gradient_bytes,
        "optimizer": trained * kept.optimizer_bytes,
    }
    activations = activation_bytes(model, layout)
    sharded = STATES[len(STATES) - layout.zero :]
    per_xpu = activations / layout.tp
    per_xpu += sum(size / (xpus if name in sharded else layout.tp) for name, size in parts.items())
    return TrainingMemory(parts["weights"], parts["gradients"], parts["optimizer"], activations, xpus, per_xpu)


def fewest_xpus(
    model: Model,
    xpu: XPU,
    layout: Layout,
    state: TrainingState | None = None,
    lora: Lora | None = None,
    base_precision: str = "bf16",
    utilization: float = 0.9,
) -> int:
    """Fewest xPUs, in groups of `layout.tp`, whose memory holds a run.

    Args:
        model, layout, state, lora, base_precision: as in `training_memory`.
        xpu: where; what its runtime reserves is left free.
        utilization: share of the memory that may be used.

    Raises:
        InputError: no number of them holds it; the message says what each would have to hold.
    """
    share = number("utilization", utilization, "a share in (0, 1]", above=0.0, high=1.0)
    room = share * xpu.memory_bytes - xpu.memory_reserved_bytes

    def fits(groups: int) -> bool:
        return training_memory(model, layout, groups * layout.tp, state, lora, base_precision).per_xpu <= room

    most = _LARGEST // layout.tp
    if not fits(most):
        least = training_memory(model, layout, most * layout.tp, state, lora, base_precision).per_xpu
        raise InputError(
            "model",
            model.id,
            f"a model that some number of {xpu.id} can train: each would hold {least / GB:.1f} GB, however many there "
            f"are, and has room for {max(0.0, room) / GB:.1f} GB; shorter sequences, more recomputation, a higher "
            "stage of zero or more tp take less",
        )
    low, high = 0, 1
    while not fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return high * layout.tp


def xpus_for_deadline(flops: float, seconds: float, peak_flops: float, mfu: float) -> int:
    """xPUs that finish a run in so many seconds, the load over the goodput of one."""
    deadline = number("days", seconds, "a time > 0", above=0.0)
    return math.ceil(training_seconds(flops, 1.0, peak_flops, mfu) / deadline)
