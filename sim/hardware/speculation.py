"""Speculative decoding: a step verifies some drafted tokens of each sequence along with the next one.

The target reads the context of a sequence once for all of its tokens in the step, so verifying costs GEMM rows and
little memory traffic; what drafting costs depends on who drafts: nobody (the tokens are found in the text so far,
*n-gram*), a layer of the model's own (*MTP*, multi-token prediction), or a small model.
"""

from __future__ import annotations

from dataclasses import replace

from sim.errors import InputError
from sim.hardware.model import Model
from sim.hardware.timing import StepCost, StepTiming

METHODS = ("ngram", "mtp", "draft_model")
PARTS = 16  #: parts of a token that the pace is rounded to


def tokens_a_step(acceptance: float, drafts: int) -> float:
    """Expected tokens of a step where each drafted token is accepted with one probability, if those before it were.

    Source: Leviathan et al. (arXiv 2211.17192), equation 1.
    """
    if acceptance == 1.0:
        return drafts + 1.0
    return float((1.0 - acceptance ** (drafts + 1)) / (1.0 - acceptance))


def acceptance_of(tokens: float, drafts: int) -> float:
    """The acceptance rate with which a step yields `tokens` tokens on average: `tokens_a_step` the other way round."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        mean = sum(
            middle**i for i in range(drafts + 1)
        )  # the sum keeps its digits near 1, where its closed form does not
        low, high = (middle, high) if mean < tokens else (low, middle)
    return high


def pace(acceptance: float, drafts: int) -> int:
    """`tokens_a_step` in parts of a token."""
    return max(PARTS, round(PARTS * tokens_a_step(acceptance, drafts)))


def mtp_layer(model: Model) -> Model:
    """The layer that drafts for a model with multi-token prediction: one like the others, beside the shared head.

    Source: DeepSeek-V3 (arXiv 2412.19437), section 2.2.
    """
    experts = model.experts * model.expert_params if model.moe_layers else 0.0
    visited = model.experts_per_token * model.expert_params if model.moe_layers else 0.0
    others = model.params - model.embedding_params - model.head_params - model.moe_layers * experts
    layer = max(others, 0.0) / model.layers
    windowed = model.window_layers == model.layers
    return replace(
        model,
        id=f"{model.id} (MTP layer)",
        layers=1,
        window=model.window if windowed else 0,
        window_layers=int(windowed),
        linear_layers=0,
        moe_layers=min(1, model.moe_layers),
        params=layer + experts + model.head_params,
        params_active=layer + visited + model.head_params,
        embedding_params=0.0,
    )


def drafting_model(method: str, target: Model, draft: Model | None) -> Model | None:
    """Who drafts; None with n-grams."""
    return mtp_layer(target) if method == "mtp" else draft if method == "draft_model" else None


class SpeculativeTiming:
    """`StepTiming` of a target that verifies `drafts` tokens a sequence, drafted by `draft` one after the other.

    The arithmetic of attention for the drafted tokens, small beside reading the context, is left out, and so is the
    search for n-grams, which runs on the host.

    Raises:
        InputError: target and draft have windows of different size.
    """

    def __init__(self, target: StepTiming, drafts: int, draft: StepTiming | None) -> None:
        if draft is not None and draft.window not in (0, target.window):
            accepted = f"a model with a window of {target.window} tokens as its target has, or with none"
            raise InputError("draft", f"a window of {draft.window}", accepted)
        self._target, self._drafts, self._draft = target, drafts, draft
        parts = [target] if draft is None else [target, draft]
        self.rho, self.rho_j = sum(each.rho for each in parts), sum(each.rho_j for each in parts)
        self.rho_w, self.rho_w_j = sum(each.rho_w for each in parts), sum(each.rho_w_j for each in parts)
        self.window, self.skewed = target.window, any(each.skewed for each in parts)
        self.static_w, self.idle_w, self.headroom_w = target.static_w, target.idle_w, target.headroom_w

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `StepTiming.step`."""
        cost = self._target.step(decoding * (1 + self._drafts), prefill_tokens, prefills)
        if decoding:
            alone = self._target.step(decoding, prefill_tokens, prefills)
            cost = cost._replace(tau=alone.tau, tau_w=alone.tau_w, alpha=alone.alpha)
        if self._draft is None:
            return cost
        if prefills:
            first = self._draft.step(0, prefill_tokens, prefills)
            cost = _sum(cost, first._replace(tau=0.0, eps=0.0, alpha=0.0, tau_w=0.0, eps_w=0.0), 1)
        return _sum(cost, self._draft.step(decoding, 0, 0), self._drafts) if decoding else cost


def _sum(one: StepCost, other: StepCost, times: int) -> StepCost:
    """A step, and after it another `times` times."""
    tau = one.tau + times * other.tau
    skew = one.tau * one.alpha + times * other.tau * other.alpha
    return StepCost(
        one.fixed_s + times * other.fixed_s,
        one.fixed_j + times * other.fixed_j,
        tau,
        one.eps + times * other.eps,
        skew / tau if tau else 0.0,
        one.tau_w + times * other.tau_w,
        one.eps_w + times * other.eps_w,
        one.never_capped and other.never_capped,
        one.spread,
        one.omega,
    )
