"""When requests arrive. Each process is one class with one method, `times`, and all are stationary where they can be:
a window of any length, beginning at t = 0, sees the stated mean rate without bias.

Rates that vary with time are in `sim.workload.curves`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sim.errors import InputError
from sim.workload import checks

FloatArray = npt.NDArray[np.float64]
CHUNK = 4096  #: arrivals drawn at a time: enough to amortise numpy, few enough to keep memory flat
MIN_CV, MAX_CV = 1e-3, 1e3  #: range of coefficients of variation in which the shapes below stay representable
MIN_PER_CYCLE = 1e-3  #: fewest arrivals a burst and pause; bounds the episodes that one chunk spans
CV_ACCEPTED = "a coefficient of variation from 0.001 to 1000 (for 0 use constant arrivals)"


class ArrivalProcess(Protocol):
    """A source of arrival times.

    A process may also have a method ``expected(duration_s) -> float``, about how many arrivals fall into
    [0, duration_s); it serves progress bars only.
    """

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield absolute arrival times [s] in chunks, never decreasing, until the consumer stops asking.

        The sequence depends on the generator's state alone, never on how much of it is consumed. A chunk may be
        empty. The iterator ends only where no arrival can ever come again.
        """
        ...


class Poisson:
    """Independent arrivals at a constant rate: exponential gaps, CV 1.

    Args:
        rate: mean arrival rate [1/s].
    """

    def __init__(self, rate: float) -> None:
        self.rate = checks.rate("workload.rate", rate)

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]."""
        return _renewal(lambda n: rng.standard_exponential(n) / self.rate)

    def expected(self, duration_s: float) -> float:
        """Mean number of arrivals in [0, duration_s)."""
        return self.rate * duration_s


class Gamma:
    """Renewal arrivals with gamma gaps: bursty for CV > 1, regular for CV < 1, Poisson for CV = 1.

    Args:
        rate: mean arrival rate [1/s].
        cv: coefficient of variation of the gaps.
    """

    def __init__(self, rate: float, cv: float) -> None:
        self.rate = checks.rate("workload.rate", rate)
        self.cv = checks.number("workload.cv", cv, CV_ACCEPTED, MIN_CV, MAX_CV)

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]; the shape of the gaps is 1/cv^2, their scale cv^2/rate."""
        shape = 1.0 / self.cv**2
        scale = 1.0 / (shape * self.rate)
        # Length-biased gap: density proportional to x * gamma(x; k), that is gamma(x; k + 1).
        first = rng.random() * rng.standard_gamma(shape + 1.0) * scale
        return _renewal(lambda n: rng.standard_gamma(shape, n) * scale, first)

    def expected(self, duration_s: float) -> float:
        """Mean number of arrivals in [0, duration_s)."""
        return self.rate * duration_s


class Weibull:
    """Renewal arrivals with Weibull gaps, whose tail is heavier than gamma's at the same CV > 1.

    Args:
        rate: mean arrival rate [1/s].
        cv: coefficient of variation of the gaps.
    """

    def __init__(self, rate: float, cv: float) -> None:
        self.rate = checks.rate("workload.rate", rate)
        self.cv = checks.number("workload.cv", cv, CV_ACCEPTED, MIN_CV, MAX_CV)
        self.shape = weibull_shape(self.cv)

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]; gaps are scale * E^(1/shape) with E standard exponential."""
        scale = 1.0 / (self.rate * math.gamma(1.0 + 1.0 / self.shape))
        # Length-biased gap: its E follows a gamma law of shape 1 + 1/shape.
        first = rng.random() * scale * rng.standard_gamma(1.0 + 1.0 / self.shape) ** (1.0 / self.shape)
        return _renewal(lambda n: scale * rng.weibull(self.shape, n), first)

    def expected(self, duration_s: float) -> float:
        """Mean number of arrivals in [0, duration_s)."""
        return self.rate * duration_s


class ConstantRate:
    """Evenly spaced arrivals, the first at t = 0: CV 0.

    Args:
        rate: arrival rate [1/s].
    """

    def __init__(self, rate: float) -> None:
        self.rate = checks.rate("workload.rate", rate)

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]; nothing is drawn from `rng`."""
        start = 0
        while True:
            # Division, not a running sum: the millionth arrival is as exact as the first.
            yield np.arange(start, start + CHUNK, dtype=np.float64) / self.rate
            start += CHUNK

    def expected(self, duration_s: float) -> float:
        """Number of arrivals in [0, duration_s)."""
        return self.rate * duration_s


