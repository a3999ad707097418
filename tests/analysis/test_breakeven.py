"""Break-even volumes: by hand, and against a search of many volumes one by one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.breakeven import HOURS, BreakEven, Hardware, break_even, envelope

FLAT = np.full(HOURS, 1.0 / HOURS)
DAY = np.array([1.0] * 12 + [3.0] * 12) / 48.0


def test_one_replica_against_a_price_by_hand() -> None:
    rent = Hardware(1e6, 1.0)  # 24 USD a day, 24 USD per million tokens at its fullest
    found = break_even(lambda v: rent.usd_per_day(v, FLAT), lambda v: 60e-6 * v, rent.edges(FLAT))
    assert found == BreakEven(pytest.approx(4e5), pytest.approx(4e5))  # the second: 48 USD < 60 USD at 1e6
    dear = break_even(lambda v: rent.usd_per_day(v, FLAT), lambda v: 20e-6 * v, rent.edges(FLAT))
    assert dear == BreakEven(None, None)
    # at 31 USD per million a full replica wins, but the next one loses again: n 24 < 31 (n - 1) from n = 5 on
    saw = break_even(lambda v: rent.usd_per_day(v, FLAT), lambda v: 31e-6 * v, rent.edges(FLAT))
    assert saw.first == pytest.approx(24.0 / 31e-6)
    assert saw.ever == pytest.approx(4 * 24.0 / 31e-6)


def test_a_plan_pays_the_hours_and_what_is_owned_the_fullest_one() -> None:
    volume = np.array([9.6e6])  # 0.2e6 and 0.6e6 an hour
    owned, planned = (Hardware(24e5, 1.0, by_hour=each) for each in (False, True))  # 1e5 an hour
    assert owned.replicas(volume, DAY)[0].tolist() == [2.0] * 12 + [6.0] * 12
    assert owned.usd_per_day(volume, DAY) == pytest.approx(24 * 6.0)
    assert planned.usd_per_day(volume, DAY) == pytest.approx(12 * 2.0 + 12 * 6.0)


@given(
    st.floats(0.5, 4.0),
    st.floats(0.5, 4.0),
    st.floats(0.0, 2e-5),
    st.floats(5e-6, 2e-4),
    st.booleans(),
    st.booleans(),
)
def test_as_a_search_of_many_volumes(
    usd: float, other_usd: float, work: float, price: float, of_api: bool, by_hour: bool
) -> None:
    mine, other = Hardware(1e6, usd, work), Hardware(1e6, other_usd, by_hour=by_hour)
    edges = mine.edges(DAY)

    def cost(volume: np.ndarray) -> np.ndarray:
        return mine.usd_per_day(volume, DAY)

    def than(volume: np.ndarray) -> np.ndarray:
        return price * volume if of_api else other.usd_per_day(volume, DAY)

    found = break_even(cost, than, edges)
    step = edges[-1] / 20_000
    volume = np.arange(1, 20_001) * step
    wins = than(volume) - cost(volume) > 1e-9
    if found.first is None:
        assert not wins.any()
        return
    assert not wins[volume < found.first - step].any()
    near = np.flatnonzero(wins)
    if len(near):
        assert volume[near[0]] >= found.first - 1e-6
    if found.ever is not None:
        beyond = volume > found.ever + step
        assert (than(volume) - cost(volume) > -1e-9)[beyond].all()


def test_intervals_tell_when_a_case_has_no_break_even() -> None:
    assert envelope([BreakEven(2.0, 3.0), BreakEven(1.0, 1.0)]) == (1.0, 2.0)
    assert envelope([BreakEven(2.0, 3.0), BreakEven(None, None)]) == (2.0, None)
    assert envelope([BreakEven(None, None)]) == (None, None)
