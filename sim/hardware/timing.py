"""How long a step takes and what it draws, as functions that are affine in the context of the batch.

A step's duration is a sum over operation classes; with the batch fixed only the context sum grows, so consecutive
steps are an arithmetic progression and the engine can jump over them (see `sim.serving.engine`).

    t = max(F_gemm / (e_c * peak), W / (e_w * bw)) + comm + t_step + t_layer * L + t_seq * n     (StepCost.fixed_s)
      + tau * ((1 - alpha) * S + alpha * n * M)                                               decode attention
      + tau_w * S_w                                                     decode attention, sliding-window layers
      + rho * pairs + rho_w * pairs_w                                   prefill attention

with S the sum and M the longest of the n decode contexts, S_w the sum of contexts cut off at the window, and pairs
the (query, context) pairs of the prefill chunks. Dynamic energy has the same form without alpha; total energy adds
static power times t. Where that would exceed the TDP the chip slows down instead: t = E_dyn / (TDP - P_static).
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from sim.errors import InputError
from sim.hardware.model import Model
from sim.hardware.xpu import XPU


class StepCost(NamedTuple):
    """Coefficients of one kind of step; see the module's formula. Energy is dynamic energy of the whole replica.

    Attributes:
        fixed_s, fixed_j: whatever does not depend on context [s], [J].
        tau, eps: time and energy per decode context token [s], [J].
        alpha: attention skew in [0, 1].
        tau_w, eps_w: time and energy per windowed decode context token [s], [J].
        never_capped: True if no context can push this step over the power limit.
    """

    fixed_s: float
    fixed_j: float
    tau: float
    eps: float
    alpha: float
    tau_w: float
    eps_w: float
    never_capped: bool


class StepTiming(Protocol):
    """A timing model: one cost per kind of step. Implement this to bring one's own.

    Attributes:
        rho, rho_j: time and energy per (query, context) pair of prefill attention [s], [J].
        rho_w, rho_w_j: the same per windowed pair.
        window: tokens a windowed layer attends to; 0 if the model has none.
        skewed: False if alpha is 0 in every step.
        static_w: power of a busy replica beside its dynamic energy [W].
        idle_w: power of an idle replica [W].
        headroom_w: dynamic power above `static_w` at which the replica is at its limit [W].
    """

    rho: float
    rho_j: float
    rho_w: float
    rho_w_j: float
    window: int
    skewed: bool
    static_w: float
    idle_w: float
    headroom_w: float

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """Cost of a step over `decoding` sequences and `prefills` chunks of `prefill_tokens` tokens in all.

        Engines ask once for each kind of step and keep the answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Deployment:
    """One replica: a model on `tp` xPUs in some number formats."""

    model: Model
    xpu: XPU
    tp: int = 1
    precision: str = "bf16"
    kv_precision: str = "bf16"

    @property
    def kv_bytes_per_token_and_xpu(self) -> float:
        """KV bytes each xPU keeps and reads per token: KV heads are sharded, at least one a xPU; MLA is replicated."""
        share = 1.0 if self.model.attention == "mla" else max(1.0 / self.tp, 1.0 / max(1, self.model.kv_heads))
        return self.model.kv_bytes_per_token(self.kv_precision) * share


