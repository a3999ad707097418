"""Which fine-tuned adapter a request needs, if any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sim.workload import checks
from sim.workload.lengths import IntArray
from sim.workload.popularity import Popularity


class Adapters:
    """Adapters of one base model, numbered from 1; 0 is the base itself.

    Args:
        count: how many; None takes as many as there are weights.
        popularity: ``uniform``, ``zipf`` or one weight an adapter.
        exponent: of Zipf's law; None is 1.
        base_share: share of requests that need none.
    """

    def __init__(
        self,
        count: int | None = None,
        popularity: str | Sequence[float] = "uniform",
        exponent: float | None = None,
        base_share: float = 0.0,
    ) -> None:
        key = "workload.adapters"
        self._popularity = Popularity(key, count, popularity, exponent)
        self.count = self._popularity.count
        self.base_share = checks.number(f"{key}.base_share", base_share, "a share from 0 to 1", 0.0, 1.0)

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw the adapters of `n` requests; 0 is none."""
        u = rng.random(n)
        if self.base_share == 1.0:
            return np.zeros(n, dtype=np.int64)
        # The same draw decides both: what lies above the base's share, stretched to [0, 1).
        above = np.maximum((u - self.base_share) / (1.0 - self.base_share), 0.0)
        return np.where(u < self.base_share, 0, 1 + self._popularity.at(np.minimum(above, np.nextafter(1.0, 0.0))))
