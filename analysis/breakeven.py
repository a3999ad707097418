"""What a volume of tokens costs a day by API, by rent and on own hardware, and from which volume what is cheaper.

Hardware comes in whole replicas. Load follows a profile of the 24 hours; a replica serves `tokens_per_day` if it is
loaded evenly at the highest rate that its SLO allows. Owned replicas are as many as the fullest hour asks for, and so
are rented ones that run all day; by a plan, only those that each hour asks for are rented.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Cost = Callable[[FloatArray], FloatArray]  #: USD a day of volumes [tokens/day]

HOURS = 24
MOST_REPLICAS = 100  #: up to which volumes are searched: beyond, whole replicas hardly matter
_SAME = 1e-7  #: relative distance of edges that differ by rounding alone
_ROUNDING = 1e-9  #: of a replica: what is over by rounding takes none


@dataclass(frozen=True, slots=True)
class Hardware:
    """Replicas that are rented or owned.

    Attributes:
        tokens_per_day: prompt and output tokens that one serves at the highest rate its SLO allows [tokens/day].
        usd_per_hour: of a replica that is there, used or not [USD/h].
        usd_per_token: besides, for work: electricity above idle [USD].
        by_hour: whether only those that an hour asks for are paid in it.
    """

    tokens_per_day: float
    usd_per_hour: float
    usd_per_token: float = 0.0
    by_hour: bool = False

    def replicas(self, volume: FloatArray, profile: FloatArray) -> FloatArray:
        """Replicas that each hour asks for [volumes, 24].

        Args:
            volume: [tokens/day]; profile: shares of the 24 hours, which sum to 1.
        """
        asked = np.outer(volume, profile) * HOURS / self.tokens_per_day
        found: FloatArray = np.ceil(asked - _ROUNDING)
        return found

    def usd_per_day(self, volume: FloatArray, profile: FloatArray) -> FloatArray:
        """Cost a day [USD]."""
        there = self.replicas(volume, profile)
        hours = there.sum(axis=1) if self.by_hour else HOURS * there.max(axis=1)
        usd: FloatArray = self.usd_per_hour * hours + self.usd_per_token * volume
        return usd

    def edges(self, profile: FloatArray) -> FloatArray:
        """Volumes at which some hour asks for one replica more, in order [tokens/day]."""
        some = profile[profile > 0.0]
        counts = np.arange(1, MOST_REPLICAS + 1)
        volumes = np.outer(counts, self.tokens_per_day / HOURS / some).ravel()
        rising = np.unique(volumes[volumes <= MOST_REPLICAS * self.tokens_per_day / HOURS / some.max() * (1.0 + _SAME)])
        apart: FloatArray = rising[np.append(np.diff(rising) > _SAME * rising[:-1], True)]
        return apart


@dataclass(frozen=True, slots=True)
class BreakEven:
    """From which volume something is cheaper than something else [tokens/day].

    Attributes:
        first: the least at which it is; None if it never is, up to `MOST_REPLICAS` replicas.
        ever: from which on it stays so; None if it does not. Above `first` where another whole replica is dear again.
    """

    first: float | None
    ever: float | None


def break_even(cheaper: Cost, than: Cost, edges: FloatArray) -> BreakEven:
    """Compare two costs that are linear in the volume between `edges`, and may jump behind them.

    Args:
        cheaper, than: what may become cheaper, and than what.
        edges: volumes in rising order; the last is the highest that is looked at [tokens/day].
    """
    low, high = np.concatenate(([0.0], edges[:-1])), edges
    middle = 0.5 * (low + high)
    of_middle, at_high = than(middle) - cheaper(middle), than(high) - cheaper(high)
    slope = (at_high - of_middle) / (high - middle)
    after_low = at_high - slope * (high - low)  # just behind the edge below
    wins, begins = at_high > 0.0, after_low > 0.0
    root = np.where(slope != 0.0, low - after_low / np.where(slope != 0.0, slope, 1.0), low)
    some = np.flatnonzero(wins | begins)
    if not len(some):
        return BreakEven(None, None)
    at = int(some[0])
    first = float(low[at] if begins[at] else root[at])
    if not wins[-1]:
        return BreakEven(first, None)
    dear = np.flatnonzero(~(wins & begins))
    if not len(dear):
        return BreakEven(first, float(low[0]))
    last = int(dear[-1])
    return BreakEven(first, float(root[last] if wins[last] else high[last]))


def envelope(every: Sequence[BreakEven]) -> tuple[float | None, float | None]:
    """Least and largest first volume of several cases; the second is None if one of them has none."""
    found = [each.first for each in every if each.first is not None]
    low = min(found) if found else None
    return low, max(found) if len(found) == len(every) and found else None
