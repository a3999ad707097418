"""How many xPUs training, full fine-tuning and adapters need, for how long, and what that takes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from scenarios.size_inputs import JobAsk, SizeInputs
from sim.accounting.job import JobAccount, JobRates, job_account
from sim.errors import InputError
from sim.fleet.spec import Pool
from sim.hardware.lora import Lora, target_shapes
from sim.hardware.model import Model
from sim.hardware.training import (
    RECOMPUTATION,
    Layout,
    TrainingMemory,
    activation_bytes,
    fewest_xpus,
    training_flops,
    training_memory,
    training_seconds,
    xpus_for_deadline,
)
from sim.hardware.xpu import XPU
from sim.units import SECONDS_PER_HOUR

_DAY_S = 24.0 * SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class JobPlan:
    """A job on its xPUs.

    Attributes:
        name: training | fine_tuning | lora.
        tokens, flops, mfu: what is computed, and at what share of the peak.
        trained_params: parameters that are trained.
        layout, memory: how it is spread, and what each part takes.
        activations: of a micro-batch, by kind of recomputation [bytes].
        memory_xpus, load_xpus, xpus: fewest that hold it, those that finish in time, and those that are taken.
        seconds, account: time and books on `xpus`.
        least_seconds: time on `memory_xpus` [s].
        nodes, capital_usd: whole nodes of `xpus`, and their price; None where not known.
        entry_nodes, entry_usd: the same of `memory_xpus`: the least with which one can begin.
    """

    name: str
    tokens: float
    flops: float
    mfu: float
    trained_params: float
    layout: Layout
    memory: TrainingMemory
    activations: dict[str, float]
    memory_xpus: int
    load_xpus: int
    xpus: int
    seconds: float
    account: JobAccount
    least_seconds: float
    nodes: int
    capital_usd: float | None
    entry_nodes: int
    entry_usd: float | None

    @property
    def bound(self) -> str:
        """What decides the number of xPUs."""
        return "memory" if self.memory_xpus >= self.load_xpus else "time"


def plan_job(ask: JobAsk, pool: Pool, rates: JobRates, price_usd: float | None, inputs: SizeInputs) -> JobPlan:
    """Size one job.

    Raises:
        InputError: no number of these xPUs holds it, fewer are given than do, or the model cannot have the adapters.
    """
    model, xpu = pool.model, pool.xpu
    lora = _adapters(model, inputs) if ask.name == "lora" else None
    tokens = ask.tokens or (ask.tokens_per_param or 0.0) * model.params_active
    sequence = min(ask.sequence, model.max_context)
    flops = training_flops(model, tokens, sequence, inputs.attention, lora)
    memory_xpus, layout = _least(model, pool, replace(inputs.layout, sequence=sequence), inputs, lora)
    peak = xpu.flops("bf16" if "bf16" in xpu.peak_flops else "fp16")
    load_xpus = xpus_for_deadline(flops, ask.days * _DAY_S, peak, ask.mfu)
    if ask.xpus is not None and ask.xpus < memory_xpus:
        raise InputError(
            f"{ask.name}.xpus", ask.xpus, f"at least {memory_xpus} {xpu.id}, whose memory holds {model.id}"
        )
    xpus = ask.xpus or max(memory_xpus, -(-load_xpus // layout.tp) * layout.tp)
    seconds = training_seconds(flops, xpus, peak, ask.mfu)
    base = inputs.lora.base_precision
    nodes, capital = whole_nodes(xpus, price_usd, inputs)
    entry_nodes, entry = whole_nodes(memory_xpus, price_usd, inputs)
    return JobPlan(
        ask.name,
        tokens,
        flops,
        ask.mfu,
        model.params if lora is None else lora.params(model),
        layout,
        training_memory(model, layout, xpus, inputs.state, lora, base),
        {kind: activation_bytes(model, replace(layout, recomputation=kind)) for kind in RECOMPUTATION},
        memory_xpus,
        load_xpus,
        xpus,
        seconds,
        job_account(xpus, seconds, rates),
        training_seconds(flops, memory_xpus, peak, ask.mfu),
        nodes,
        capital,
        entry_nodes,
        entry,
    )


def whole_nodes(xpus: int, price_usd: float | None, inputs: SizeInputs) -> tuple[int, float | None]:
    """Nodes that hold so many xPUs, and what they cost to buy [USD]."""
    nodes = math.ceil(xpus / inputs.node_xpus)
    price = None if price_usd is None else nodes * inputs.node_xpus * price_usd * inputs.node_price_ratio
    return nodes, price


def _adapters(model: Model, inputs: SizeInputs) -> Lora:
    shapes = target_shapes(model)
    targets = inputs.lora.targets or tuple(shapes)
    if not targets:
        raise InputError("lora.targets", None, f"{model.id} has no target as one matrix a layer")
    lora = Lora(inputs.lora.rank, targets)
    try:
        lora.params(model)
    except InputError as error:
        raise InputError(f"lora.{error.key}", error.value, error.accepted) from error
    return lora


def _least(model: Model, pool: Pool, layout: Layout, inputs: SizeInputs, lora: Lora | None) -> tuple[int, Layout]:
    """Fewest xPUs that hold a job, over degrees of tensor parallelism within a node; at equal numbers the least."""
    best: tuple[int, Layout] | None = None
    refused: InputError | None = None
    for tp in _degrees(model, pool.xpu, pool.interconnect is not None, inputs):
        tried = replace(layout, tp=tp)
        try:
            count = fewest_xpus(
                model, pool.xpu, tried, inputs.state, lora, inputs.lora.base_precision, inputs.utilization
            )
        except InputError as error:
            refused = error
            continue
        if best is None or count < best[0]:
            best = count, tried
    if best is None:
        raise refused or InputError("layout.tp", inputs.layout_tp, "a degree that divides the heads of the model")
    return best


def _degrees(model: Model, xpu: XPU, joined: bool, inputs: SizeInputs) -> Iterator[int]:
    if inputs.layout_tp is not None:
        tp = inputs.layout_tp
        if tp > inputs.node_xpus or model.heads % tp:
            accepted = f"a divisor of the {model.heads} heads of {model.id}, within a node of {inputs.node_xpus}"
            raise InputError("layout.tp", tp, accepted)
        yield tp
        return
    most = inputs.node_xpus if joined or xpu.timing.link_bytes_per_s else 1
    yield from (2**i for i in range(8) if 2**i <= most and model.heads % 2**i == 0)
