"""Time series in bins against brute force: whatever is added, every bin holds the integral that falls into it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.timeline import MOST_BINS, Metered, Series, align

INTERVALS = st.lists(
    st.tuples(st.floats(0.0, 90.0), st.floats(0.0, 40.0), st.floats(-5.0, 50.0)), min_size=1, max_size=20
)
POINTS = st.lists(st.tuples(st.floats(0.0, 90.0), st.floats(0.5, 5.0)), min_size=1, max_size=20)


def brute_force(intervals: list[tuple[float, float, float]], width: float, bins: int) -> list[float]:
    """Integral of each bin: every interval cut with every bin."""
    out = []
    for i in range(bins):
        low, high = i * width, (i + 1) * width
        out.append(sum(v * max(0.0, min(t + d, high) - max(t, low)) for t, d, v in intervals))
    return out


def filled(series: Series, intervals: list[tuple[float, float, float]], calls: int = 1) -> Series:
    """A series with the intervals added in some calls."""
    for part in range(calls):
        mine = np.array(intervals[part::calls]).reshape(-1, 3)
        series.add_levels(mine[:, 0], mine[:, 0] + mine[:, 1], mine[:, 2])
    return series


@settings(max_examples=200, deadline=None)
@given(INTERVALS, st.sampled_from([0.3, 1.0, 7.0, 200.0]), st.integers(1, 3))
def test_levels_equal_brute_force(intervals: list, width: float, calls: int) -> None:
    series = filled(Series(width, fixed=True), intervals, calls)
    bins = int(140 / width) + 1
    assert series.per_bin(bins)[0] == pytest.approx(brute_force(intervals, width, bins), rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(POINTS, st.sampled_from([0.3, 1.0, 7.0]))
def test_points_fall_into_their_bins(points: list, width: float) -> None:
    series = Series(width, fixed=True)
    at, value = np.array(points).T
    series.add_points(at, value)
    bins = int(91 / width) + 1
    expected = np.histogram(at, np.arange(bins + 1) * width, weights=value)[0]
    on_edge = np.isclose(at / width, np.rint(at / width), atol=1e-9).any()
    sums = series.per_bin(bins)[1]
    assert sums.sum() == pytest.approx(value.sum())
    if not on_edge:  # an instant on an edge may fall to either side by rounding
        assert sums == pytest.approx(expected)


@settings(max_examples=150, deadline=None)
@given(INTERVALS, POINTS, st.integers(1, 4))
def test_merging_pairs_keeps_integrals_and_points(intervals: list, points: list, times: int) -> None:
    series = filled(Series(0.7, fixed=True), intervals)
    at, value = np.array(points).T
    series.add_points(at, value)
    bins = 2**times * (int(140 / 0.7 / 2**times) + 1)
    before, before_points = (each.reshape(-1, 2**times).sum(axis=1) for each in series.per_bin(bins))
    for _ in range(times):
        series.merge_pairs()
    after, after_points = series.per_bin(bins // 2**times)
    assert series.width_s == 0.7 * 2**times
    assert after == pytest.approx(before, rel=1e-9, abs=1e-9)
    assert after_points == pytest.approx(before_points)
    filled(series, intervals)  # and it goes on from there
    again = brute_force(intervals, series.width_s, len(after))
    assert series.per_bin(len(after))[0] == pytest.approx(after + again, rel=1e-9, abs=1e-9)


def test_free_width_grows_to_bound_the_bins() -> None:
    series = Series(1.0, fixed=False)
    start = np.linspace(0.0, 1e5, 501)
    series.add_levels(start, start + 30.0, 2.0)
    series.add_points(start)
    assert series.width_s == 128.0  # the least power of two that keeps 1e5 s within MOST_BINS
    assert len(series.inside) <= 2 * MOST_BINS
    levels, points = series.per_bin(MOST_BINS)
    assert levels.sum() == pytest.approx(501 * 60.0, rel=1e-12)
    assert points.sum() == 501
    fixed = Series(1.0, fixed=True)
    fixed.add_levels(start, start + 30.0, 2.0)
    assert fixed.width_s == 1.0
    assert fixed.per_bin(101_000)[0].sum() == pytest.approx(501 * 60.0, rel=1e-12)


def test_growing_late_equals_starting_wide() -> None:
    rng = np.random.default_rng(1)
    start = np.sort(rng.uniform(0.0, 5e3, 400))
    end, value = start + rng.exponential(20.0, 400), rng.uniform(0.0, 9.0, 400)
    grown, wide = Series(1.0, fixed=False), Series(8.0, fixed=True)
    for at in range(0, 400, 10):
        part = slice(at, at + 10)
        grown.add_levels(start[part], end[part], value[part])
    wide.add_levels(start, end, value)
    assert grown.width_s == 8.0
    assert grown.per_bin(700)[0] == pytest.approx(wide.per_bin(700)[0], rel=1e-9, abs=1e-9)


def test_align_gives_all_the_widest_width() -> None:
    short, long = Series(1.0, fixed=False), Series(1.0, fixed=False)
    short.add_levels(np.array([0.5]), np.array([3.5]), 2.0)
    long.add_points(np.array([6500.0]))
    assert align([short, long]) == 8.0
    assert short.width_s == long.width_s == 8.0
    assert short.per_bin(2)[0].tolist() == [6.0, 0.0]


def test_nothing_added_is_zero() -> None:
    series = Series(1.0, fixed=False)
    series.add_levels(np.empty(0), np.empty(0), 1.0)
    series.add_points(np.empty(0))
    levels, points = series.per_bin(200)
    assert len(levels) == len(points) == 200
    assert not levels.any()
    assert not points.any()


def test_what_ends_long_before_the_run_does_not_make_for_more_bins() -> None:
    early = Series(1.0, False)
    early.add_levels(np.array([3.0]), np.array([5.0]), 2.0)
    assert align([early], 1e5) == 128.0
    assert early.per_bin(MOST_BINS)[0][0] == pytest.approx(4.0)
    fixed = Series(1.0, True)
    assert align([fixed], 1e5) == 1.0


def test_a_metered_series_is_kept_in_fine_bins_too() -> None:
    plain, metered = Series(1.0, False), Metered(Series(1.0, False), 0.25)
    starts, ends = np.linspace(0.0, 3000.0, 50), np.linspace(1.1, 3100.0, 50)
    for each in (plain, metered):
        each.add_levels(starts, ends, 3.0)
    bins = int(3100.0 / metered.width_s) + 1
    assert metered.width_s == plain.width_s > 1.0
    assert metered.per_bin(bins)[0].tobytes() == plain.per_bin(bins)[0].tobytes()
    assert metered.fine.width_s == 0.25
    assert metered.fine.per_bin(12404)[0].sum() == pytest.approx(3.0 * (ends - starts).sum(), rel=1e-12)
