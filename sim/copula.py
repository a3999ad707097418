"""The Gaussian copula of two events: from thresholds and a correlation to probabilities, and back."""

from __future__ import annotations

import math

import numpy as np

_WIDTH, _POINTS = 9.0, 2001  #: of the grid over the common factor: its error is below 1e-12
_GRID = np.linspace(-_WIDTH, _WIDTH, _POINTS)
_WEIGHTS = np.exp(-0.5 * _GRID**2)
_WEIGHTS /= _WEIGHTS.sum()


def normal_cdf(x: float) -> float:
    """Phi(x) of the standard normal."""
    return 0.5 * math.erfc(-x / math.sqrt(2.0))


def normal_quantile(share: float) -> float:
    """Phi^-1(share), infinite at 0 and 1."""
    from statistics import NormalDist  # imported here: a run without scores needs none

    if share <= 0.0 or share >= 1.0:
        return -math.inf if share <= 0.0 else math.inf
    return NormalDist().inv_cdf(share)


def both(one: float, other: float, correlation: float) -> float:
    """Chance that two standard normals with a correlation in [0, 1) are below `one` and `other`.

    Given what they have in common they are independent, and that is integrated out.
    """
    shared, own = math.sqrt(correlation), math.sqrt(1.0 - correlation)
    factor = [np.array([normal_cdf(x) for x in (threshold - shared * _GRID) / own]) for threshold in (one, other)]
    return float(_WEIGHTS @ (factor[0] * factor[1]))


def tetrachoric(one: float, other: float, together: float) -> float:
    """Correlation of two latent normals whose events have the chances `one`, `other` and, jointly, `together`.

    0 if they are together no more often than by chance, 0.999 if about as often as can be: negative ones have no common
    factor. By bisection.

    Source: Pearson, "Mathematical contributions to the theory of evolution VII", 1900.
    """
    first, second = normal_quantile(one), normal_quantile(other)
    low, high = 0.0, 0.999
    for _ in range(40):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if both(first, second, middle) < together else (low, middle)
    return 0.5 * (low + high)