class RooflineTiming:
    """`StepTiming` from a chip's peak rates and its efficiencies (`sim.hardware.xpu.TimingCoefficients`).

    Weights that the chip only stores in a format (weight-only quantization) are multiplied in 16 bit.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        model, xpu, tp = deployment.model, deployment.xpu, deployment.tp
        eff, power = xpu.timing, xpu.power
        self._peak = _compute_peak(xpu, deployment.precision)
        self._head_params = model.vocab * model.hidden
        self._body_flops = model.gemm_flops_per_token() - 2.0 * self._head_params
        kv_xpu = deployment.kv_bytes_per_token_and_xpu
        full_share = model.full_kv_share
        read_s = kv_xpu / (eff.kv_eff * xpu.bandwidth_bytes_per_s)
        read_j = power.memory_w * tp * kv_xpu / xpu.bandwidth_bytes_per_s
        pair, pair_w = model.attention_flops_per_pair(), model.attention_flops_per_pair(windowed=True)
        prompt = model.attention_flops_per_pair(prefill=True)
        prompt_w = model.attention_flops_per_pair(windowed=True, prefill=True)
        # attention arithmetic runs in 16 bit whatever the weights' format
        peak16 = _compute_peak(xpu, "bf16" if "bf16" in xpu.peak_flops else "fp16")
        self._tau, self._tau_w = read_s * full_share, read_s * (1.0 - full_share)
        self._eps = read_j * full_share + power.compute_w * pair / peak16
        self._eps_w = read_j * (1.0 - full_share) + power.compute_w * pair_w / peak16
        self.rho, self.rho_w = (each / (eff.attn_eff * peak16 * tp) for each in (prompt, prompt_w))
        self.rho_j, self.rho_w_j = (power.compute_w * each / peak16 for each in (prompt, prompt_w))
        self.window = model.window if model.window_layers else 0
        self.skewed = any(alpha for _, alpha in (*eff.skew_decode, *eff.skew_mixed))
        self.static_w = power.static_w * tp
        self.idle_w = xpu.idle_w * tp
        self.headroom_w = (xpu.tdp_w - power.static_w) * tp
        self._tokens_cache: dict[int, tuple[float, float]] = {}

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `StepTiming.step`."""
        xpu, tp = self.deployment.xpu, self.deployment.tp
        eff, power = xpu.timing, xpu.power
        tokens, sequences = decoding + prefill_tokens, decoding + prefills
        flops = self._body_flops * tokens + 2.0 * self._head_params * sequences
        weights, other_s = self._by_tokens(tokens)
        compute_s = flops / (eff.compute_eff * self._peak * tp)
        stream_s = weights / (eff.weight_eff * xpu.bandwidth_bytes_per_s * tp)
        fixed_s = max(compute_s, stream_s) + other_s + eff.seq_overhead_s * sequences
        fixed_j = power.compute_w * flops / self._peak + power.memory_w * weights / xpu.bandwidth_bytes_per_s
        alpha = _interpolate(eff.skew_mixed if prefills else eff.skew_decode, decoding)
        head = self.headroom_w
        never_capped = (
            fixed_j <= head * fixed_s
            and self._eps <= head * self._tau  # n * M >= S, so skew only adds time
            and self._eps_w <= head * self._tau_w
            and (not prefills or (self.rho_j <= head * self.rho and self.rho_w_j <= head * self.rho_w))
        )
        return StepCost(fixed_s, fixed_j, self._tau, self._eps, alpha, self._tau_w, self._eps_w, never_capped)

    def _by_tokens(self, tokens: int) -> tuple[float, float]:
        """What depends on the tokens of a step alone: weight bytes it reads, and time for collectives and overheads."""
        known = self._tokens_cache.get(tokens)
        if known is None:
            model, eff = self.deployment.model, self.deployment.xpu.timing
            weights = model.streamed_bytes(tokens, self.deployment.precision)
            other_s = self._collectives_s(tokens) + eff.step_overhead_s + eff.layer_overhead_s * model.layers
            known = self._tokens_cache[tokens] = (weights, other_s)
        return known

    def _collectives_s(self, tokens: int) -> float:
        """Two ring all-reduces a layer over the activations: latency + 2 (tp-1)/tp * bytes / link."""
        tp, eff = self.deployment.tp, self.deployment.xpu.timing
        if tp == 1:
            return 0.0
        if not eff.link_bytes_per_s:
            raise InputError("tp", tp, f"1 on {self.deployment.xpu.id}, which has no link to a peer in the catalogue")
        nbytes = tokens * self.deployment.model.hidden * 2.0
        ring_s = 2.0 * (tp - 1) / tp * nbytes / eff.link_bytes_per_s
        return 2.0 * self.deployment.model.layers * (eff.link_latency_s + ring_s)


def _compute_peak(xpu: XPU, precision: str) -> float:
    """Peak rate at which weights of this format are multiplied [FLOP/s]."""
    if precision in xpu.peak_flops:
        return xpu.peak_flops[precision]
    if precision in xpu.weight_only_formats:
        return xpu.peak_flops["bf16"] if "bf16" in xpu.peak_flops else xpu.flops("fp16")
    return xpu.flops(precision)


def _interpolate(knots: tuple[tuple[float, float], ...], n: float) -> float:
    """Piecewise-linear value at n, constant outside the knots, 0 without any."""
    if not knots:
        return 0.0
    at = bisect_left(knots, (n,))
    if at == 0:
        return knots[0][1]
    if at == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[at - 1], knots[at]
    return y0 + (y1 - y0) * (n - x0) / (x1 - x0)
