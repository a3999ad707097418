"""Signals over simulated time, such as grid carbon intensity: a value that holds piecewise.

A signal's unit is its owner's; here always g CO2e/kWh. Zero is a valid value.
"""

from __future__ import annotations

import math
from typing import Protocol

from sim.errors import number

AVERAGE, MARGINAL = "average", "marginal"
KINDS = (AVERAGE, MARGINAL)


class Signal(Protocol):
    """A piecewise-constant value of simulated time.

    Attributes:
        basis: ``lca`` or ``direct`` for a carbon intensity, empty where it does not apply.
        source: where the values come from.

    An intensity may have a `kind`, ``average`` or ``marginal``; without one it is an average (`kind_of`).
    """

    @property
    def basis(self) -> str: ...

    @property
    def source(self) -> str: ...

    def at(self, t_s: float) -> float:
        """Value at time `t_s` [s]; it holds until `next_change(t_s)`."""
        ...

    def next_change(self, t_s: float) -> float:
        """First time after `t_s` at which the value may differ [s]; infinity if never."""
        ...

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral of the value over [t0_s, t1_s] [unit * s]."""
        ...


class Changing(Protocol):
    """What a signal says of single moments."""

    def at(self, t_s: float) -> float:
        """See `Signal.at`."""
        ...

    def next_change(self, t_s: float) -> float:
        """See `Signal.next_change`."""
        ...


class Constant:
    """A signal that never changes; an intensity may know its value on the other basis, `other`, too."""

    __slots__ = ("basis", "other", "source", "value")

    def __init__(self, value: float, basis: str = "", source: str = "", other: float | None = None) -> None:
        self.value = number("intensity", value, "a finite value >= 0 g/kWh", low=0.0)
        self.basis, self.source, self.other = basis, source, other

    def at(self, t_s: float) -> float:
        """Value at any time."""
        return self.value

    def next_change(self, t_s: float) -> float:
        """Never."""
        return math.inf

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Value times duration."""
        return self.value * (t1_s - t0_s)


def kind_of(signal: Signal) -> str:
    """``average`` or ``marginal`` intensity."""
    return str(getattr(signal, "kind", AVERAGE))


class Unknown:
    """A signal nobody knows: NaN, so that whatever is computed from it is unknown too, and never 0."""

    __slots__ = ()
    basis, source = "", "unknown"

    def at(self, t_s: float) -> float:
        """NaN."""
        return math.nan

    def next_change(self, t_s: float) -> float:
        """Never."""
        return math.inf

    def integral(self, t0_s: float, t1_s: float) -> float:
        """NaN."""
        return math.nan


class Weighted:
    """What an engine weighs its energy with where the PUE varies: PUE x intensity + 1j x PUE.

    So one running total holds grams in its real and facility energy in its imaginary part, and both are exact. Where
    the intensity is unknown the real part is 0, and whoever reads it has to know that.
    """

    __slots__ = ("_intensity", "_pue")
    basis, source = "", ""

    def __init__(self, intensity: Signal, pue: Signal) -> None:
        self._intensity: Signal = Constant(0.0) if isinstance(intensity, Unknown) else intensity
        self._pue = pue

    def at(self, t_s: float) -> complex:
        """Weight at time `t_s`."""
        pue = self._pue.at(t_s)
        return complex(pue * self._intensity.at(t_s), pue)

    def next_change(self, t_s: float) -> float:
        """When either changes [s]."""
        return min(self._intensity.next_change(t_s), self._pue.next_change(t_s))

    def integral(self, t0_s: float, t1_s: float) -> complex:
        """Integral over [t0_s, t1_s]: the product of both, and the PUE alone."""
        total, t = 0j, t0_s
        while t < t1_s:
            end = min(self.next_change(t), t1_s)
            total += self.at(t) * (end - t)
            t = end
        return total


def integral_of(signal: Changing, t0_s: float, t1_s: float) -> float:
    """Integral over [t0_s, t1_s] of what is constant between its changes [unit * s]."""
    parts, t = [], t0_s
    while t < t1_s:
        end = min(signal.next_change(t), t1_s)
        parts.append(signal.at(t) * (end - t))
        t = end
    return math.fsum(parts)


class Sum:
    """Two signals in the same unit, added."""

    __slots__ = ("_one", "_other")
    basis, source = "", ""

    def __init__(self, one: Signal, other: Signal) -> None:
        self._one, self._other = one, other

    def at(self, t_s: float) -> float:
        """Value at time `t_s`."""
        return self._one.at(t_s) + self._other.at(t_s)

    def next_change(self, t_s: float) -> float:
        """When either changes [s]."""
        return min(self._one.next_change(t_s), self._other.next_change(t_s))

    def integral(self, t0_s: float, t1_s: float) -> float:
        """Integral over [t0_s, t1_s] [unit * s]."""
        return self._one.integral(t0_s, t1_s) + self._other.integral(t0_s, t1_s)

    def require(self, end_s: float) -> None:
        """Check that both reach simulated time `end_s` [s]."""
        for each in (self._one, self._other):
            require = getattr(each, "require", None)
            if require is not None:
                require(end_s)
