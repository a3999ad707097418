"""Means that queueing theory gives for systems that an engine becomes under simple timing."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import stats

FloatArray = npt.NDArray[np.float64]


def waiting_mg1(rate: float, service_s: FloatArray) -> float:
    """Mean wait in an M/G/1 queue by the moments of the service times themselves [s] (Pollaczek-Khinchine)."""
    load = rate * service_s.mean()
    return float(rate * np.mean(service_s**2) / (2.0 * (1.0 - load)))


def response_ps(rate: float, service_s: FloatArray) -> float:
    """Mean time in an M/G/1 processor-sharing system [s]: it depends on the mean service time alone."""
    return float(service_s.mean() / (1.0 - rate * service_s.mean()))


def interval(samples: FloatArray, batches: int = 25, confidence: float = 0.999) -> tuple[float, float]:
    """Confidence interval of the mean of a correlated series, by the means of batches."""
    means = np.array([part.mean() for part in np.array_split(samples, batches)])
    half = stats.t.ppf(0.5 + confidence / 2.0, batches - 1) * means.std(ddof=1) / np.sqrt(batches)
    return float(means.mean() - half), float(means.mean() + half)


def waiting_mmc(rate: float, service_s: float, servers: int) -> float:
    """Mean wait in an M/M/c queue [s]: Erlang's C formula."""
    offered = rate * service_s
    term, below = 1.0, 0.0
    for n in range(servers):
        below += term
        term *= offered / (n + 1)
    busy = term * servers / (servers - offered)
    return busy / (below + busy) / (servers / service_s - rate)
