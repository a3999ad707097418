"""Arrival processes: rates, coefficients of variation, laws, bursts, curves, determinism and bad arguments."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import special, stats

from sim.errors import InputError
from sim.rng import Streams
from sim.workload.arrivals import ArrivalProcess, ConstantRate, Gamma, OnOff, Poisson, Weibull, weibull_shape
from sim.workload.curves import Diurnal, TimeVarying

HOUR = 3600.0


def arrivals(process: ArrivalProcess, seed: int = 0, until: float = math.inf, count: int | None = None) -> np.ndarray:
    """The first `count` arrivals, or those before `until`."""
    chunks: list[np.ndarray] = []
    for chunk in process.times(Streams(seed).get("arrivals")):
        chunks.append(chunk)
        if (len(chunk) and chunk[-1] >= until) or (count and sum(map(len, chunks)) >= count):
            break
    times = np.concatenate(chunks)
    return times[:count] if count else times[times < until]


@pytest.mark.parametrize(
    ("process", "cv"),
    [
        (Poisson(4.0), 1.0),
        (Gamma(5.53, 1.09), 1.09),
        (Gamma(0.01, 0.3), 0.3),
        (Gamma(100.0, 4.0), 4.0),
        (Weibull(4.0, 0.5), 0.5),
        (Weibull(0.5, 2.0), 2.0),
        (ConstantRate(7.0), 0.0),
    ],
)
def test_rate_and_cv_hold_within_statistical_error(process: Any, cv: float) -> None:
    n = 200_000
    gaps = np.diff(arrivals(process, count=n + 1))
    assert gaps.mean() == pytest.approx(1.0 / process.rate, rel=4.0 * cv / math.sqrt(n) + 1e-9)
    # The sampling error of a CV grows with the fourth moment; 3 % covers a gamma law of CV 4.
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03, abs=1e-9)


@pytest.mark.parametrize(
    ("process", "law"),
    [
        (Gamma(2.0, 1.5), stats.gamma(1 / 1.5**2, scale=1.5**2 / 2.0)),
        (
            Weibull(2.0, 1.5),
            stats.weibull_min(weibull_shape(1.5), scale=0.5 / special.gamma(1 + 1 / weibull_shape(1.5))),
        ),
        (Poisson(2.0), stats.expon(scale=0.5)),
    ],
)
def test_gaps_follow_their_law(process: ArrivalProcess, law: Any) -> None:
    assert stats.kstest(np.diff(arrivals(process, count=20_000)), law.cdf).pvalue > 0.01


@pytest.mark.parametrize("cv", [1e-3, 0.05, 0.7, 1.0, 2.0, 13.2, 1e3])
def test_weibull_shape_gives_back_its_cv(cv: float) -> None:
    k = weibull_shape(cv)
    square = special.gammaln(1 + 2 / k) - 2 * special.gammaln(1 + 1 / k)
    assert math.sqrt(math.expm1(square)) == pytest.approx(cv, rel=1e-6)


@pytest.mark.parametrize("process", [Gamma(1.0, 5.0), Weibull(1.0, 5.0), Gamma(1.0, 0.2)])
def test_a_short_window_from_the_start_sees_the_rate_without_bias(process: ArrivalProcess) -> None:
    # A renewal process that began right after an arrival would count 12 requests too many at CV 5, 0.5 too few at 0.2.
    counts = [len(arrivals(process, seed, until=20.0)) for seed in range(3000)]
    assert np.mean(counts) == pytest.approx(20.0, abs=4.0 * np.std(counts) / math.sqrt(len(counts)))


def test_constant_rate_does_not_drift() -> None:
    times = arrivals(ConstantRate(3.0), count=1_000_001)
    assert times[0] == 0.0
    assert times[-1] == 1_000_000 / 3.0


@pytest.mark.parametrize(
    "process",
    [
        Poisson(4.0),
        Gamma(4.0, 30.0),
        Weibull(4.0, 3.0),
        ConstantRate(4.0),
        OnOff(8.0, 0.0, 5.0, 5.0),
        TimeVarying([(0, 1), (60, 8)], period_s=120),
        Diurnal(4.0, [1.0] * 24),
    ],
)
def test_times_never_fall_and_repeat_with_the_seed(process: ArrivalProcess) -> None:
    first, again, other = (arrivals(process, seed, count=20_000) for seed in (1, 1, 2))
    assert first[0] >= 0.0
    assert (np.diff(first) >= 0.0).all()
    np.testing.assert_array_equal(first, again)
    if not isinstance(process, ConstantRate):
        assert (first != other).any()


def test_on_off_reproduces_mean_rate_and_dispersion() -> None:
    process = OnOff(rate_on=20.0, rate_off=2.0, mean_on_s=3.0, mean_off_s=9.0)
    assert process.mean_rate == pytest.approx(6.5)
    times = arrivals(process, until=200_000.0)
    assert len(times) / 200_000.0 == pytest.approx(6.5, rel=0.01)
    # Index of dispersion of a two-state MMPP over long windows (Fischer and Meier-Hellstern, 1993).
    leave_on, leave_off = 1 / 3.0, 1 / 9.0
    theory = 1 + 2 * (20.0 - 2.0) ** 2 * leave_on * leave_off / (
        (leave_on + leave_off) ** 2 * (20.0 * leave_off + 2.0 * leave_on)
    )
    counts = np.histogram(times, bins=np.arange(0.0, 200_001.0, 200.0))[0]
    assert counts.var() / counts.mean() == pytest.approx(theory, rel=0.15)


def test_on_off_scales_to_a_mean_rate_and_keeps_its_bursts() -> None:
    slow, fast = (OnOff(4.0, 0.0, 10.0, 40.0, rate=rate) for rate in (2.0, 20.0))
    assert slow.mean_rate == 2.0
    assert len(arrivals(fast, until=50_000.0)) / 50_000.0 == pytest.approx(20.0, rel=0.1)
    quiet = np.diff(arrivals(fast, until=5_000.0))
    pauses = arrivals(fast, until=5_000.0)[:-1][quiet > 5.0]
    in_slow = arrivals(slow, until=5_000.0)
    assert len(pauses) > 20
    for start, gap in zip(pauses, quiet[quiet > 5.0]):
        assert not ((in_slow > start + 1.0) & (in_slow < start + gap - 1.0)).any()


def rescaled_gaps(process: TimeVarying, integral: Callable[[np.ndarray], np.ndarray], until: float) -> np.ndarray:
    """Gaps on the scale of expected counts: exponential with mean 1 for any Poisson process."""
    return np.diff(integral(arrivals(process, until=until)))


def test_linear_curve_is_a_poisson_process_of_that_rate() -> None:
    process = TimeVarying([(0.0, 2.0), (1000.0, 12.0)])
    np.testing.assert_allclose(process.rate_at(np.array([0.0, 500.0, 1000.0, 5000.0])), [2.0, 7.0, 12.0, 12.0])
    gaps = rescaled_gaps(process, lambda t: 2.0 * t + 0.005 * t**2, 1000.0)
    assert stats.kstest(gaps, stats.expon.cdf).pvalue > 0.01
    assert len(gaps) == pytest.approx(7000, abs=4 * math.sqrt(7000))
    assert process.expected(1000.0) == pytest.approx(7000, rel=1e-3)


def test_step_curve_holds_until_the_next_knot_and_repeats() -> None:
    process = TimeVarying([(0.0, 5.0), (10.0, 0.0)], "step", period_s=20.0)
    times = arrivals(process, until=4000.0)
    assert (np.mod(times, 20.0) < 10.0).all()
    assert len(times) == pytest.approx(10_000, abs=400)


def test_periodic_linear_curve_joins_its_ends() -> None:
    process = TimeVarying([(10.0, 1.0), (20.0, 3.0)], period_s=40.0)
    np.testing.assert_allclose(
        process.rate_at(np.array([0.0, 5.0, 10.0, 15.0, 35.0, 40.0, 55.0])), [5 / 3, 4 / 3, 1, 2, 2, 5 / 3, 2]
    )


def test_a_curve_that_ends_at_zero_ends_the_process() -> None:
    chunks = list(TimeVarying([(0.0, 50.0), (10.0, 0.0)]).times(Streams(0).get("arrivals")))
    assert 0 < sum(map(len, chunks)) < 400
    assert max(chunk.max() for chunk in chunks if len(chunk)) < 10.0


def test_curve_scales_to_a_mean_rate() -> None:
    process = TimeVarying([(0.0, 1.0), (10.0, 3.0)], period_s=20.0, rate=8.0)
    assert process.expected(2000.0) == pytest.approx(16_000, rel=1e-3)
    assert len(arrivals(process, until=2000.0)) == pytest.approx(16_000, abs=4 * math.sqrt(16_000))


def test_diurnal_counts_follow_the_hours() -> None:
    weights = [float(1 + hour % 12) for hour in range(24)]
    times = arrivals(Diurnal(2.0, weights, "step"), until=240 * HOUR)
    counts = np.histogram(np.mod(times, 24 * HOUR), bins=np.arange(25) * HOUR)[0]
    expected = np.array(weights) / np.mean(weights) * 2.0 * HOUR * 10
    assert (abs(counts - expected) < 4.5 * np.sqrt(expected)).all()
    assert len(times) / (240 * HOUR) == pytest.approx(2.0, rel=0.01)


def test_diurnal_follows_the_local_clock_through_daylight_saving() -> None:
    weights = [float(hour + 1) for hour in range(24)]
    process = Diurnal(1.0, weights, "step", start_utc="2024-03-31T00:00", zone="Europe/Paris")
    rates = process.rate_at(np.array([0.5, 1.5, 21.5]) * HOUR) * np.mean(weights)
    # 00:30 UTC is 01:30 in Paris; clocks go from 02:00 to 03:00 at 01:00 UTC.
    np.testing.assert_allclose(rates, [2.0, 4.0, 24.0])


def test_diurnal_linear_keeps_the_mean_and_meets_the_middles() -> None:
    weights = [1.0, 5.0] * 12
    process = Diurnal(3.0, weights)
    np.testing.assert_allclose(process.rate_at(np.array([0.5, 1.0, 1.5]) * HOUR), [1.0, 3.0, 5.0])
    assert process.expected(24 * HOUR) == pytest.approx(3.0 * 24 * HOUR, rel=1e-6)


DAY = [1.0] * 24
BAD: list[tuple[Callable[[], object], str]] = [
    (lambda: Poisson(0.0), "workload.rate"),
    (lambda: Poisson(-1.0), "workload.rate"),
    (lambda: Poisson(math.nan), "workload.rate"),
    (lambda: Poisson(math.inf), "workload.rate"),
    (lambda: Poisson("4"), "workload.rate"),  # type: ignore[arg-type]
    (lambda: Poisson(True), "workload.rate"),
    (lambda: Poisson(None), "workload.rate"),  # type: ignore[arg-type]
    (lambda: ConstantRate(-2), "workload.rate"),
    (lambda: Gamma(1.0, 0.0), "workload.cv"),
    (lambda: Gamma(1.0, -1.0), "workload.cv"),
    (lambda: Weibull(1.0, math.nan), "workload.cv"),
    (lambda: weibull_shape(1e9), "workload.cv"),
    (lambda: OnOff(0.0, 1.0, 1.0, 1.0), "workload.rate_on"),
    (lambda: OnOff(1.0, -1.0, 1.0, 1.0), "workload.rate_off"),
    (lambda: OnOff(1.0, 0.0, 0.0, 1.0), "workload.mean_on_s"),
    (lambda: OnOff(1.0, 0.0, 1.0, math.nan), "workload.mean_off_s"),
    (lambda: OnOff(1.0, 0.0, 1e-6, 1e-6), "workload.mean_on_s"),
    (lambda: TimeVarying([]), "workload.knots"),
    (lambda: TimeVarying("0 1"), "workload.knots"),  # type: ignore[arg-type]
    (lambda: TimeVarying([(0, 1, 2)]), "workload.knots"),
    (lambda: TimeVarying([(0, 1), (0, 2)]), "workload.knots"),
    (lambda: TimeVarying([(-1, 1)]), "workload.knots"),
    (lambda: TimeVarying([(0, -1)]), "workload.knots"),
    (lambda: TimeVarying([(0, 0), (1, 0)]), "workload.knots"),
    (lambda: TimeVarying([(0, 1)], "cubic"), "workload.interpolation"),
    (lambda: TimeVarying([(0, 1), (9, 1)], period_s=9), "workload.period_s"),
    (lambda: TimeVarying([(0, 0), (1, 0), (2, 1)], "step", rate=1.0), "workload.knots"),
    (lambda: Diurnal(1.0, [1.0] * 23), "workload.weights"),
    (lambda: Diurnal(1.0, [0.0] * 24), "workload.weights"),
    (lambda: Diurnal(1.0, [-1.0, *DAY[1:]]), "workload.weights"),
    (lambda: Diurnal(1.0, DAY, start_utc="soon"), "workload.start_utc"),
    (lambda: Diurnal(1.0, DAY, zone="Europe/Paris"), "workload.start_utc"),
    (lambda: Diurnal(1.0, DAY, start_utc="2024-01-01", zone="Mars/Base"), "workload.zone"),
    (lambda: Diurnal(1.0, DAY, start_utc="2024-01-01", zone="../etc"), "workload.zone"),
]


@pytest.mark.parametrize(("make", "key"), BAD)
def test_bad_arguments_are_named(make: Callable[[], object], key: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key
    assert "\n" not in str(caught.value)
