"""Streams that an outage of a client link interrupts: their tokens come late, and some of them together.

The engine notices nothing and goes on. So it is worked out when requests have ended, for those alone whose text was
under way while their link was down.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from sim.fleet.outages import Outages
from sim.fleet.pool import LivePool

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class Stalls:
    """What the outages of all client links do to the way down.

    Args:
        pools: the fleet's.
    """

    def __init__(self, pools: Iterable[LivePool]) -> None:
        self._outages: dict[int, Outages] = {
            pool.index: pool.link.outages for pool in pools if pool.link is not None and pool.link.outages is not None
        }

    def of(
        self, pool: IntArray, first_s: FloatArray, last_s: FloatArray, down_s: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """How long the first and last token of each request are held up, and which requests meet an outage at all.

        Args:
            pool: index of each request's pool.
            first_s, last_s: when these tokens leave the pool [s].
            down_s: one-way time to the client while the link is up [s].

        Returns:
            Stalls [requests, 2] [s]; and which of the requests have a text that an outage interrupts or holds up.
        """
        held, met = np.zeros((len(pool), 2)), np.zeros(len(pool), dtype=bool)
        for index, outages in self._outages.items():
            mine = np.flatnonzero(pool == index)
            first, last, down = first_s[mine], last_s[mine], down_s[mine]
            held[mine, 0], held[mine, 1] = outages.stalls(first, down), outages.stalls(last, down)
            met[mine] = outages.touch(first, last + down)
        return held, met

    def stream(self, pool: int, times: FloatArray, down_s: float) -> tuple[FloatArray, IntArray]:
        """When the client gets tokens that leave a pool at `times`, and which of the gaps between them change.

        Returns:
            Times, less the one-way time to the client [s]; and the numbers of the gaps that are not as they were sent.
        """
        held = self._outages[pool].stalls(times, np.full(len(times), down_s))
        # what waited for the end of an outage comes at once; rounding must not let it overtake
        return np.maximum.accumulate(times + held), np.flatnonzero(np.diff(held))
