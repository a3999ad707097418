"""What the simulator needs of a workload: batches of requests in order of arrival, and their SLO classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from sim.qoe import SLOClass
from sim.request import Traits
from sim.rng import Streams


@dataclass(slots=True)
class RequestBatch:
    """Consecutive requests as columns of equal length `n`; arrivals never decrease, within and across batches.

    Attributes:
        arrival_s: float64 [n], seconds since the start of the workload.
        prompt_tokens: int64 [n], at least 1.
        output_tokens: int64 [n], at least 1.
        slo_class: int64 [n], index into the workload's `slo_classes`.
        hashes: for each request the names of its prompt's prefix units, of the workload's `prefix_unit` tokens each,
            for engines that cache prefixes; equal names stand for equal tokens up to there. Names beyond the prompt's
            stand for units that the answer fills. None for none.
        cached_tokens: int64 [n], prompt tokens found in a prefix cache, fewer than the prompt's; None for none.
        traits: tenant, priority, deadline, adapter and images of each request; None where none has any.
        session: int64 [n], the conversation that each is a turn of, from 0; None where there are none.
        question: int64 [n], row of the workload's `labels` that tells how models answer each; None where it has none.
    """

    arrival_s: npt.NDArray[np.float64]
    prompt_tokens: npt.NDArray[np.int64]
    output_tokens: npt.NDArray[np.int64]
    slo_class: npt.NDArray[np.int64]
    cached_tokens: npt.NDArray[np.int64] | None = None
    hashes: list[tuple[int, ...]] | None = None
    traits: list[Traits] | None = None
    session: npt.NDArray[np.int64] | None = None
    question: npt.NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)


class Workload(Protocol):
    """A source of requests. `batches` may be called again and then yields the same requests for the same streams.

    It may have an attribute `labels`: for names of models, or `weak` and `strong`, float64 columns of how correctly
    each question is answered, 1 or 0, NaN where that is unknown. Then its batches say which question a request asks.
    """

    slo_classes: tuple[SLOClass, ...]

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        """Yield requests in order of arrival, a few thousand at a time, so that memory stays flat."""
        ...

    def expected_requests(self) -> float | None:
        """About how many requests will come, for progress only; None where it cannot be told cheaply."""
        ...
