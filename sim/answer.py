"""What a client gets of a journey: streams of legs one after the other, or an answer that is shown all at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim import qoe
from sim.errors import InputError
from sim.fleet.leg import Leg

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """Part of an answer: tokens of a leg, from the `start`-th (0 is the first), `count` of them.

    Attributes:
        shown_s: when the client gets them, all at once [s]; None if they stream as the leg makes them.
    """

    leg: Leg
    start: int
    count: int
    shown_s: float | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client gets.

    Attributes:
        parts: streams, one after the other; the legs have been served with ``keep=True`` if there are several.
        shown_s: when all of it is shown at once [s at the client], or None if it streams.
        quality_of: the leg whose model the answer's quality is of; None for the last part's.
        quality: share of correct answers, where it is not that of a model; None otherwise.
    """

    parts: tuple[Part, ...]
    shown_s: float | None = None
    quality_of: Leg | None = None
    quality: float | None = None

    @property
    def tokens(self) -> int:
        """How many it has."""
        return sum(part.count for part in self.parts)

    @property
    def joined(self) -> bool:
        """Whether it is something else than all of one leg's stream, or all of it at once."""
        first = self.parts[0]
        whole = len(self.parts) == 1 and not first.start and first.count == first.leg.request.output
        return self.shown_s is None and not (whole and first.shown_s is None)


def read_parts(answer: Answer, arrival_s: float, slo: qoe.SLOClass) -> tuple[float, ...]:
    """How a client that came at `arrival_s` experiences streams that are joined.

    Returns:
        Time of the first token and of the last, the longest gap, QoE by the first and by the second definition, and
        when the first sentence is there [s, and in [0, 1]].
    """
    times = np.concatenate([_client_times(part) for part in answer.parts])
    times = np.maximum.accumulate(times)  # a stream that overtakes the one before waits for it
    longest = float(np.diff(times).max()) if len(times) > 1 else np.nan
    sentence_s = float(times[min(max(slo.sentence_tokens, 1), len(times)) - 1])
    since = times - arrival_s
    score = qoe.token_qoe_v1_walk(since, slo.expected_ttft_s, slo.digest_tokens_per_s)
    score_v2 = qoe.token_qoe_v2_walk(since, slo.expected_ttft_s, slo.digest_tokens_per_s)
    return float(times[0]), float(times[-1]), longest, score, score_v2, sentence_s


def _client_times(part: Part) -> FloatArray:
    """When the client gets the tokens of a part [s]."""
    leg = part.leg
    if part.shown_s is not None:
        return np.full(part.count, part.shown_s)
    if len(leg.times) < part.start + part.count:
        raise InputError("policy answer", f"a part of a leg of {leg.pool.name}", "legs served with keep=True")
    link = leg.pool.link
    down_s = link.downlink_s(leg.request) if link is not None else 0.0
    return np.array(leg.times[part.start : part.start + part.count]) + down_s
