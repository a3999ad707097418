"""The step clock read by slices against every step written out, and percentiles of gaps against every gap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.results import GapSample
from sim.serving import step_clock
from sim.serving.step_clock import Gaps, durations, longest_gaps, token_times

PERCENTILES = (0, 1, 25, 50, 90, 99, 99.9, 100)


@st.composite
def clocks(draw: st.DrawFn) -> np.ndarray:
    """Rows of a clock: spans of growing, shrinking or constant steps, with pauses between."""
    count, t = draw(st.integers(1, 12)), 0.0
    rows = []
    for _ in range(count):
        t += draw(st.sampled_from([0.0, 0.5]))
        k, a = draw(st.integers(1, 30)), draw(st.floats(1e-3, 0.1))
        b = draw(st.sampled_from([0.0, 1e-6, 1e-4, -1e-5]))
        rows.append((t, k, a, b, draw(st.integers(0, 5)), 0, 10, 0, 1.0))
        t += k * a + b * k * (k - 1) / 2
    return np.array(rows, dtype=np.float64)


def steps_of(row: np.ndarray) -> list[float]:
    """Duration of every step of a row."""
    return [row[step_clock.A] + row[step_clock.B] * i for i in range(int(row[step_clock.STEPS]))]


@settings(max_examples=200, deadline=None)
@given(clocks(), st.data())
def test_slices_equal_every_step_written_out(rows: np.ndarray, data: st.DataObject) -> None:
    first = data.draw(st.integers(0, len(rows) - 1))
    last = data.draw(st.integers(first, len(rows) - 1))
    part = rows[first : last + 1]
    assert durations(part) == pytest.approx([sum(steps_of(row)) for row in part], rel=1e-12)
    times = [row[step_clock.START] + end for row in part for end in np.cumsum(steps_of(row))]
    assert token_times(rows, first, last) == pytest.approx(times, rel=1e-12)
    gaps = [gap for row in part for gap in steps_of(row)]
    assert longest_gaps(rows, np.array([first]), np.array([last]))[0] == pytest.approx(max(gaps), rel=1e-12)


@settings(max_examples=100, deadline=None)
@given(clocks(), st.data())
def test_many_slices_at_once_empty_ones_included(rows: np.ndarray, data: st.DataObject) -> None:
    bounds = st.tuples(st.integers(0, len(rows) - 1), st.integers(-1, len(rows) - 1))
    pairs = data.draw(st.lists(bounds, min_size=1, max_size=15))
    first, last = np.array(pairs).T
    longest = longest_gaps(rows, first, last)
    for i, (low, high) in enumerate(pairs):
        if high < low:
            assert np.isnan(longest[i])
        else:
            expected = max(gap for row in rows[low : high + 1] for gap in steps_of(row))
            assert longest[i] == pytest.approx(expected, rel=1e-12)


def test_an_empty_slice_has_no_times() -> None:
    rows = np.ones((3, step_clock.FIRST_CLASS))
    assert len(token_times(rows, 0, -1)) == 0
    assert len(token_times(rows, 3, 2)) == 0
    assert np.isnan(longest_gaps(np.empty((0, step_clock.FIRST_CLASS)), np.array([0]), np.array([-1]))).all()


def expanded(sample: GapSample) -> np.ndarray:
    return np.repeat(sample.value_s, sample.count)


def every_gap(rows: np.ndarray, weight: np.ndarray) -> np.ndarray:
    steps = np.concatenate([steps_of(row) for row in rows])
    return np.sort(np.repeat(steps, np.repeat(weight, rows[:, step_clock.STEPS].astype(int)).astype(int)))


@settings(max_examples=150, deadline=None)
@given(st.lists(clocks(), min_size=1, max_size=3), st.lists(st.floats(0.01, 1.0), max_size=4))
def test_exact_gaps_equal_every_gap_written_out(folds: list[np.ndarray], singles: list[float]) -> None:
    gaps = Gaps()
    for rows in folds:
        gaps.add_rows(rows, rows[:, step_clock.DECODING])
    gaps.add_values(np.array(singles))
    parts = [every_gap(rows, rows[:, step_clock.DECODING]) for rows in folds]
    assert expanded(gaps.sample()) == pytest.approx(np.sort(np.concatenate([*parts, singles])), rel=1e-12)


def many_rows(seed: int, count: int = 1000) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = np.zeros((count, step_clock.FIRST_CLASS))
    rows[:, step_clock.STEPS] = rng.integers(1, 200, count)
    rows[:, step_clock.A] = rng.lognormal(-4.0, 0.5, count)
    rows[:, step_clock.B] = rng.uniform(0.0, 3e-5, count)
    rows[:, step_clock.DECODING] = rng.integers(0, 40, count)
    return rows


@pytest.mark.parametrize("exact_steps", [1, 5_000, 75_000])
def test_binned_gaps_keep_percentiles_counts_and_mean(monkeypatch: pytest.MonkeyPatch, exact_steps: int) -> None:
    monkeypatch.setattr(step_clock, "EXACT_STEPS", exact_steps)
    gaps, everything = Gaps(), []
    for seed in range(3):
        rows = many_rows(seed)
        gaps.add_rows(rows, rows[:, step_clock.DECODING])
        gaps.add_values(np.array([0.5 + seed]))
        everything += [every_gap(rows, rows[:, step_clock.DECODING]), [0.5 + seed]]
    exact, sample = np.sort(np.concatenate(everything)), gaps.sample()
    assert len(sample.value_s) < 0.1 * len(exact)  # it did bin
    assert sample.count.sum() == len(exact)
    assert (np.diff(sample.value_s) > 0.0).all()
    assert (sample.value_s * sample.count).sum() == pytest.approx(exact.sum(), rel=1e-9)
    binned = np.percentile(expanded(sample), PERCENTILES)
    assert binned == pytest.approx(np.percentile(exact, PERCENTILES), rel=5e-4)


def test_binned_gaps_take_less_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_clock, "EXACT_STEPS", 20_000)
    gaps, stored = Gaps(), 0
    for seed in range(12):
        rows = many_rows(seed, 500)
        gaps.add_rows(rows, np.maximum(rows[:, step_clock.DECODING], 1.0))
        stored = max(stored, sum(len(each) for each in gaps._values))
    assert stored <= 3 * 20_000  # of some 600,000 distinct gaps
    assert len(gaps.sample().value_s) < 20_000


def test_no_gaps() -> None:
    gaps = Gaps()
    gaps.add_rows(np.ones((2, step_clock.FIRST_CLASS)), np.zeros(2))
    sample = gaps.sample()
    assert len(sample.value_s) == len(sample.count) == 0
