"""How long a step takes and what it draws, as functions that are affine in the context of the batch.

A step's duration is a sum over operation classes; with the batch fixed only the context sum grows, so consecutive
steps are an arithmetic progression and the engine can jump over them (see `sim.serving.engine`).

    t = GEMMs(tokens) + head(sequences) + elementwise(tokens) + collectives(tokens) + overheads     (StepCost.fixed_s)
      + tau * ((1 - alpha) * S + alpha * n * M)                                               decode attention
      + tau_w * S_w                                                     decode attention, sliding-window layers
      + (rho * pairs + rho_w * pairs_w) * spread                        prefill attention
      + omega * O                                                       repetition penalties

with S the sum and M the longest of the n decode contexts, S_w the sum of contexts cut off at the window, pairs the
(query, context) pairs of the prefill chunks, and O the tokens that the n have generated. Each group of GEMMs (dense
layers, routed experts, output head) takes max(FLOP / (e_c * peak), bytes / (e_w * bandwidth)). Dynamic energy has the
same form without alpha: each class takes energy by FLOP and byte, and at least active power while it runs
(`PowerCoefficients`). All that does not depend on context, gaps in which the chip waits for its host included, takes at
most what the chip's peak power gives, and so does each kind of attention. Total energy adds static power times t. Where
that would exceed the TDP the chip slows down instead: t = E_dyn / (TDP - P_static).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from typing import NamedTuple, Protocol

from sim.hardware.collectives import grouped_all_reduce_s, most_loaded
from sim.hardware.deployment import Deployment
from sim.hardware.xpu import XPU, Knots
from sim.units import BYTES_PER_VALUE


class StepCost(NamedTuple):
    """Coefficients of one kind of step; see the module's formula. Energy is dynamic energy of the whole replica.

    Attributes:
        fixed_s, fixed_j: whatever does not depend on context [s], [J].
        tau, eps: time and energy per decode context token [s], [J].
        alpha: attention skew in [0, 1].
        tau_w, eps_w: time and energy per windowed decode context token [s], [J].
        never_capped: True if no context can push this step over the power limit.
        spread: share of the step's prefill attention that its duration is made of; the rest runs beside it.
        omega: time per token that the decoding sequences have generated so far [s]; hosts take it, so no energy.
    """

    fixed_s: float
    fixed_j: float
    tau: float
    eps: float
    alpha: float
    tau_w: float
    eps_w: float
    never_capped: bool
    spread: float = 1.0
    omega: float = 0.0


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


class RooflineTiming:
    """`StepTiming` from a chip's peak rates and its efficiencies (`sim.hardware.xpu.TimingCoefficients`).

    Weights that the chip only stores in a format (weight-only quantization) are multiplied in 16 bit.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        model, xpu, tp = deployment.model, deployment.xpu, deployment.tp
        eff = self._eff = xpu.timing
        precision = deployment.precision
        self._bandwidth, self._peak = xpu.bandwidth_bytes_per_s * tp, _compute_peak(xpu, precision) * tp
        self._heads = model.heads / tp  # on each xPU, as the next
        self._kv_heads = 1.0 if model.attention == "mla" else max(1.0, model.kv_heads / tp)
        computed_narrow = precision in xpu.peak_flops and BYTES_PER_VALUE[precision] < 2.0
        self._flops_per_s = self._peak * eff.compute_eff * (eff.narrow_eff if computed_narrow else 1.0)
        self._head_row_s = 2.0 * model.head_params / (_peak_16_bit(xpu) * tp * eff.compute_eff)
        self._head_bytes = model.head_params * max(BYTES_PER_VALUE[precision], 2.0)
        self._expert_flops = 2.0 * model.moe_layers * model.expert_params * model.experts_per_token  # of a token
        self._dense_flops = model.gemm_flops_per_token() - 2.0 * model.head_params - self._expert_flops
        # elementwise kernels pass hidden vectors of 2 bytes a value through memory, sharded like the layers
        self._elementwise_s = eff.activation_passes * 2.0 * model.hidden * model.layers / self._bandwidth
        self._set_attention()
        power = xpu.power
        self.window = model.window if model.window_layers else 0
        self.skewed = any(alpha for _, alpha in (*eff.skew_decode, *eff.skew_mixed))
        self.static_w = power.static_w * tp
        self.idle_w = xpu.idle_w * tp
        self.headroom_w = (xpu.tdp_w - power.static_w) * tp
        self._host_s = eff.step_overhead_s + eff.peer_overhead_s * (tp - 1)
        self._omega = 0.0
        if deployment.penalized_sampling:
            self._host_s += eff.penalty_step_s
            self._omega = eff.penalty_token_s
        self._gemms_cache: dict[int, tuple[float, float]] = {}
        self._head_cache: dict[int, tuple[float, float]] = {}

    def _set_attention(self) -> None:
        """Time and energy per context token and per pair, in full and in windowed layers."""
        deployment, eff = self.deployment, self._eff
        model, xpu, tp, power = deployment.model, deployment.xpu, deployment.tp, deployment.xpu.power
        kv_xpu, full_share = deployment.kv_bytes_per_token_and_xpu, model.full_kv_share
        read_s = kv_xpu / (eff.kv_eff * xpu.bandwidth_bytes_per_s)
        read_j = power.memory_w * tp * kv_xpu / xpu.bandwidth_bytes_per_s
        self._active_w = power.active_w * tp
        self._peak_headroom_w = math.inf if power.peak_w is None else (power.peak_w - power.static_w) * tp
        pair, pair_w = model.attention_flops_per_pair(), model.attention_flops_per_pair(windowed=True)
        prompt = model.attention_flops_per_pair(prefill=True)
        prompt_w = model.attention_flops_per_pair(windowed=True, prefill=True)
        peak16 = _peak_16_bit(xpu)  # whatever the weights' format
        rate = eff.attn_eff * peak16 * tp
        # latent attention does so much arithmetic per byte that it can be bound by that
        self._tau = max(read_s * full_share, pair / rate)
        self._tau_w = max(read_s * (1.0 - full_share), pair_w / rate)
        read_w_j = read_j * (1.0 - full_share)
        self._eps = self._attention_j(self._tau, read_j * full_share + power.compute_w * pair / peak16)
        self._eps_w = self._attention_j(self._tau_w, read_w_j + power.compute_w * pair_w / peak16)
        self.rho, self.rho_w = prompt / rate, prompt_w / rate
        self.rho_j = self._attention_j(self.rho, power.compute_w * prompt / peak16)
        self.rho_w_j = self._attention_j(self.rho_w, power.compute_w * prompt_w / peak16)

    def _work_j(self, seconds: float, joules: float) -> float:
        """Dynamic energy of kernels that run for `seconds` and take `joules` by FLOP and byte."""
        return max(self._active_w * seconds, joules)

    def _attention_j(self, seconds: float, joules: float) -> float:
        return self._held_j(seconds, self._work_j(seconds, joules))

    def _held_j(self, seconds: float, joules: float) -> float:
        """The same energy, at most what the chip's peak power gives."""
        return min(joules, self._peak_headroom_w * seconds)

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `StepTiming.step`."""
        eff, layers = self._eff, self.deployment.model.layers
        tokens, sequences = decoding + prefill_tokens, decoding + prefills
        fixed_s, fixed_j = self._gemms(tokens)
        head_s, head_j = self._head(sequences)
        start_s = self._attention_start_s(decoding, prefill_tokens, prefills)
        fixed_s += head_s + start_s + self._host_s + eff.layer_overhead_s * layers + eff.seq_overhead_s * sequences
        fixed_j = self._held_j(fixed_s, fixed_j + head_j + self._active_w * start_s)
        tau, tau_w = self._tau, self._tau_w
        if prefills:
            # without splitting along the context, each decoding query takes the rows of a whole tile
            tau, tau_w = max(tau, eff.attn_tile * self.rho), max(tau_w, eff.attn_tile * self.rho_w)
            alpha = interpolate(eff.skew_mixed, decoding * self._heads)
        else:
            alpha = interpolate(eff.skew_decode, decoding * self._kv_heads)
        head = self.headroom_w
        never_capped = (
            fixed_j <= head * fixed_s
            and self._eps <= head * tau  # n * M >= S, so skew only adds time
            and self._eps_w <= head * tau_w
            and (not prefills or (self.rho_j <= head * self.rho and self.rho_w_j <= head * self.rho_w))
        )
        return StepCost(fixed_s, fixed_j, tau, self._eps, alpha, tau_w, self._eps_w, never_capped, omega=self._omega)

    def _attention_start_s(self, decoding: int, prefill_tokens: int, prefills: int) -> float:
        """Attention time that does not depend on contexts: launches, split and merge, and the rounding up to tiles."""
        eff, layers = self._eff, self.deployment.model.layers
        if not prefills:
            return layers * interpolate(eff.attn_start, decoding * self._kv_heads)
        rows = prefill_tokens + decoding * eff.attn_tile
        # one grid serves all: a decoding query also gets the tiles that the longest chunk needs, and leaves them idle
        idle_tiles = decoding * self._heads * prefill_tokens / (prefills * eff.attn_tile)
        start_s = layers * (interpolate(eff.attn_start, 0.0) + idle_tiles * eff.idle_tile_s)
        return start_s + rows * eff.attn_pad * (self.rho + self.rho_w)

    def _gemms(self, tokens: int) -> tuple[float, float]:
        """Kernels that depend on the tokens of a step alone, all but head and attention: time [s], energy [J]."""
        known = self._gemms_cache.get(tokens)
        if known is None:
            model, eff, precision = self.deployment.model, self._eff, self.deployment.precision
            weights = model.streamed_bytes(tokens, precision)
            experts = model.visited_experts(tokens)
            expert_bytes = model.moe_layers * experts * model.expert_params * BYTES_PER_VALUE[precision]
            dense_bytes = weights - expert_bytes - self._head_bytes
            seconds = self._gemm_s(self._dense_flops / self._flops_per_s, tokens, dense_bytes, eff.gemm_tile)
            if expert_bytes:
                seconds += self._experts_s(tokens, experts, expert_bytes)
            flops = (self._dense_flops + self._expert_flops) * tokens
            joules = self._work_j(seconds, self._by_work_j(flops, weights - self._head_bytes))
            others_s = self._elementwise_s * tokens + eff.moe_overhead_s * model.moe_layers
            joules += self._active_w * others_s  # collectives keep only a few cores busy: static power
            known = self._gemms_cache[tokens] = (seconds + others_s + self._collectives_s(tokens), joules)
        return known

    def experts(self, tokens: int) -> tuple[float, float]:
        """The GEMMs of routed experts alone: time [s], energy [J]."""
        model, precision = self.deployment.model, self.deployment.precision
        visited = model.visited_experts(tokens)
        nbytes = model.moe_layers * visited * model.expert_params * BYTES_PER_VALUE[precision]
        seconds = self._experts_s(tokens, visited, nbytes)
        return seconds, self._work_j(seconds, self._by_work_j(self._expert_flops * tokens, nbytes))

    def _experts_s(self, tokens: int, visited: float, nbytes: float) -> float:
        """Time of the GEMMs of `visited` experts, whose weights have `nbytes`: as long as the busiest xPU takes."""
        rows = tokens * self.deployment.model.experts_per_token / visited  # tokens that each visited expert sees
        of_tokens, of_weights = self._imbalance(tokens, visited)
        row_s = self._expert_flops * tokens / (rows * self._flops_per_s) * of_tokens
        return self._gemm_s(row_s, rows, nbytes * of_weights) / self._eff.moe_eff

    def _gemm_s(self, row_s: float, rows: float, nbytes: float, tile: int = 1) -> float:
        """Time of GEMMs over `rows` tokens in whole tiles: arithmetic at `row_s` a row, or weights if slower."""
        eff = self._eff
        tiled = -(-rows // tile) * tile
        compute_s = row_s * tiled / interpolate(eff.compute_curve, tiled, 1.0)
        return max(compute_s, nbytes / (eff.weight_eff * self._bandwidth * interpolate(eff.weight_curve, rows, 1.0)))

    def _by_work_j(self, flops: float, nbytes: float) -> float:
        """Energy by FLOP and byte of weights [J]."""
        power, tp = self.deployment.xpu.power, self.deployment.tp
        return (power.compute_w * flops / self._peak + power.memory_w * nbytes / self._bandwidth) * tp

    def _head(self, sequences: int) -> tuple[float, float]:
        """The output head, one row a sequence, in 16 bit also where the layers are narrower; and a sort: [s], [J]."""
        known = self._head_cache.get(sequences)
        if known is None:
            model = self.deployment.model
            seconds = self._gemm_s(self._head_row_s, sequences, self._head_bytes, self._eff.gemm_tile)
            joules = self._work_j(seconds, self._by_work_j(2.0 * model.head_params * sequences, self._head_bytes))
            if self.deployment.sorted_sampling:
                sort_s = self._eff.sort_s * model.vocab * sequences
                seconds, joules = seconds + sort_s, joules + self._active_w * sort_s
            known = self._head_cache[sequences] = (seconds, joules)
        return known

    def _collectives_s(self, tokens: int) -> float:
        """Two all-reduces a layer over the activations, 2 bytes a value."""
        deployment = self.deployment
        if deployment.tp == 1:
            return 0.0
        nbytes, link = tokens * deployment.model.hidden * 2.0, deployment.link
        a_node = deployment.node_xpus or deployment.tp
        each = grouped_all_reduce_s(nbytes, deployment.tp, a_node, link, deployment.between_nodes)
        return 2.0 * deployment.model.layers * each

    def _imbalance(self, tokens: int, experts: float) -> tuple[float, float]:
        """Tokens and weights of the xPU with the busiest experts, over the mean: 1 where all share every expert."""
        model, ranks = self.deployment.model, self.deployment.tp
        if not self.deployment.expert_parallel:
            return 1.0, 1.0
        visits, share = tokens * model.experts_per_token, 1.0 / ranks
        seen = experts / model.experts
        of_tokens = most_loaded(visits * share, visits * share, ranks)
        of_weights = most_loaded(experts * share, model.experts * share * seen * (1.0 - seen), ranks)
        return of_tokens, min(of_weights, ranks * 1.0)


def _compute_peak(xpu: XPU, precision: str) -> float:
    """Peak rate at which weights of this format are multiplied [FLOP/s]."""
    if precision in xpu.peak_flops:
        return xpu.peak_flops[precision]
    if precision in xpu.weight_only_formats:
        return xpu.peak_flops["bf16"] if "bf16" in xpu.peak_flops else xpu.flops("fp16")
    return xpu.flops(precision)


def _peak_16_bit(xpu: XPU) -> float:
    return _compute_peak(xpu, "bf16" if "bf16" in xpu.peak_flops else "fp16")


def interpolate(knots: Knots, x: float, default: float = 0.0) -> float:
    """Piecewise-linear value at x, constant outside the knots, `default` without any."""
    if not knots:
        return default
    at = bisect_left(knots, (x,))
    if at == 0:
        return knots[0][1]
    if at == len(knots):
        return knots[-1][1]
    (x0, y0), (x1, y1) = knots[at - 1], knots[at]
    return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