class OnOff:
    """Bursts: Poisson arrivals whose rate switches between two values after exponential times (two-state MMPP).

    The state at t = 0 is drawn from its long-run shares. The episodes have a stream of their own, so runs that
    differ in their rates alone see the same bursts.

    Args:
        rate_on, rate_off: arrival rate in a burst and outside [1/s]; `rate_off` may be 0.
        mean_on_s, mean_off_s: mean length of a burst and of a pause [s].
        rate: long-run mean rate [1/s]; if given, `rate_on` and `rate_off` only count relative to each other.
    """

    def __init__(
        self, rate_on: float, rate_off: float, mean_on_s: float, mean_off_s: float, rate: float | None = None
    ) -> None:
        self.rate_on = checks.rate("workload.rate_on", rate_on)
        self.rate_off = checks.rate("workload.rate_off", rate_off, zero=True)
        self.mean_on_s = checks.positive("workload.mean_on_s", mean_on_s, "a mean duration > 0 s")
        self.mean_off_s = checks.positive("workload.mean_off_s", mean_off_s, "a mean duration > 0 s")
        self.rate = None if rate is None else checks.rate("workload.rate", rate)
        self.share_on = self.mean_on_s / (self.mean_on_s + self.mean_off_s)
        natural = self.share_on * self.rate_on + (1.0 - self.share_on) * self.rate_off
        self.mean_rate = natural if self.rate is None else self.rate
        self._rates = self.rate_on * self.mean_rate / natural, self.rate_off * self.mean_rate / natural
        self._per_cycle = self.mean_rate * (self.mean_on_s + self.mean_off_s)
        if self._per_cycle < MIN_PER_CYCLE:
            accepted = f"a burst and pause long enough for {MIN_PER_CYCLE} requests on average (shorter is Poisson)"
            raise InputError("workload.mean_on_s", mean_on_s, accepted)

    def times(self, rng: np.random.Generator) -> Iterator[FloatArray]:
        """Yield arrival times [s]: a Poisson process of rate 1 on the scale of cumulative rate, mapped back to time."""
        events, episodes = rng.spawn(2)
        curve = _EpisodeCurve(self, self._rates, episodes, pairs=64 + math.ceil(CHUNK / self._per_cycle))
        reached = 0.0
        while True:
            counts = reached + np.cumsum(events.standard_exponential(CHUNK))
            reached = float(counts[-1])
            yield curve.time_of(counts)

    def expected(self, duration_s: float) -> float:
        """Mean number of arrivals in [0, duration_s)."""
        return self.mean_rate * duration_s


class _EpisodeCurve:
    """Cumulative rate over on and off episodes, drawn as far as asked and forgotten behind."""

    def __init__(self, process: OnOff, rates: tuple[float, float], rng: np.random.Generator, pairs: int) -> None:
        self._pairs = pairs  # drawn at a time, about one chunk of arrivals
        on_first = rng.random() < process.share_on
        means = (process.mean_on_s, process.mean_off_s) if on_first else (process.mean_off_s, process.mean_on_s)
        self._means = np.array(means)
        self._rates = np.array(rates if on_first else rates[::-1])
        self._rng = rng
        self._t = np.zeros(1)
        self._count = np.zeros(1)

    def time_of(self, counts: FloatArray) -> FloatArray:
        """Times [s] at which the cumulative rate reaches `counts`, which never decrease from call to call."""
        while self._count[-1] <= counts[-1]:
            spans = self._rng.standard_exponential((self._pairs, 2)) * self._means
            self._t = np.append(self._t, self._t[-1] + np.cumsum(spans))
            self._count = np.append(self._count, self._count[-1] + np.cumsum(spans * self._rates))
        times = np.interp(counts, self._count, self._t)
        behind = int(np.searchsorted(self._count, counts[-1], side="right")) - 1
        self._t, self._count = self._t[behind:], self._count[behind:]
        return times


def weibull_shape(cv: float) -> float:
    """Shape k of the Weibull law with coefficient of variation `cv`.

    Solves ln(1 + cv^2) = ln G(1 + 2/k) - 2 ln G(1 + 1/k), whose right side falls in k, by bisection in ln k.
    Source: moments of the Weibull law, mean = scale * G(1 + 1/k), G the gamma function.

    Raises:
        InputError: `cv` is out of range.
    """
    target = math.log1p(checks.number("workload.cv", cv, CV_ACCEPTED, MIN_CV, MAX_CV) ** 2)
    low, high = math.log(0.02), math.log(1e4)
    for _ in range(100):  # 13 units of ln k halved 100 times: to the last bit
        middle = 0.5 * (low + high)
        inverse = math.exp(-middle)
        if math.lgamma(1.0 + 2.0 * inverse) - 2.0 * math.lgamma(1.0 + inverse) > target:
            low = middle
        else:
            high = middle
    return math.exp(0.5 * (low + high))


def thinned(
    rng: np.random.Generator, peak: float, rate_at: Callable[[FloatArray], FloatArray], end_s: float = math.inf
) -> Iterator[FloatArray]:
    """Yield the times [s] of a Poisson process whose rate varies, by thinning candidates that come at the peak rate.

    Source: Lewis and Shedler, Simulation of nonhomogeneous Poisson processes by thinning, 1979.

    Args:
        rng: random stream.
        peak: upper bound of the rate [1/s].
        rate_at: the rate [1/s] at an array of times [s].
        end_s: time from which the rate is 0 for ever [s].
    """
    reached = 0.0
    while reached < end_s:
        candidates = reached + np.cumsum(rng.standard_exponential(CHUNK) / peak)
        accepted = rng.random(CHUNK) * peak < rate_at(candidates)
        reached = float(candidates[-1])
        yield candidates[accepted]


def _renewal(draw: Callable[[int], FloatArray], first_s: float | None = None) -> Iterator[FloatArray]:
    """Yield the running sum of independent gaps, of which the first may be given [s].

    A first gap drawn like the others would begin each run right after an arrival and bias its count by
    (cv^2 - 1)/2 requests; the stationary first gap is a uniform part of a length-biased one.
    Source: Cox, Renewal Theory, 1962 (equilibrium renewal process).
    """
    reached = 0.0
    while True:
        gaps = draw(CHUNK)
        if first_s is not None:
            gaps[0], first_s = first_s, None
        chunk = reached + np.cumsum(gaps)
        reached = float(chunk[-1])
        yield chunk
