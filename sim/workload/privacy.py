"""Which requests are private: not to leave the users' devices, or their edge site."""

from __future__ import annotations

import numpy as np

from sim.workload import checks
from sim.workload.lengths import IntArray


class Privacy:
    """Requests are private at random; where they may go is a router's business (`sim.routing.combined.PrivacyPin`).

    Args:
        share: of requests, or of conversations, that are private.
    """

    def __init__(self, share: float) -> None:
        self.share = checks.number("workload.privacy.share", share, "a share from 0 to 1", 0.0, 1.0)

    def draw(self, rng: np.random.Generator, n: int) -> IntArray:
        """Draw for `n` requests: 1 is private."""
        return (rng.random(n) < self.share).astype(np.int64)
