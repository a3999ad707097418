"""Brackets around the highest rate that holds."""

from __future__ import annotations

import math

import pytest

from scenarios.rate_search import Bracket, bracketed, halved


@pytest.mark.parametrize("guess", [0.2, 3.0, 7.3, 7.31, 400.0])
def test_a_bracket_holds_the_edge_wherever_the_guess_is(guess: float) -> None:
    tried: list[float] = []

    def holds(rate: float) -> bool:
        tried.append(rate)
        return rate <= 7.3

    found = bracketed(holds, guess)
    assert found.held <= 7.3 < found.not_held <= 2.0 * found.held
    assert len(tried) == len(set(tried)) < 16
    narrow = halved(holds, found, lambda low, high: high - low <= 0.02 * high)
    assert narrow.held <= 7.3 < narrow.not_held <= narrow.held / 0.98
    assert len(tried) == len(set(tried)) < 22


def test_no_edge_is_told_as_such() -> None:
    assert bracketed(lambda rate: False, 5.0).held == 0.0
    above = bracketed(lambda rate: True, 5.0)
    assert math.isinf(above.not_held)
    assert 250.0 < above.held <= 500.0


def test_halving_can_begin_at_zero() -> None:
    found = halved(lambda rate: rate <= 0.3, Bracket(0.0, 1.0), lambda low, high: high - low <= 1.01 / 8)
    assert (found.held, found.not_held) == (0.25, 0.375)
