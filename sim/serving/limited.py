"""A replica whose power limit changes over time: steps cost what they do under the limit of their moment.

Every limit has a timing model of its own, so nothing changes within a span: spans end before a limit changes. A step
that straddles a change keeps to the lower of both limits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sim.accounting.signal import Signal
from sim.hardware.timing import StepTiming
from sim.serving.costs import Shared, capped
from sim.serving.engine import Engine


class _Limited(Shared):
    """What the engines of a pool share under one limit; who waits is counted once for the pool."""

    __slots__ = ("_base",)

    def __init__(self, base: Shared, timing: StepTiming, padding: tuple[int, ...], parts: int) -> None:
        waiting, self._base = base.waiting, base
        super().__init__(timing, padding, parts)
        self.waiting = waiting

    @property
    def waiting(self) -> int:
        return self._base.waiting

    @waiting.setter
    def waiting(self, value: int) -> None:
        self._base.waiting = value


class Limits:
    """The limits of a pool's engines.

    Args:
        level: which limit holds when, as a signal: higher levels allow more.
        timing: makes what steps cost at a level; asked once for each.
    """

    def __init__(self, level: Signal, timing: Callable[[float], StepTiming]) -> None:
        self._level, self._make = level, timing
        self._known: dict[float, tuple[StepTiming, Shared]] = {}
        self.at, self.next_change = level.at, level.next_change

    def costs(self, level: float, base: Shared, padding: tuple[int, ...], parts: int) -> tuple[StepTiming, Shared]:
        """Timing model and costs of a level."""
        known = self._known.get(level)
        if known is None:
            timing = self._make(level)
            known = self._known[level] = (timing, _Limited(base, timing, padding, parts))
        return known


class LimitedEngine(Engine):
    """An engine under `Limits`; `pad` are the sizes to which its smaller steps are padded. All else: see `Engine`."""

    __slots__ = ("_base", "_level", "_limits", "_pad", "_until_s")

    def __init__(self, limits: Limits, pad: tuple[int, ...], *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits, self._pad, self._base = limits, pad, self.shared
        self._until_s, self._level = -1.0, -1.0

    def plan(self, t: float) -> float:
        """See `Spans.plan`."""
        if t >= self._until_s:
            self._take(self._limits.at(t), self._limits.next_change(t))
        head = self.timing.headroom_w
        self.charges = [
            (seq, capped(charge, head) if charge.imag > head * charge.real else charge, wasted)
            for seq, charge, wasted in self.charges
        ]
        end = super().plan(t)
        if end <= self._until_s:
            return end
        if self._end_of(1) > self._until_s:
            after = self._limits.at(self._until_s)
            if after < self._level:
                self._take(after, self._limits.next_change(self._until_s))
                if self.varying:
                    self.next_change = t  # read the signal anew, for a slower step may straddle its change
                return self.plan(t)
            self._k = 1
        else:
            low, high = 1, self._k  # `low` steps end before the change, `high` do not
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if self._end_of(middle) <= self._until_s else (low, middle)
            self._k = low
        return self._end_of(self._k)

    def _take(self, level: float, until_s: float) -> None:
        """Go on under a limit, which holds until `until_s` [s]."""
        self._until_s = until_s
        if level == self._level:
            return
        self._level = level
        self.timing, self.shared = timing, shared = self._limits.costs(level, self._base, self._pad, self.options.parts)
        self._decode_costs, self._mixed_costs = shared.decode_costs, shared.mixed_costs
        self._rho, self._rho_w = complex(timing.rho, timing.rho_j), complex(timing.rho_w, timing.rho_w_j)
