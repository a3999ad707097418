"""Power caps and clock limits: what lower clocks do to the time and the energy of a step.

Each part of a step that the timing model has (all that does not depend on contexts, and each kind of attention) runs at
one clock f, a share of the highest. Measured speeds belong to a clock as well, f0: 1, or where a part topped out at
`peak_w`, the clock at which its work draws just that. Against it, at the share s = f / f0 of measured speed,

    seconds(s)    arithmetic, small attention kernels and sorts take 1 / s as long; bytes, links and hosts as before
    joules(f, s)  = E_mem + (E(s) - E_mem) f^(exponent - 1)

with E(s) the energy at full clocks and E_mem that of the memory devices. A limit of the clock bounds f. A power cap
takes the highest f at which the part's mean power keeps to it: parts that wait for memory lose energy and no time until
they wait for arithmetic. Clocks come in steps of 1 / 128 of f0, as they do on GPUs. Where even the lowest exceeds the
cap, the engine stretches steps as at any power limit. Memory bandwidth is taken not to fall with the clock: on GPUs it
does at the lowest clocks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import cast

from sim.errors import InputError
from sim.hardware.deployment import Deployment
from sim.hardware.expert_group import ExpertGroupTiming
from sim.hardware.timing import RooflineTiming, StepCost
from sim.hardware.xpu import XPU, PowerCoefficients

STEPS = 128  #: clocks that there are up to the one of measured speeds


def slowed(xpu: XPU, share: float) -> XPU:
    """The xPU at a share of its measured speed, drawing what the work takes at full clocks, whatever its limit."""
    eff, power = xpu.timing, xpu.power
    return replace(
        xpu,
        peak_flops={name: rate * share for name, rate in xpu.peak_flops.items()},
        timing=replace(
            eff,
            attn_start=tuple((heads, seconds / share) for heads, seconds in eff.attn_start),
            idle_tile_s=eff.idle_tile_s / share,
            sort_s=eff.sort_s / share,
        ),
        power=replace(power, compute_w=power.compute_w * share, active_w=power.active_w * share, peak_w=None),
    )


def memory_alone(xpu: XPU, memory_w: float) -> XPU:
    """The xPU as if nothing but its memory devices drew dynamic power."""
    return replace(xpu, power=PowerCoefficients(xpu.power.static_w, 0.0, memory_w))


class Governor:
    """Chooses clocks under a cap and a limit.

    Args:
        deployment: a replica with `power_cap_w` or `clock_limit`, and a `clock_law`.

    Attributes:
        headroom_w: dynamic power of the replica at its cap [W].
        exponent: of the clock in dynamic power.
    """

    def __init__(self, deployment: Deployment) -> None:
        xpu, law = deployment.xpu, deployment.clock_law
        if law is None:
            raise InputError("clock_law", None, "a ClockLaw with power_cap_w or clock_limit")
        power = xpu.power
        self._limit, self._lowest, self.exponent = deployment.clock_limit, law.lowest, law.exponent
        self._memory = memory_alone(xpu, law.memory_w(xpu))
        cap_w = xpu.tdp_w if deployment.power_cap_w is None else deployment.power_cap_w
        self.headroom_w = (cap_w - power.static_w) * deployment.tp
        self._held_w = math.inf if power.peak_w is None else (power.peak_w - power.static_w) * deployment.tp
        self._deployment = deployment

    def at(self, step: int) -> Deployment:
        """The replica at `step` / `STEPS` of measured speed; at 0, drawing for its memory devices alone."""
        xpu = self._memory if step == 0 else slowed(self._deployment.xpu, step / STEPS)
        return replace(self._deployment, xpu=xpu, power_cap_w=None, clock_limit=1.0)

    def settle(self, measured: complex, at: Callable[[int], complex]) -> complex:
        """Time and energy of one part of a step, as seconds + 1j * joules.

        Args:
            measured: at measured speeds, without cap or limit.
            at: the same on the replica of `Governor.at`.
        """
        full, memory_j = at(STEPS), at(0).imag
        core_j = full.imag - memory_j
        if core_j <= 0.0:
            return measured
        clock = 1.0
        if full.imag > self._held_w * full.real:
            clock = (max(self._held_w * full.real - memory_j, 0.0) / core_j) ** (1.0 / (self.exponent - 1.0))
        if clock <= self._limit and measured.imag <= self.headroom_w * measured.real:
            return measured

        def cost(step: int) -> complex:
            slow = at(step)
            joules = memory_j + (slow.imag - memory_j) * (clock * step / STEPS) ** (self.exponent - 1.0)
            return complex(slow.real, joules)

        def fits(step: int) -> bool:
            if clock * step > self._limit * STEPS:
                return False
            tried = cost(step)
            return tried.imag <= self.headroom_w * tried.real

        low, high = min(STEPS, max(1, math.ceil(self._lowest / max(clock, self._lowest) * STEPS))), STEPS
        while low < high:  # the more slowly, the less power
            middle = (low + high + 1) // 2
            low, high = (middle, high) if fits(middle) else (low, middle - 1)
        return cost(low)

    def charge(self, measured: complex, of: Callable[[Deployment], complex]) -> complex:
        """`settle` for work that is charged to a step as a whole, and that nobody stretches afterwards.

        Args:
            measured: as for `settle`.
            of: what a replica takes for it.
        """
        settled = self.settle(measured, lambda step: of(self.at(step)))
        return complex(max(settled.real, settled.imag / self.headroom_w), settled.imag)


class ClockedTiming:
    """`StepTiming` of a replica under a power cap or a clock limit.

    Args:
        deployment: with `power_cap_w` or `clock_limit`, and a `clock_law`.
        make: the timing model at measured speeds.
    """

    def __init__(self, deployment: Deployment, make: Callable[[Deployment], RooflineTiming] = RooflineTiming) -> None:
        self._governor = governor = Governor(deployment)
        self._make, self._known = make, dict[int, RooflineTiming]()
        self._plain = plain = make(replace(deployment, power_cap_w=None, clock_limit=1.0))
        self.window, self.skewed, self.static_w, self.idle_w = plain.window, plain.skewed, plain.static_w, plain.idle_w
        self.headroom_w = min(plain.headroom_w, governor.headroom_w)
        pair = governor.settle(complex(plain.rho, plain.rho_j), lambda k: complex(self._at(k).rho, self._at(k).rho_j))
        windowed = governor.settle(
            complex(plain.rho_w, plain.rho_w_j), lambda k: complex(self._at(k).rho_w, self._at(k).rho_w_j)
        )
        self.rho, self.rho_j, self.rho_w, self.rho_w_j = pair.real, pair.imag, windowed.real, windowed.imag

    def _at(self, step: int) -> RooflineTiming:
        known = self._known.get(step)
        if known is None:
            known = self._known[step] = self._make(self._governor.at(step))
        return known

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `StepTiming.step`."""
        kind = (decoding, prefill_tokens, prefills)
        plain, costs = self._plain.step(*kind), dict[int, StepCost]()

        def at(step: int) -> StepCost:
            known = costs.get(step)
            if known is None:
                known = costs[step] = self._at(step).step(*kind)
            return known

        settle = self._governor.settle
        fixed = settle(complex(plain.fixed_s, plain.fixed_j), lambda k: complex(at(k).fixed_s, at(k).fixed_j))
        read = settle(complex(plain.tau, plain.eps), lambda k: complex(at(k).tau, at(k).eps))
        windowed = settle(complex(plain.tau_w, plain.eps_w), lambda k: complex(at(k).tau_w, at(k).eps_w))
        pairs = [complex(self.rho, self.rho_j), complex(self.rho_w, self.rho_w_j)] if prefills else []
        never = all(part.imag <= self.headroom_w * part.real for part in (fixed, read, windowed, *pairs))
        return plain._replace(
            fixed_s=fixed.real,
            fixed_j=fixed.imag,
            tau=read.real,
            eps=read.imag,
            tau_w=windowed.real,
            eps_w=windowed.imag,
            never_capped=never,
        )


class ClockedGroupTiming(ClockedTiming):
    """`GroupTiming` of a data-parallel rank under a power cap or a clock limit."""

    def __init__(self, deployment: Deployment) -> None:
        super().__init__(deployment, ExpertGroupTiming)
        self._commons = dict[tuple[int, int], complex]()
        # a rank that polls keeps its cores busy at the clock that its limit leaves
        polling = self._group(STEPS).wait_w * deployment.clock_limit**self._governor.exponent
        self.wait_w = min(polling, self.headroom_w)

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        """See `ExpertGroupTiming.step`."""
        return super().step(decoding, prefill_tokens, prefills)._replace(never_capped=False)

    def common(self, tokens: int, most: int) -> complex:
        """See `GroupTiming.common`."""
        known = self._commons.get((tokens, most))
        if known is None:
            measured = cast(ExpertGroupTiming, self._plain).common(tokens, most)
            known = self._governor.settle(measured, lambda k: self._group(k).common(tokens, most))
            self._commons[tokens, most] = known
        return known

    def _group(self, step: int) -> ExpertGroupTiming:
        return cast(ExpertGroupTiming, self._at(step))
