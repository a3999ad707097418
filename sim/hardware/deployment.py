"""What one replica is: a model on some xPUs, how it is split over them, and what joins them."""

from __future__ import annotations

from dataclasses import dataclass

from sim.errors import InputError
from sim.hardware.clock_law import ClockLaw
from sim.hardware.collectives import Interconnect
from sim.hardware.model import Model
from sim.hardware.xpu import XPU


@dataclass(frozen=True, slots=True)
class Deployment:
    """One replica: a model on `dp` ranks of `pp` stages of `tp` xPUs in some number formats.

    Attributes:
        model, xpu: what is served, and on what.
        tp, pp: tensor and pipeline parallelism: xPUs that share each layer, and stages of layers.
        dp: data-parallel ranks that share routed experts (`sim.hardware.expert_group`).
        precision, kv_precision: number formats of weights and KV cache.
        sorted_sampling: True if every step sorts the logits, as sampling by top-p or top-k does.
        penalized_sampling: True if every step applies repetition penalties.
        expert_parallel: True if each xPU of a stage, or of all ranks, keeps whole experts instead of a part of each.
        interconnect: what joins the xPUs of a node; None for what the xPU's own entry has.
        node_xpus: xPUs a node; None if all stand in one. internode: what joins nodes.
        budget: most tokens a micro-batch of a pipeline may process.
        power_cap_w: power that each xPU may draw [W]; None for its own limit.
        clock_limit: clock that each xPU may run at, as a share of its highest.
        clock_law: what lower clocks do; needed with either (`sim.hardware.clock`).
    """

    model: Model
    xpu: XPU
    tp: int = 1
    precision: str = "bf16"
    kv_precision: str = "bf16"
    sorted_sampling: bool = False
    pp: int = 1
    expert_parallel: bool = False
    interconnect: Interconnect | None = None
    node_xpus: int | None = None
    internode: Interconnect | None = None
    budget: int = 2048
    penalized_sampling: bool = False
    dp: int = 1
    power_cap_w: float | None = None
    clock_limit: float = 1.0
    clock_law: ClockLaw | None = None

    @property
    def clocked(self) -> bool:
        """Whether a cap or a limit may lower clocks."""
        most_w = min(self.xpu.tdp_w, self.xpu.power.peak_w or self.xpu.tdp_w)
        return self.clock_limit < 1.0 or (self.power_cap_w is not None and self.power_cap_w < most_w)

    @property
    def kv_bytes_per_token_and_xpu(self) -> float:
        """KV bytes each xPU keeps and reads per token: KV heads are sharded, at least one a xPU; MLA is replicated.

        In a pipeline, those of the stage with the most layers.
        """
        share = 1.0 if self.model.attention == "mla" else max(1.0 / self.tp, 1.0 / max(1, self.model.kv_heads))
        return self.model.kv_bytes_per_token(self.kv_precision) * share * self.stage_share

    @property
    def stage_share(self) -> float:
        """Share of the layers that the fullest stage has."""
        return 1.0 if self.pp == 1 else -(-self.model.layers // self.pp) / self.model.layers

    @property
    def link(self) -> Interconnect:
        """What joins the xPUs of a node.

        Raises:
            InputError: nothing does.
        """
        timing = self.xpu.timing
        if self.interconnect is not None:
            return self.interconnect
        if not timing.link_bytes_per_s:
            degrees = {"tp": self.tp, "pp": self.pp, "dp": self.dp}
            key, degree = next((each for each in degrees.items() if each[1] > 1), ("tp", self.tp))
            accepted = f"1 on {self.xpu.id}, which has no link to a peer in the catalogue, or an interconnect beside it"
            raise InputError(key, degree, accepted)
        return Interconnect(self.xpu.id, timing.link_bytes_per_s, timing.link_latency_s)

    @property
    def between_nodes(self) -> Interconnect:
        """What joins nodes: `internode`, or the link within them."""
        return self.internode or self.link

    @property
    def between_stages(self) -> Interconnect:
        """What joins one stage to the next: the slowest hop that there is."""
        spread = self.node_xpus is not None and self.tp * self.pp > self.node_xpus
        return self.between_nodes if spread else self.link
