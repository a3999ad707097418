"""Data-parallel attention with expert parallelism: what the steps of one rank cost, and what its group adds.

Each of `dp` ranks computes attention, dense layers and output head of its own sequences on its own `tp` xPUs; the
routed experts are spread whole over all N = dp * tp xPUs. Between the two, every token travels to the xPUs that keep
its experts (dispatch) and its results back (combine). So a step costs what its rank computes, and what the group does
at once:

    own cost      as a model without routed experts on tp xPUs; tokens of a layer with experts are gathered within the
                  rank once, where a dense layer reduces twice
    common cost   experts of all T tokens of the group: distinct ones read, the busiest xPU waited for, on N xPUs
                + 2 all-to-alls a layer of 2 bytes a value, as long as the xPU with most bytes takes:
                  max(most tokens of a rank / tp * v, T / N * v * tokens of the busiest xPU over the mean)

with v the other xPUs that a token is expected to visit. T and the largest share of it are known when a step is planned
and stay the same for a whole span, so steps stay affine. A rank that waits polls in kernels, at `active_w`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from sim.errors import InputError
from sim.hardware.collectives import all_gather_s, all_to_all_s, most_loaded
from sim.hardware.deployment import Deployment
from sim.hardware.model import Model
from sim.hardware.timing import RooflineTiming, StepCost, StepTiming


class GroupTiming(StepTiming, Protocol):
    """What the steps of a rank cost, and what they cost besides for being one of a group.

    Attributes:
        wait_w: dynamic power of a rank that waits for the others [W].
    """

    wait_w: float

    def common(self, tokens: int, most: int) -> complex:
        """What each rank takes besides in a step of `tokens` tokens over all ranks, `most` of them on one.

        Returns:
            Time and the rank's part of the dynamic energy, as seconds + 1j * joules.
        """
        ...


def group_timing(deployment: Deployment, make: Callable[[Deployment], StepTiming]) -> GroupTiming:
    """The timing of a rank of a data-parallel group.

    Raises:
        InputError: the user's own timing model knows no groups.
    """
    if make is RooflineTiming:
        return ExpertGroupTiming(deployment)
    made: Any = make(deployment)
    if not (hasattr(made, "common") and hasattr(made, "wait_w")):
        raise InputError("timing", type(made).__name__, "RooflineTiming with dp, or a model with `common` and `wait_w`")
    group: GroupTiming = made
    return group


def others_visited(experts: int, a_token: int, xpus: int) -> float:
    """Other xPUs that a token is expected to visit, if it picks `a_token` of `experts` at random."""
    share, missed = experts / xpus, 1.0
    for picked in range(a_token):
        missed *= max(0.0, experts - share - picked) / (experts - picked)
    return (xpus - 1) * (1.0 - missed)


def without_experts(model: Model) -> Model:
    """The part of a model that every rank has for itself: all but the routed experts."""
    return replace(
        model,
        params=model.params - model.moe_layers * model.experts * model.expert_params,
        params_active=model.params_active - model.moe_layers * model.experts_per_token * model.expert_params,
        experts=0,
        experts_per_token=0,
        moe_layers=0,
        expert_params=0.0,
    )


class ExpertGroupTiming(RooflineTiming):
    """`GroupTiming` from a chip's peak rates and its efficiencies."""

    def __init__(self, deployment: Deployment) -> None:
        model, tp = deployment.model, deployment.tp
        super().__init__(replace(deployment, model=without_experts(model), dp=1, expert_parallel=False))
        self._group, self._xpus, self._moe_layers = deployment, deployment.dp * tp, model.moe_layers
        self._whole = RooflineTiming(replace(deployment, tp=self._xpus, dp=1))
        self._visits = others_visited(model.experts, model.experts_per_token, self._xpus)
        self._experts_cache: dict[int, tuple[complex, float]] = {}
        self.wait_w = min(self._active_w, self.headroom_w)

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `StepTiming.step`: the rank's own cost. The common one may exceed the power limit at any time."""
        return super().step(decoding, prefill_tokens, prefills)._replace(never_capped=False)

    def common(self, tokens: int, most: int) -> complex:
        """See `GroupTiming.common`."""
        known = self._experts_cache.get(tokens)
        if known is None:
            known = self._experts_cache[tokens] = self._experts(tokens)
        experts, received = known
        sent = max(most / self._group.tp * self._visits, received)
        moved_s = 2.0 * self._moe_layers * self.all_to_all_s(sent)
        return experts + complex(moved_s, self._active_w * moved_s)

    def all_to_all_s(self, tokens: float) -> float:
        """One dispatch or combine in which the busiest xPU moves `tokens` hidden vectors [s]."""
        group = self._group
        nbytes = tokens * group.model.hidden * 2.0
        a_node = group.node_xpus or self._xpus
        return all_to_all_s(nbytes, self._xpus, a_node, group.link, group.between_nodes)

    def _experts(self, tokens: int) -> tuple[complex, float]:
        """The experts of `tokens` tokens for one rank, and the tokens that come to the busiest xPU from others."""
        group, layers = self._group, self._moe_layers
        seconds, joules = self._whole.experts(tokens)
        others_s = self._eff.moe_overhead_s * layers
        mean = tokens * group.model.experts_per_token / self._xpus
        received = tokens * self._visits / self._xpus * most_loaded(mean, mean, self._xpus)
        cost = complex(seconds + others_s, joules / group.dp + self._active_w * others_s)
        return cost, min(received, float(tokens))

    def _collectives_s(self, tokens: int) -> float:
        """Within the rank: two all-reduces a dense layer, one and an all-gather a layer with experts."""
        reduces_s = super()._collectives_s(tokens)
        if not reduces_s:
            return 0.0
        group = self._group
        each = reduces_s / (2.0 * group.model.layers)
        gather_s = all_gather_s(tokens * group.model.hidden * 2.0, group.tp, group.link)
        return reduces_s - self._moe_layers * (each - gather_s)
