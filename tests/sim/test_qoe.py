"""QoE formulas against brute force, their closed forms against walks, and the corners by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sim.errors import InputError
from sim.qoe import (
    SLOClass,
    digest_times,
    goodput,
    slo_met,
    token_qoe_v1,
    token_qoe_v1_walk,
    token_qoe_v2,
    token_qoe_v2_walk,
    token_qoe_walks,
)

INF = math.inf
times = st.floats(0.0, 50.0)
speeds = st.floats(0.2, 50.0)


@st.composite
def smooth(draw: st.DrawFn) -> tuple[np.ndarray, float, float]:
    """Token times without a gap above 1/TDS, an expected TTFT, and TDS."""
    speed = draw(speeds)
    shares = draw(st.lists(st.floats(0.0, 1.0), max_size=60))
    return draw(times) + np.concatenate(([0.0], np.cumsum(np.array(shares) / speed))), draw(times), speed


@st.composite
def stalled(draw: st.DrawFn) -> tuple[np.ndarray, float, float]:
    """Any token times, an expected TTFT, and TDS."""
    gaps = draw(st.lists(st.one_of(st.floats(0.0, 0.3), st.floats(0.0, 20.0)), max_size=40))
    return draw(times) + np.concatenate(([0.0], np.cumsum(gaps))), draw(times), draw(speeds)


def integral(curve: np.ndarray, step_s: float) -> float:
    return float(((curve[1:] + curve[:-1]) / 2.0).sum() * step_s)


def brute_force_v1(token_s: np.ndarray, expected_s: float, speed: float, points: int = 200_001) -> float:
    """Both integrals on a grid; A by the rule 'take in at most TDS, and no more than was delivered'."""
    grid = np.linspace(0.0, token_s[-1], points)
    step = grid[1]
    delivered = np.searchsorted(token_s, grid, side="right").astype(float)
    backlog = delivered - speed * grid
    read = speed * grid + np.minimum(np.minimum.accumulate(backlog), 0.0)  # a server of rate TDS fed by `delivered`
    wanted = np.clip(speed * (grid - expected_s), 0.0, len(token_s))
    whole = integral(wanted, step)
    return 1.0 if whole == 0.0 else min(integral(read, step) / whole, 1.0)


@given(smooth())
def test_closed_form_equals_walk_on_smooth_timelines(case: tuple[np.ndarray, float, float]) -> None:
    token_s, expected, speed = case
    end, count = token_s[-1], len(token_s)
    closed = token_qoe_v1(token_s[0], end, count, expected, speed)
    assert float(closed) == pytest.approx(token_qoe_v1_walk(token_s, expected, speed), rel=1e-9, abs=1e-9)
    closed = token_qoe_v2(token_s[0], count, expected, speed)
    assert float(closed) == pytest.approx(token_qoe_v2_walk(token_s, expected, speed), rel=1e-9, abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(stalled())
def test_walk_equals_brute_force_integration(case: tuple[np.ndarray, float, float]) -> None:
    token_s, expected, speed = case
    assume(token_s[-1] - expected >= 0.05)  # the grid cannot resolve a smaller area
    assert token_qoe_v1_walk(token_s, expected, speed) == pytest.approx(
        brute_force_v1(token_s, expected, speed), abs=2e-2 if token_s[-1] - expected < 1.0 else 2e-3
    )


@given(stalled())
def test_digest_times_follow_the_recursion(case: tuple[np.ndarray, float, float]) -> None:
    token_s, _, speed = case
    digested = [token_s[0]]
    for t in token_s[1:]:
        digested.append(max(t, digested[-1] + 1.0 / speed))
    np.testing.assert_allclose(digest_times(token_s, speed), digested, rtol=1e-12, atol=1e-12)


@given(stalled())
def test_qoe_lies_in_the_unit_interval_and_never_gains_from_a_later_first_token(
    case: tuple[np.ndarray, float, float],
) -> None:
    token_s, expected, speed = case
    for walk in (token_qoe_v1_walk, token_qoe_v2_walk):
        now = walk(token_s, expected, speed)
        assert 0.0 <= now <= 1.0
        assert walk(token_s + 5.0, expected, speed) <= now + 1e-9 or token_s[-1] <= expected


def test_v1_by_hand() -> None:
    # 4 tokens at 0.25 s, first after 2 s, expected after 1 s, TDS 4: A = 4 * .75^2 / 2, expected 4 * 1^2/2 + 4 * .75
    assert float(token_qoe_v1(2.0, 2.75, 4, 1.0, 4.0)) == pytest.approx(1.125 / 5.0)
    # the expected text saturates at l = 4 tokens: reached 1 s after it was expected
    assert float(token_qoe_v1(1.0, 1.75, 4, 0.0, 4.0)) == pytest.approx(1.125 / (2.0 + 4.0 * 0.75))


def test_v1_stall_by_hand() -> None:
    # tokens at 1, 2, 5 s, TDS 1: A rises 0..2 over [1, 3], rests until 5: 2 + 2 * 2; expected 3 * 3 / 2 + 3 * 1
    assert token_qoe_v1_walk(np.array([1.0, 2.0, 5.0]), 1.0, 1.0) == pytest.approx(6.0 / 7.5)


def test_v1_corners() -> None:
    assert float(token_qoe_v1(0.5, 0.9, 10, 1.0, 4.8)) == 1.0  # over before anything was expected
    assert float(token_qoe_v1(1.0, 1.0, 1, 1.0, 4.8)) == 1.0  # zero over zero
    assert float(token_qoe_v1(0.5, 3.0, 40, 1.0, 4.8)) == 1.0  # earlier than expected is clipped
    assert float(token_qoe_v1(3.0, 3.0, 1, 1.0, 4.8)) == 0.0  # one token, late: nothing was read by TTLT
    assert math.isnan(float(token_qoe_v1(math.nan, math.nan, 10, 1.0, 4.8)))
    assert float(token_qoe_v1(2.0, 3.0, 5, 1.0, INF)) == pytest.approx(0.5)  # a reader without limit: two steps
    assert token_qoe_v1_walk(np.array([2.0, 3.0]), 1.0, INF) == pytest.approx(1.0 / 4.0)


def test_v2_by_hand() -> None:
    # digested at 2, 3, 5; ideal 1, 2, 3
    assert token_qoe_v2_walk(np.array([2.0, 2.5, 5.0]), 1.0, 1.0) == pytest.approx(1.0 - 4.0 / 10.0)
    assert float(token_qoe_v2(0.0, 1, 0.0, 4.8)) == 1.0
    assert float(token_qoe_v2(0.5, 20, 1.0, 4.8)) == 1.0


def test_closed_form_takes_a_class_a_request() -> None:
    both = token_qoe_v1(np.array([2.0, 1.0]), np.array([2.75, 1.75]), np.array([4, 4]), np.array([1.0, 0.0]), 4.0)
    np.testing.assert_allclose(both, [0.225, 0.225])


def test_slo_is_joint_and_lenient_only_where_it_should_be() -> None:
    nan = math.nan
    ttft = np.array([1.0, 1.0, 3.0, 1.0, nan, 1.0])
    tpot = np.array([0.1, 0.3, 0.1, nan, nan, 0.1])
    e2e = np.array([9.0, 9.0, 9.0, 1.0, nan, nan])
    assert slo_met(ttft, tpot, e2e, 2.0, 0.2, 10.0).tolist() == [True, False, False, True, False, False]
    assert slo_met(ttft, tpot, e2e, INF, INF, INF).tolist() == [True, True, True, True, False, False]
    assert slo_met(ttft[:3], tpot[:3], e2e[:3], np.array([1.0, 2.0, 3.0]), INF, 9.0).all()
    assert not slo_met(ttft[:1], tpot[:1], e2e[:1], INF, INF, 8.999).any()


def test_goodput_counts_per_second_and_needs_a_window() -> None:
    assert goodput(np.array([True, False, True]), 4.0) == 0.5
    assert math.isnan(goodput(np.array([True]), 0.0))


@pytest.mark.parametrize("key", ["ttft_s", "tpot_s", "e2e_s", "digest_tokens_per_s"])
@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_bounds_must_be_positive(key: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"slo\.chat\.{key}="):
        SLOClass(**{key: value})


@given(
    st.lists(
        st.tuples(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=12), st.floats(0.0, 2.0), st.floats(0.5, 20.0)),
        min_size=1,
        max_size=6,
    )
)
def test_many_walks_at_once_equal_single_ones(requests: list[tuple[list[float], float, float]]) -> None:
    timelines = [np.cumsum(gaps) for gaps, _, _ in requests]
    bounds = np.concatenate(([0], np.cumsum([len(times) for times in timelines])))
    expected, speed = (np.array([request[i] for request in requests]) for i in (1, 2))
    first, second = token_qoe_walks(np.concatenate(timelines), bounds, expected, speed)
    for i, times in enumerate(timelines):
        assert first[i] == pytest.approx(token_qoe_v1_walk(times, expected[i], speed[i]), rel=1e-9, abs=1e-9)
        assert second[i] == pytest.approx(token_qoe_v2_walk(times, expected[i], speed[i]), rel=1e-9, abs=1e-9)
