"""Requests drawn from an arrival process and a length model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from sim.errors import InputError
from sim.qoe import SLOClass
from sim.rng import Streams
from sim.workload import checks
from sim.workload.arrivals import ArrivalProcess
from sim.workload.base import RequestBatch
from sim.workload.lengths import IntArray, LengthModel


class SyntheticWorkload:
    """A workload of random requests, the same for the same seed.

    Arrivals, lengths and SLO classes have a random stream each: request i keeps its lengths when the arrivals
    change, and a larger `limit` or `duration_s` only appends requests.

    Args:
        arrivals: when requests come.
        lengths: how long they are.
        duration_s: requests arrive in [0, duration_s) [s]; None for no bound.
        limit: most requests; None for no bound. One of the two is needed.
        slo_classes: what the classes of requests expect.
        slo_mix: weight of each class; None puts every request into the first.
        settings: numbers that a configuration offers at its top level (``workload.rate``) and has already handed to
            `arrivals` or `lengths` by interpolation; one that reached neither is an error.
    """

    def __init__(
        self,
        arrivals: ArrivalProcess,
        lengths: LengthModel,
        duration_s: float | None = None,
        limit: int | None = None,
        slo_classes: Sequence[SLOClass] = (SLOClass(),),
        slo_mix: Sequence[float] | None = None,
        **settings: object,
    ) -> None:
        if not callable(getattr(arrivals, "times", None)):
            raise InputError("workload.arrivals", arrivals, "an arrival process, such as Poisson")
        if not callable(getattr(lengths, "sample", None)):
            raise InputError("workload.lengths", lengths, "a length model, such as Copula, Independent or Fixed")
        self.arrivals = arrivals
        self.lengths = lengths
        if duration_s is None and limit is None:
            raise InputError("workload.duration_s", None, "a duration > 0 s, unless workload.limit is given")
        self.duration_s = checks.duration(duration_s, "or null with workload.limit")
        self.limit = checks.limit("workload.limit", limit)
        self.slo_classes = checks.slo_classes(slo_classes)
        self._slo_shares = checks.slo_mix(slo_mix, self.slo_classes)
        self._refuse_unused(settings)

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, some 4,000 at a time."""
        lengths_rng, slo_rng = streams.get("lengths"), streams.get("slo")
        left = self.limit
        for times in self.arrivals.times(streams.get("arrivals")):
            drawn = len(times)
            if drawn == 0:
                continue
            prompt, output = self.lengths.sample(lengths_rng, drawn)
            slo_class = draw_slo_classes(slo_rng, self._slo_shares, drawn)
            keep = int(np.searchsorted(times, self.duration_s, side="left"))
            if left is not None:
                keep = min(keep, left)
                left -= keep
            if keep:
                yield RequestBatch(times[:keep], prompt[:keep], output[:keep], slo_class[:keep])
            if keep < drawn or left == 0:
                return

    def expected_requests(self) -> float | None:
        """About how many requests will come; None for an arrival process that cannot tell."""
        if math.isinf(self.duration_s):
            return self.limit
        expected = getattr(self.arrivals, "expected", None)
        if expected is None:
            return self.limit
        return min(float(expected(self.duration_s)), math.inf if self.limit is None else self.limit)

    def _refuse_unused(self, settings: dict[str, object]) -> None:
        for name, value in settings.items():
            holders = [part for part in (self.arrivals, self.lengths) if hasattr(part, name)]
            if not any(getattr(part, name) == value for part in holders):
                public = {key for part in (self.arrivals, self.lengths) for key in vars(part) if key[0] != "_"}
                names = sorted(public | {"duration_s", "limit"})
                raise InputError(f"workload.{name}", value, "a setting that its parts use, of " + " | ".join(names))


def draw_slo_classes(rng: np.random.Generator, shares: Sequence[float] | None, n: int) -> IntArray:
    """Draw `n` indices of SLO classes by their cumulative shares; None means the first class."""
    if shares is None:
        return np.zeros(n, dtype=np.int64)
    # The last share is 1 and random() < 1, so the index always names a class; one of weight 0 is never drawn.
    return np.searchsorted(np.array(shares), rng.random(n), side="right").astype(np.int64)
