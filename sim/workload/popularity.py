"""How often each of several things is chosen: all alike, by Zipf's law, or by weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.errors import InputError
from sim.workload import checks
from sim.workload.lengths import FloatArray, IntArray

MOST = 10**6  #: things to choose from
ACCEPTED = "uniform | zipf | a list of weights >= 0, not all 0"


class Popularity:
    """Shares of `count` things, numbered from 0, the most popular first under Zipf's law.

    Under Zipf's law the k-th thing's share is proportional to k^-exponent.
    Source: Zipf, Human Behavior and the Principle of Least Effort, 1949.

    Args:
        key: dotted key of the mapping that the arguments stand in, for errors.
        count: how many things; None takes as many as there are weights.
        popularity: ``uniform``, ``zipf`` or one weight a thing.
        exponent: of Zipf's law; None is 1.
        names: what `count` and `popularity` are called there.

    Attributes:
        count: how many things.
        shares: float64 [count], the share of each; their sum is 1.
    """

    def __init__(
        self,
        key: str,
        count: int | None,
        popularity: str | Sequence[float] = "uniform",
        exponent: float | None = None,
        names: tuple[str, str] = ("count", "popularity"),
    ) -> None:
        self._key, self._table_key = key, f"{key}.{names[1]}"
        if exponent is not None and popularity != "zipf":
            raise InputError(f"{key}.exponent", exponent, "null, unless popularity is zipf")
        if count is None and isinstance(popularity, Sequence) and not isinstance(popularity, str):
            count = len(popularity)
        self.count = checks.whole(f"{key}.{names[0]}", count, 1, MOST)
        total = np.cumsum(self._weights(popularity, exponent))
        if not 0.0 < total[-1] < np.inf:
            raise InputError(self._table_key, popularity, ACCEPTED)
        self._cumulative: FloatArray = total / total[-1]
        self.shares: FloatArray = np.diff(self._cumulative, prepend=0.0)

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw `n` numbers of things, int64 [n]."""
        return self.at(rng.random(n))

    def at(self, u: FloatArray) -> IntArray:
        """The things at probabilities `u` in [0, 1): the last share ends at 1, so each is one."""
        return np.searchsorted(self._cumulative, u, side="right").astype(np.int64)

    def one(self, u: float) -> int:
        """`at` for one probability."""
        return int(self._cumulative.searchsorted(u, side="right"))

    def _weights(self, popularity: str | Sequence[float], exponent: float | None) -> FloatArray:
        if popularity == "uniform":
            return np.ones(self.count)
        if popularity == "zipf":
            accepted = "an exponent from 0 to 10"
            power = checks.number(f"{self._key}.exponent", 1.0 if exponent is None else exponent, accepted, 0.0, 10.0)
            return np.asarray(np.arange(1.0, self.count + 1.0) ** -power)
        if isinstance(popularity, str) or not isinstance(popularity, Sequence) or len(popularity) != self.count:
            raise InputError(self._table_key, popularity, f"{ACCEPTED}, one for each of {self.count}")
        return np.array([checks.number(self._table_key, each, ACCEPTED, 0.0) for each in popularity])
