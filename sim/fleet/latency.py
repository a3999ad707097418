"""How long a link's one-way latency is: distributions to draw it from. One's own has `median_s` and `draw`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sim.errors import InputError, number

FloatArray = npt.NDArray[np.float64]


class Latency(Protocol):
    """A distribution of one-way latencies.

    Attributes:
        median_s: what a policy expects of it [s].
    """

    @property
    def median_s(self) -> float: ...

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """`count` independent latencies, never negative [s]."""
        ...


@dataclass(frozen=True, slots=True)
class LogNormal:
    """Log-normal around its median.

    Attributes:
        median_s: median [s]; sigma: of its logarithm.
    """

    median_s: float
    sigma: float

    def __post_init__(self) -> None:
        number("latency.median_s", self.median_s, "a time >= 0 s", low=0.0)
        number("latency.sigma", self.sigma, "a number >= 0", low=0.0)

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """See `Latency`."""
        drawn: FloatArray = self.median_s * np.exp(self.sigma * rng.standard_normal(count))
        return drawn


@dataclass(frozen=True, slots=True)
class Gamma:
    """A fixed part, such as propagation, and a gamma-distributed one.

    Attributes:
        mean_s: mean of the gamma-distributed part [s]; cv: its standard deviation over its mean; 1 is exponential.
        fixed_s: what every latency has at least [s].
        median_s: of the whole [s].
    """

    mean_s: float
    cv: float = 1.0
    fixed_s: float = 0.0
    median_s: float = field(init=False)

    def __post_init__(self) -> None:
        number("latency.mean_s", self.mean_s, "a time > 0 s", above=0.0)
        number("latency.cv", self.cv, "a number > 0", above=0.0)
        number("latency.fixed_s", self.fixed_s, "a time >= 0 s", low=0.0)
        shape = 1.0 / self.cv**2
        from scipy.special import gammaincinv  # costs 0.2 s to import; only links with this latency pay it

        median_s = self.fixed_s + self.mean_s / shape * float(gammaincinv(shape, 0.5))
        object.__setattr__(self, "median_s", median_s)

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """See `Latency`."""
        shape = 1.0 / self.cv**2
        drawn: FloatArray = self.fixed_s + self.mean_s / shape * rng.standard_gamma(shape, count)
        return drawn


@dataclass(frozen=True, slots=True)
class Jitter:
    """A fixed part, and one that is equally likely anywhere up to a bound.

    Attributes:
        fixed_s: what every latency has at least [s]; jitter_s: what it has at most besides [s].
    """

    fixed_s: float
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        number("latency.fixed_s", self.fixed_s, "a time >= 0 s", low=0.0)
        number("latency.jitter_s", self.jitter_s, "a time >= 0 s", low=0.0)

    @property
    def median_s(self) -> float:
        """See `Latency`."""
        return self.fixed_s + 0.5 * self.jitter_s

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """See `Latency`."""
        drawn: FloatArray = self.fixed_s + self.jitter_s * rng.random(count)
        return drawn


@dataclass(frozen=True, slots=True)
class Quantiles:
    """Measured quantiles, linear between them, and held at the first and the last.

    Attributes:
        points: (share, seconds) by rising share in [0, 1], such as the percentiles of a ping [s].
    """

    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        accepted = "[share, seconds] by rising share in [0, 1], no latency below 0 s or the one before it"
        if isinstance(self.points, str) or not isinstance(self.points, Sequence) or not len(self.points):
            raise InputError("latency.points", self.points, f"a list of {accepted}")
        points: list[tuple[float, float]] = []
        for index, point in enumerate(self.points):
            key = f"latency.points[{index}]"
            if isinstance(point, str) or not isinstance(point, Sequence) or len(point) != 2:
                raise InputError(key, point, accepted)
            before = points[-1] if points else (-1.0, 0.0)
            share = number(key, point[0], accepted, above=before[0], low=0.0, high=1.0)
            points.append((share, number(key, point[1], accepted, low=before[1])))
        object.__setattr__(self, "points", tuple(points))

    @property
    def median_s(self) -> float:
        """See `Latency`."""
        shares, seconds = np.array(self.points).T
        return float(np.interp(0.5, shares, seconds))

    def draw(self, rng: np.random.Generator, count: int) -> FloatArray:
        """See `Latency`."""
        shares, seconds = np.array(self.points).T
        drawn: FloatArray = np.interp(rng.random(count), shares, seconds)
        return drawn
