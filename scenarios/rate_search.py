"""The highest rate that still holds: a bracket around it first, then halved."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Holds = Callable[[float], bool]  #: whether a rate holds

FACTORS = (1.1, 1.25, 1.6, 2.0)  #: steps away from a guess, ever longer; the last one repeats
REACH = 100.0  #: times the guess, and its inverse, beyond which nothing is searched


@dataclass(frozen=True, slots=True)
class Bracket:
    """Where the highest rate lies.

    Attributes:
        held: the highest rate tried that holds; 0 if none does.
        not_held: the lowest rate tried above it that does not; infinite if all did.
    """

    held: float
    not_held: float


def bracketed(holds: Holds, guess: float, factors: Sequence[float] = FACTORS, reach: float = REACH) -> Bracket:
    """A bracket around the highest rate that holds, from a guess outward by `factors`, as far as `reach` times it."""
    rate, up, step = guess, holds(guess), 0
    while True:
        factor = factors[min(step, len(factors) - 1)]
        following = rate * factor if up else rate / factor
        if not guess / reach <= following <= guess * reach:
            return Bracket(rate, math.inf) if up else Bracket(0.0, rate)
        if holds(following) != up:
            return Bracket(min(rate, following), max(rate, following))
        rate, step = following, step + 1


def arithmetic(low: float, high: float) -> float:
    """Halves a difference."""
    return 0.5 * (low + high)


def geometric(low: float, high: float) -> float:
    """Halves a ratio."""
    return math.sqrt(low * high)


def halved(
    holds: Holds,
    bracket: Bracket,
    narrow: Callable[[float, float], bool],
    middle_of: Callable[[float, float], float] = arithmetic,
) -> Bracket:
    """A bracket halved until `narrow(held, not_held)`.

    Halving asks no more of what is searched than that it holds below and fails above: attainment falls off a cliff,
    where steps by its slope crowd at one end.
    """
    low, high = bracket.held, bracket.not_held
    while not narrow(low, high):
        middle = middle_of(low, high)
        low, high = (middle, high) if holds(middle) else (low, middle)
    return Bracket(low, high)
