"""A batch of equal requests on one GPU, prefill and decode apart: energy and time a token, and carbon of both kinds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scenarios.deployment import Requests, serve
from scenarios.energy import pool_for
from scenarios.energy_table import Case
from sim.accounting.embodied import Embodied
from sim.fleet.spec import Pool
from sim.hardware import sizing
from sim.hardware.model import Model
from sim.hardware.xpu import XPU
from sim.units import JOULES_PER_KWH

PHASES = ("prefill", "decode")


@dataclass(frozen=True, slots=True)
class Spent:
    """What a token of a phase takes, prompt tokens in prefill and output tokens in decode: GPU energy [J], time [s]."""

    joules: float
    seconds: float

    @property
    def power_w(self) -> float:
        """Mean power of the GPU [W]."""
        return self.joules / self.seconds


@dataclass(frozen=True, slots=True)
class Around:
    """What stands around a GPU and is charged for the time it takes.

    Attributes:
        embodied: of the GPU and, if it counts, of its share of a host.
        host_w: power of that share [W].
        pue: facility energy over that of GPU and host.
    """

    embodied: tuple[Embodied, ...]
    host_w: float = 0.0
    pue: float = 1.0

    def carbon_g(self, spent: Spent, g_per_kwh: float) -> tuple[float, float]:
        """Operational and embodied carbon of a token [g CO2e]."""
        joules = self.pue * (spent.joules + self.host_w * spent.seconds)
        making_g_per_s = sum(each.g_per_s() for each in self.embodied)
        return joules / JOULES_PER_KWH * g_per_kwh, making_g_per_s * spent.seconds


def pool_of(
    model: Model, xpu: XPU, precision: str, batch: int, tokens: tuple[int, int], share: float, search: Sequence[Path]
) -> Pool:
    """One GPU whose engine takes all of a batch in one step.

    Args:
        model, xpu: what runs; the xPU may differ from its entry in the catalogue.
        precision: format of the weights.
        batch: requests.
        tokens: prompt and output of each.
        share: of the memory that the engine may use.
        search: further folders of entries.
    """
    case = Case(model.id, xpu.id, 1, precision, batch, *tokens, decode_only=True, stack=None)
    return replace(pool_for(case, {"engine.gpu_memory_utilization": share}, search), xpu=xpu)


def room(pool: Pool, tokens: int) -> int:
    """Sequences of `tokens` that the GPU's memory holds at once; 0 where the model itself does not fit."""
    size, engine = pool.engine.block_size, pool.engine
    blocks = sizing.kv_blocks(
        pool.model,
        pool.xpu,
        precision=pool.precision,
        kv_precision=pool.kv_precision,
        block_size=size,
        gpu_memory_utilization=engine.gpu_memory_utilization,
    )
    return max(0, blocks - 1) // -(-tokens // size)  # one block is the engine's own


def spend(pool: Pool, batch: int, prompt: int, output: int) -> dict[str, Spent]:
    """Serve a batch that is there at once, and split what it takes by phase."""
    size = np.full(batch, 1, dtype=np.int64)
    column = serve(pool, Requests(np.zeros(batch), size * prompt, size * output)).requests
    prefill_j = float(column["energy_prefill_j"].sum())
    decode_j = float(column["energy_j"].sum()) - prefill_j
    prompts, outputs = batch * prompt, batch * (output - 1)  # the first token comes with the prefill
    return {
        "prefill": Spent(prefill_j / prompts, float(column["prefill_s"].max()) / prompts),
        "decode": Spent(decode_j / outputs, float(column["decode_s"].max()) / outputs),
    }
