"""Pipeline parallelism: `pp` stages of a model's layers, and as many micro-batches on their way through them.

One *engine step* stands for one cycle, in which every micro-batch passes all stages once. A stage takes 1/pp of a
micro-batch's time and works on one after the other, so with pp of them on their way a cycle lasts as long as the
largest one takes through the whole model, and the hops between stages:

    t = (whole model, for ceil(n / m) sequences and the largest share of the prompt tokens) + (pp - 1) hops
      + tau / m * S                            each micro-batch reads its own share of the contexts
      + rho * spread * pairs                   spread: the largest micro-batch's share of the prompt tokens

with m = min(pp, sequences) micro-batches. One host prepares them all, one after another, so what does not depend on
contexts takes at least m times the host's time for one. The engine's token budget is that of all micro-batches
together, so prompts pass pp times as fast when there are enough of them, while a short one alone takes as long as
without. Energy adds over the micro-batches, each of which streams the weights. A request that comes during a cycle
waits for the next one, where a real engine lets it into the next micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from sim.errors import InputError
from sim.hardware.clock import ClockedGroupTiming, ClockedTiming
from sim.hardware.collectives import send_s
from sim.hardware.deployment import Deployment
from sim.hardware.expert_group import group_timing
from sim.hardware.timing import RooflineTiming, StepCost, StepTiming


def timing_of(deployment: Deployment, make: Callable[[Deployment], StepTiming] = RooflineTiming) -> StepTiming:
    """The timing of a replica: that of one stage's worth of xPUs as `make` has it, in a pipeline if there is one; or of
    one rank of a data-parallel group."""
    if deployment.clocked:
        if make is not RooflineTiming:
            raise InputError("timing", make, "RooflineTiming with power_cap_w or clock_limit")
        if deployment.dp > 1:
            return ClockedGroupTiming(deployment)
        make = ClockedTiming
    if deployment.dp > 1:
        return group_timing(deployment, make)
    if deployment.pp == 1:
        return make(deployment)
    return PipelineTiming(make(replace(deployment, pp=1)), deployment)


class PipelineTiming:
    """`StepTiming` of a pipeline.

    Args:
        whole: the whole model on the xPUs of one stage.
        deployment: with `pp` stages, and the `budget` of tokens of one micro-batch.
    """

    def __init__(self, whole: StepTiming, deployment: Deployment) -> None:
        self._whole, self._stages, self._budget = whole, deployment.pp, deployment.budget
        self._hop_bytes = 2.0 * deployment.model.hidden / deployment.tp  # each xPU sends its part of the activations
        self._link = deployment.between_stages
        host = deployment.xpu.timing
        self._host_s = host.step_overhead_s + host.peer_overhead_s * (deployment.tp - 1)
        self._host_seq_s = host.seq_overhead_s
        self.rho, self.rho_j, self.rho_w, self.rho_w_j = whole.rho, whole.rho_j, whole.rho_w, whole.rho_w_j
        self.window, self.skewed = whole.window, whole.skewed
        self.static_w, self.idle_w = whole.static_w * self._stages, whole.idle_w * self._stages
        self.headroom_w = whole.headroom_w * self._stages

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `StepTiming.step`: one cycle."""
        batches = max(1, min(self._stages, decoding + prefills))
        tokens = min(prefill_tokens, self._budget)
        share = tokens / prefill_tokens if prefills else 1.0
        mine, prompts = -(-decoding // batches), -(-prefills * tokens // max(prefill_tokens, 1))
        cost = self._whole.step(mine, tokens, prompts)
        fixed_s = cost.fixed_s + (self._stages - 1) * send_s((mine + tokens) * self._hop_bytes, self._link)
        fixed_s = max(fixed_s, batches * (self._host_s + self._host_seq_s * (mine + prompts)))
        fixed_j = self._joules(decoding, prefill_tokens, prefills, batches)
        tau, tau_w, head = cost.tau / batches, cost.tau_w / batches, self.headroom_w
        capped_never = (
            fixed_j <= head * fixed_s
            and cost.eps <= head * tau
            and cost.eps_w <= head * tau_w
            and (not prefills or (self.rho_j <= head * self.rho * share and self.rho_w_j <= head * self.rho_w * share))
        )
        omega = cost.omega / batches
        return StepCost(fixed_s, fixed_j, tau, cost.eps, cost.alpha, tau_w, cost.eps_w, capped_never, share, omega)

    def _joules(self, decoding: int, prefill_tokens: int, prefills: int, batches: int) -> float:
        """Energy of all micro-batches: prompts fill as few as their budget allows, decodes are spread evenly."""
        of_prompts = min(batches, max(1, -(-prefill_tokens // self._budget))) if prefills else 0
        joules = 0.0
        if of_prompts:
            each, prompts = -(-prefill_tokens // of_prompts), -(-prefills // of_prompts)
            joules = of_prompts * self._whole.step(-(-decoding // batches), each, prompts).fixed_j
        if batches > of_prompts and decoding:
            joules += (batches - of_prompts) * self._whole.step(-(-decoding // batches), 0, 0).fixed_j
        return joules
