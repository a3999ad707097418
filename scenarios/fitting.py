"""Fits the coefficients of an xPU to measurements: bounded least squares, and what the data cannot determine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sim.hardware.xpu import XPU

Floats = npt.NDArray[np.float64]

EFFICIENCIES = ("compute_eff", "weight_eff", "kv_eff", "attn_eff")
OVERHEADS = ("step_overhead_s", "layer_overhead_s", "seq_overhead_s", "peer_overhead_s")
POWER = ("static_w", "active_w", "compute_w", "memory_w")
LINK = ("link_bytes_per_s", "link_latency_s")  #: only seen with tensor parallelism
#: Bounds around the start: efficiencies and rates change little between engines, overheads much more, and may vanish.
_EFFICIENCY_FACTOR, _OVERHEAD_FACTOR, _POWER_FACTOR = 2.0, 8.0, 3.0
_MOST_STATIC = 0.8  #: of the power limit
_HIGHEST_EFFICIENCY = 1.1  #: of peak rates; boards boost above their rated clocks
#: Standard error, as a share of the start, above which a coefficient counts as not determined.
UNDETERMINED = 0.25
#: Step of the finite differences, as a share of the start: wide, for preemptions make a replay move in jumps.
_STEP = 0.03
_LEAST_NOISE = 0.01  #: no measurement is taken for better than this
_LEAST_CURVATURE = 1e-10  #: of columns of length 1; below lies rounding
_LOSS_SCALE = 0.05  #: relative errors beyond which a residual counts less than its square


class Source(Protocol):
    """Measurements that a set of coefficients can be compared with."""

    @property
    def name(self) -> str:
        """What it is called."""
        ...

    @property
    def tp(self) -> int:
        """Tensor-parallel degree of what was measured."""
        ...

    def residuals(self, xpu: XPU) -> Floats:
        """Logarithms of simulated over measured times, of the share that is fitted."""
        ...

    def errors(self, xpu: XPU, held_out: bool) -> dict[str, float]:
        """Signed relative errors by name, of the share that is fitted or of the one that is held out."""
        ...


@dataclass(frozen=True, slots=True)
class Coefficient:
    """What the fit says about one coefficient.

    Attributes:
        name: as in `TimingCoefficients` or `PowerCoefficients`.
        before, after: value at the start, and fitted; equal where it is not determined.
        error: standard error of `after`, or of what the data would give, as a share of `before`; inf without effect.
        determined: True if the data determine it, so that it was fitted.
        at_bound: True if the fit ended at a bound.
    """

    name: str
    before: float
    after: float
    error: float
    determined: bool
    at_bound: bool


@dataclass(frozen=True, slots=True)
class Fit:
    """The xPU with its fitted coefficients, and what is known about each."""

    xpu: XPU
    coefficients: tuple[Coefficient, ...]


def fit(xpu: XPU, sources: Sequence[Source], only: Sequence[str] = ()) -> Fit:
    """Fit the coefficients that the sources determine; those of timing, unless `only` names others.

    The worst determined coefficient is given back its start and the rest fitted anew, until all have a standard error
    of at most `UNDETERMINED`. Standard errors follow from the Jacobian at the end, and take residuals for independent.

    Args:
        xpu: the start. Curves, tiles and skew stay as they are.
        sources: measurements, each counting by its number of residuals.
        only: the coefficients to fit. One that is 0 stays so.
    """
    tp = max(source.tp for source in sources)
    wanted = only or (*EFFICIENCIES, *OVERHEADS, *(LINK if tp > 1 else ()))
    names = [name for name in wanted if value_of(xpu, name)]
    undetermined: dict[str, float] = {}
    while True:
        x, errors, at_bound = _least_squares(xpu, names, sources)
        worst = max(names, key=lambda name: errors[name])
        if errors[worst] <= UNDETERMINED or len(names) == 1:
            break
        undetermined[worst] = errors[worst]
        names.remove(worst)
    if errors[worst] > UNDETERMINED:
        undetermined[worst] = errors[worst]
        names, x = [], {}
    coefficients = []
    for name in (*names, *undetermined):
        before = value_of(xpu, name)
        known = name in x
        after = x[name] if known else before
        error = errors[name] if known else undetermined[name]
        coefficients.append(Coefficient(name, before, after, error, known, known and at_bound[name]))
    return Fit(with_coefficients(xpu, x), tuple(coefficients))


def value_of(xpu: XPU, name: str) -> float:
    """A coefficient of timing or of power; 0 where there is none."""
    return float(getattr(xpu.power if name in POWER else xpu.timing, name) or 0.0)


def with_coefficients(xpu: XPU, values: Mapping[str, float]) -> XPU:
    """The same chip with other coefficients."""
    power: dict[str, Any] = {name: value for name, value in values.items() if name in POWER}
    timing: dict[str, Any] = {name: value for name, value in values.items() if name not in POWER}
    return replace(xpu, timing=replace(xpu.timing, **timing), power=replace(xpu.power, **power))


def _least_squares(
    xpu: XPU, names: Sequence[str], sources: Sequence[Source]
) -> tuple[dict[str, float], dict[str, float], dict[str, bool]]:
    """Best values, their standard errors, and whether each lies at a bound. Works with multiples of the start."""
    from scipy.optimize import least_squares

    start = np.array([value_of(xpu, name) for name in names])
    low, high = _bounds(names, start)
    if "static_w" in names:  # there must be room for work below the limit
        at = names.index("static_w")
        high[at] = min(high[at], _MOST_STATIC * xpu.tdp_w / start[at])

    def residuals(x: Floats) -> Floats:
        changed = with_coefficients(xpu, dict(zip(names, (x * start).tolist())))
        return np.concatenate([source.residuals(changed) for source in sources])

    found = least_squares(
        residuals,
        np.ones(len(names)),
        jac=lambda x: _jacobian(residuals, x, low, high),
        bounds=(low, high),
        loss="soft_l1",
        f_scale=_LOSS_SCALE,
        max_nfev=30,
    )
    errors = _standard_errors(_jacobian(residuals, found.x, low, high), residuals(found.x))
    margin = 0.01 * (high - low)
    at_bound = (found.x < low + margin) | (found.x > high - margin)
    values = (found.x * start).tolist()
    return dict(zip(names, values)), dict(zip(names, errors.tolist())), dict(zip(names, at_bound.tolist()))


def _bounds(names: Sequence[str], start: Floats) -> tuple[Floats, Floats]:
    """Lowest and highest multiple of the start; the start lies strictly inside."""
    low, high = np.empty(len(names)), np.empty(len(names))
    for index, name in enumerate(names):
        if name in EFFICIENCIES:
            most = min(_EFFICIENCY_FACTOR, _HIGHEST_EFFICIENCY / start[index])
            low[index], high[index] = 1.0 / _EFFICIENCY_FACTOR, max(most, 1.0 + _STEP)
        elif name in POWER:
            low[index], high[index] = (
                (1.0 / _POWER_FACTOR, _POWER_FACTOR) if name == "static_w" else (0.0, _POWER_FACTOR)
            )
        elif name in OVERHEADS or name == "link_latency_s":
            low[index], high[index] = 0.0, _OVERHEAD_FACTOR
        else:
            low[index], high[index] = 1.0 / _EFFICIENCY_FACTOR, _EFFICIENCY_FACTOR
    return low, high


def _jacobian(residuals: Callable[[Floats], Floats], x: Floats, low: Floats, high: Floats) -> Floats:
    """Central differences within the bounds."""
    columns = []
    for index in range(len(x)):
        below, above = x.copy(), x.copy()
        below[index] = max(x[index] - _STEP, low[index])
        above[index] = min(x[index] + _STEP, high[index])
        columns.append((residuals(above) - residuals(below)) / (above[index] - below[index]))
    return np.stack(columns, axis=1)


def _standard_errors(jacobian: Floats, residuals: Floats) -> Floats:
    """Standard errors of the multiples; inf for one without any effect.

    Source: linear regression, cov = s^2 (J^T J)^-1 with s^2 the residual variance.
    """
    count, unknowns = jacobian.shape
    variance = max(float(residuals @ residuals) / max(1, count - unknowns), _LEAST_NOISE**2)
    lengths = np.linalg.norm(jacobian, axis=0)
    known = lengths > 0.0
    errors = np.full(unknowns, math.inf)
    if known.any():
        scaled = jacobian[:, known] / lengths[known]
        values, vectors = np.linalg.eigh(scaled.T @ scaled)
        # a direction in which columns cancel has next to no curvature: what lies along it gets a huge error
        covariance = (vectors / np.maximum(values, _LEAST_CURVATURE)) @ vectors.T
        errors[known] = np.sqrt(variance * np.diag(covariance)) / lengths[known]
    return errors
