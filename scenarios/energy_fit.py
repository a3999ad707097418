"""Measured energy and pace as `scenarios.fitting` compares them, and what a fit says of models or xPUs left out of it.

A case is taken in its steady state: prompts of `n / output` requests join each step of the n that decode. That is the
batch of `scenarios.energy` without its beginning and end, and quick enough to be computed a thousand times.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from scenarios.energy import without_limit
from scenarios.energy_table import Case, Measure
from scenarios.fitting import Fit, Floats, fit
from sim.fleet.spec import Pool
from sim.hardware.pipeline import timing_of
from sim.hardware.xpu import XPU

POWER = ("static_w", "active_w", "compute_w", "memory_w")
STACK = ("step_overhead_s", "layer_overhead_s", "seq_overhead_s", "peer_overhead_s")
_MOST_TOKENS = 2048  #: prompt tokens of a step
_FEWEST_MODELS = 3  #: with fewer, static power and slopes cannot be told apart: the slopes stay by rule


@dataclass(frozen=True, slots=True)
class Sample:
    """One case, what was measured of it and the pool that it ran on."""

    case: Case
    measure: Measure
    pool: Pool


@dataclass(frozen=True, slots=True)
class EnergySource:
    """Cases of energy tables. Coefficients of another xPU are carried over in shares of the power limit.

    Attributes:
        name: what they are called.
        samples: cases with their measurements.
        what: "power" compares joules per token, "stack" the time a token.
    """

    name: str
    samples: Sequence[Sample]
    what: str = "power"

    @property
    def tp(self) -> int:
        """See `Source`; links are not fitted to energy."""
        return 1

    def residuals(self, xpu: XPU) -> Floats:
        """See `Source`: a residual a case."""
        return np.array([np.log(self._ratio(sample, xpu)) for sample in self.samples])

    def errors(self, xpu: XPU, held_out: bool) -> dict[str, float]:
        """See `Source`: nothing is held out here; `left_out` does that by groups."""
        found = np.abs([self._ratio(sample, xpu) - 1.0 for sample in self.samples])
        metric = "J/token" if self.what == "power" else "time a token"
        return {f"{metric}, {key}": float(value) for key, value in _summary(found).items()}

    def _ratio(self, sample: Sample, xpu: XPU) -> float:
        """Simulated over measured."""
        chip = carried_over(xpu, sample.pool.xpu, self.what)
        joules, token_s = steady_state(sample, chip)
        if self.what == "stack":
            return token_s / sample.measure.token_s
        return joules / sample.measure.joules


def carried_over(xpu: XPU, to: XPU, what: str) -> XPU:
    """An xPU with the coefficients of another.

    Overheads of hosts stay as they are. Powers go in shares of TDP, but that of arithmetic by the energy of a FLOP, in
    proportion to the process node, where both nodes are known.
    """
    if what == "stack":
        return replace(to, timing=replace(to.timing, **{name: getattr(xpu.timing, name) for name in STACK}))
    scale = to.tdp_w / xpu.tdp_w
    values = {name: getattr(xpu.power, name) * scale for name in POWER}
    if xpu.node_nm is not None and to.node_nm is not None:
        values["compute_w"] = xpu.power.compute_w * _flop_w(to, to.node_nm) / _flop_w(xpu, xpu.node_nm)
    return replace(to, power=replace(to.power, **values))


def _flop_w(xpu: XPU, node_nm: float) -> float:
    """What power at peak FLOP/s goes with: the rate, and the process node, where 4 nm is of the 5 nm class."""
    return (5.0 if node_nm == 4.0 else node_nm) * (xpu.peak_flops.get("bf16") or xpu.flops("fp16"))


def steady_state(sample: Sample, xpu: XPU) -> tuple[float, float]:
    """Energy [J] and time [s] of an output token; energy at the measured pace where that is known."""
    case, pool = sample.case, sample.pool
    paced_by_file = not np.isnan(sample.measure.token_s)
    timing = timing_of(replace(pool.deployment(), xpu=without_limit(xpu) if paced_by_file else xpu))
    n, context = case.batch, case.prompt + 0.5 * case.output
    cost = timing.step(n, 0, 0)
    windowed = min(context, timing.window or context)
    time = cost.fixed_s + n * (cost.tau * context + cost.tau_w * windowed)
    joules = cost.fixed_j + n * (cost.eps * context + cost.eps_w * windowed)
    if not case.decode_only:
        prompts = max(1, min(_MOST_TOKENS // case.prompt, round(n / case.output)))
        tokens, pairs = prompts * case.prompt, 0.5 * prompts * case.prompt * (case.prompt + 1.0)
        mixed = timing.step(n, tokens, prompts)
        share = n / case.output / prompts  # of the steps, in which prompts join
        time += share * (mixed.fixed_s - cost.fixed_s + timing.rho * mixed.spread * pairs)
        joules += share * (mixed.fixed_j - cost.fixed_j + timing.rho_j * pairs)
    token_s = time / n
    paced = sample.measure.token_s if paced_by_file else token_s
    return min(joules / n + timing.static_w * paced, xpu.tdp_w * pool.xpus_per_replica * paced), token_s


def left_out(
    samples: Sequence[Sample],
    by: Callable[[Sample], str],
    what: str,
    names: Sequence[str],
    groups: Collection[str] | None = None,
) -> dict[str, list[float]]:
    """Signed errors of the cases of each group, with coefficients fitted to all other groups alone.

    Args:
        samples: at least two groups of them.
        by: the group of a sample.
        what, names: which coefficients, see `EnergySource` and `fit`.
        groups: the groups to leave out in turn; None for all.
    """
    errors: dict[str, list[float]] = {}
    for group in dict.fromkeys(map(by, samples)):
        if groups is not None and group not in groups:
            continue
        others = [each for each in samples if by(each) != group]
        held = EnergySource(group, [each for each in samples if by(each) == group], what)
        found = fit_to(others, what, names)
        errors[group] = np.expm1(held.residuals(found.xpu)).tolist()
    return errors


def fit_to(samples: Sequence[Sample], what: str, names: Sequence[str]) -> Fit:
    """Coefficients fitted to all samples, on the first one's xPU."""
    found = names if what == "stack" else determinable(samples, names)
    return fit(samples[0].pool.xpu, [EnergySource("all", samples, what)], found)


def determinable(samples: Sequence[Sample], names: Sequence[str]) -> list[str]:
    """Those of the power coefficients that so many models can tell apart."""
    several = len({each.case.model for each in samples}) >= _FEWEST_MODELS
    return [name for name in names if several or name == "static_w"]


def summary(errors: Mapping[str, Sequence[float]]) -> dict[str, float]:
    """Mean, median and worst absolute error over all cases."""
    return _summary(np.abs([error for group in errors.values() for error in group]))


def _summary(absolute: Floats) -> dict[str, float]:
    return {
        "mean": float(absolute.mean()),
        "median": float(np.median(absolute)),
        "worst": float(absolute.max()),
    }
