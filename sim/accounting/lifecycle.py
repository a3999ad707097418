"""The life of a model: what its stages take as time goes by, over the tokens that it serves, and who overtakes whom.

Every amount is an interval of three (low, central, high), or unknown. Low sums are sums of all lows: an envelope, no
probability.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sim.errors import number

Interval = npt.NDArray[np.float64]  #: low, central and high, shape (3,)
LOW, CENTRAL, HIGH = range(3)
QUANTITIES = ("energy_j", "operational_g", "embodied_g", "usd", "xpu_s")
CARBON = "carbon_g"
DAYS_PER_YEAR = 365.0


def interval(low: float, central: float | None = None, high: float | None = None) -> Interval:
    """An interval; with one number, a point."""
    return np.array([low, low if central is None else central, low if high is None else high])


class Amount(NamedTuple):
    """Energy at the facility [J], carbon [g CO2e], money [USD] and time of xPUs [s]: intervals, or None: not known."""

    energy_j: Interval | None
    operational_g: Interval | None
    embodied_g: Interval | None
    usd: Interval | None
    xpu_s: Interval | None

    def plus(self, other: Amount) -> Amount:
        """The sum; what one side does not know is unknown."""
        return Amount(*(None if a is None or b is None else a + b for a, b in zip(self, other)))

    def times(self, factor: Interval | float) -> Amount:
        """A multiple, low by low and high by high; `factor` >= 0."""
        return Amount(*(None if value is None else value * factor for value in self))

    def of(self, quantity: str) -> Interval | None:
        """One of QUANTITIES, or CARBON: operational and embodied."""
        if quantity != CARBON:
            value: Interval | None = getattr(self, quantity)
            return value
        both = (self.operational_g, self.embodied_g)
        return None if both[0] is None or both[1] is None else both[0] + both[1]


NOTHING = Amount(*(np.zeros(3) for _ in QUANTITIES))


@dataclass(frozen=True, slots=True)
class Stage:
    """One stage of a life.

    Attributes:
        name: which.
        once: before the first token is served.
        each, days: again on these days of service [d].
        per_day, per_token: while it serves.
        at_end: on the last day.
    """

    name: str
    once: Amount = NOTHING
    each: Amount = NOTHING
    days: Sequence[float] = ()
    per_day: Amount = NOTHING
    per_token: Amount = NOTHING
    at_end: Amount = NOTHING


@dataclass(frozen=True, slots=True)
class Service:
    """Tokens that are served.

    Attributes:
        days: from the first to the last [d].
        tokens_per_day: on the first day [1/d].
        growth: of the rate, compound [1/year]: 0.5 is half as much again each year, -0.1 a tenth less.
    """

    days: float
    tokens_per_day: float
    growth: float = 0.0
    _rate: float = field(init=False, repr=False, default=0.0)

    def __post_init__(self) -> None:
        number("service.years", self.days, "a time > 0", above=0.0)
        number("service.tokens_per_day", self.tokens_per_day, "a number > 0", above=0.0)
        growth = number("service.growth_per_year", self.growth, "a share > -1", above=-1.0)
        object.__setattr__(self, "_rate", math.log1p(growth) / DAYS_PER_YEAR)

    def tokens(self, day: float) -> float:
        """Tokens served until a day, the integral of the rate."""
        if self._rate == 0.0:
            return self.tokens_per_day * day
        return self.tokens_per_day * math.expm1(self._rate * day) / self._rate

    def day_of(self, tokens: float) -> float:
        """The day on which so many have been served; infinity if they never are."""
        if self._rate == 0.0:
            return tokens / self.tokens_per_day
        grown = tokens * self._rate / self.tokens_per_day
        return math.log1p(grown) / self._rate if grown > -1.0 else math.inf


def spent(stage: Stage, day: float, service: Service) -> Amount:
    """What a stage took until the end of a day of service, the last one's end included."""
    total = stage.once.plus(stage.each.times(sum(1.0 for each in stage.days if each <= day)))
    total = total.plus(stage.per_day.times(day)).plus(stage.per_token.times(service.tokens(day)))
    return total.plus(stage.at_end) if day >= service.days else total


def whole_life(stages: Iterable[Stage], service: Service) -> Amount:
    """All of them, to the end."""
    total = NOTHING
    for stage in stages:
        total = total.plus(spent(stage, service.days, service))
    return total


def overtaking(
    inference: Stage, training: Sequence[Stage], quantity: str, service: Service, ends: tuple[int, int]
) -> float | None:
    """First day on which all inference so far has taken as much as all training so far [d].

    Args:
        inference: a stage with `per_token` alone.
        training: stages with `once` and `each` alone.
        quantity: one of QUANTITIES, or CARBON.
        service: tokens by day.
        ends: which end of the interval of inference is compared with which of training.

    Returns:
        The day; infinity where it is later than the last one, None where a side is not known.
    """
    rate = inference.per_token.of(quantity)
    once = [(stage.once.of(quantity), stage.each.of(quantity)) for stage in training]
    if rate is None or any(a is None or b is None for a, b in once):
        return None
    lumps = [(0.0, float(a[ends[1]])) for a, _ in once if a is not None]
    for stage, (_, each) in zip(training, once):
        lumps += [(day, float(each[ends[1]])) for day in stage.days if each is not None and day < service.days]
    lumps.sort()
    per_token, so_far = float(rate[ends[0]]), 0.0
    for index, (_, lump) in enumerate(lumps):
        so_far += lump
        until = lumps[index + 1][0] if index + 1 < len(lumps) else service.days
        day = service.day_of(so_far / per_token) if per_token > 0.0 else (0.0 if so_far == 0.0 else math.inf)
        if day < until or (day == until == service.days):
            return max(day, lumps[index][0])
    return math.inf


def repeats(period_days: float | None, days: float) -> tuple[float, ...]:
    """Days of what comes again every `period_days` within a service of `days`; none on its last day."""
    if period_days is None:
        return ()
    period = number("period_days", period_days, "a time > 0 d", above=0.0)
    return tuple(period * index for index in range(1, math.ceil(days / period - 1e-9)))
