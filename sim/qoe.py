"""What users experience: SLO classes, and the formulas of TTFT, TPOT, ITL, E2E, SLO attainment and token-timeline QoE.

All functions are pure and take arrays of one value a request; times in seconds. Definitions: docs/metrics.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sim.errors import InputError, number, whole

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SLOClass:
    """What one class of requests expects. A bound of infinity always holds.

    Attributes:
        name: such as ``chat``.
        ttft_s, tpot_s, e2e_s, ttfv_s: upper bounds [s]; all must hold jointly. The last is that of the first visible
            token, behind hidden thinking.
        expected_ttft_s: time after which a user begins to expect text [s] (token-timeline QoE).
        digest_tokens_per_s: speed at which a user takes text in [tokens/s] (token-timeline QoE).
        first_audio_s: upper bound of the first sound of a spoken answer [s].
        sentence_tokens: of its first sentence, which speech is made of once all of it is out; 0 for no speech.
        tts_s: how long that takes until its first sound [s].
    """

    name: str = "chat"
    ttft_s: float = math.inf
    tpot_s: float = math.inf
    e2e_s: float = math.inf
    expected_ttft_s: float = 1.0
    digest_tokens_per_s: float = 4.8
    ttfv_s: float = math.inf
    first_audio_s: float = math.inf
    sentence_tokens: int = 0
    tts_s: float = 0.0

    def __post_init__(self) -> None:
        for key in ("ttft_s", "tpot_s", "e2e_s", "ttfv_s", "first_audio_s", "digest_tokens_per_s"):
            if not getattr(self, key) > 0.0:
                raise InputError(f"slo.{self.name}.{key}", getattr(self, key), "a number > 0, or null for no bound")
        if not (self.expected_ttft_s >= 0.0 and math.isfinite(self.expected_ttft_s)):
            raise InputError(f"slo.{self.name}.expected_ttft_s", self.expected_ttft_s, "a time >= 0 s")
        accepted = "a whole number of tokens; 0 for no speech"
        sentence = whole(f"slo.{self.name}.sentence_tokens", self.sentence_tokens, accepted)
        number(f"slo.{self.name}.tts_s", self.tts_s, "a time >= 0 s", low=0.0)
        if not sentence and (self.tts_s or math.isfinite(self.first_audio_s)):
            raise InputError(f"slo.{self.name}.sentence_tokens", sentence, "at least 1 with first_audio_s or tts_s")


def slo_met(
    ttft_s: FloatArray,
    tpot_s: FloatArray,
    e2e_s: FloatArray,
    ttft_bound_s: npt.ArrayLike,
    tpot_bound_s: npt.ArrayLike,
    e2e_bound_s: npt.ArrayLike,
) -> npt.NDArray[np.bool_]:
    """Whether each request met every bound of its class jointly.

    A request without a first or a last token (NaN in `ttft_s` or `e2e_s`) missed, whatever the bounds. A request of one
    token has no TPOT (NaN) and meets that bound.

    Args:
        ttft_s, tpot_s, e2e_s: what was measured [s].
        ttft_bound_s, tpot_bound_s, e2e_bound_s: upper bounds [s], infinite for none; scalars or one a request.
    """
    paced = np.isnan(tpot_s) | (tpot_s <= _floats(tpot_bound_s))
    met: npt.NDArray[np.bool_] = (ttft_s <= _floats(ttft_bound_s)) & paced & (e2e_s <= _floats(e2e_bound_s))
    return met


def all_met(columns: Mapping[str, FloatArray], classes: Sequence[SLOClass]) -> npt.NDArray[np.bool_]:
    """Whether each request met every bound of its class and its own deadline; missed where it has no last token.

    Args:
        columns: of the requests, as in `sim.results.REQUEST_COLUMNS`: times, `slo_class` and `deadline_s`.
        classes: of the workload.
    """
    slo = columns["slo_class"].astype(np.int64)
    keys = ("ttft_s", "tpot_s", "e2e_s", "ttfv_s", "first_audio_s")
    bounds = [np.array([getattr(each, key) for each in classes])[slo] for key in keys]
    met = slo_met(columns["ttft_s"], columns["tpot_s"], columns["e2e_s"], *bounds[:3])
    for key, bound in zip(keys[3:], bounds[3:]):
        met &= np.isinf(bound) | (columns[key] <= bound)
    return met & ~(columns["e2e_s"] > columns["deadline_s"])


def goodput(met: npt.NDArray[np.bool_], observed_s: float) -> float:
    """Requests that met their SLO per second of the window in which they arrived [1/s]; NaN without a window.

    Source: AIPerf's metric `goodput`.
    """
    return float(np.count_nonzero(met)) / observed_s if observed_s > 0.0 else math.nan


def token_qoe_v1(
    ttft_s: npt.ArrayLike,
    e2e_s: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    expected_ttft_s: npt.ArrayLike,
    digest_tokens_per_s: npt.ArrayLike,
) -> FloatArray:
    """Token-timeline QoE of requests whose text never stalls: no gap between tokens exceeds 1 / digest speed.

    QoE = int_0^TTLT A(t) dt / int_0^TTLT min(T(t), l) dt, clipped at 1, with t = 0 when the request was sent, TTLT the
    time of the last token, l the output tokens, T(t) = TDS * (t - expected TTFT) the tokens expected, and A(t) the
    tokens delivered with their slope capped at the digest speed TDS. Without a stall the user digests at TDS from the
    first token on, so both integrals are the area under one ramp. Nothing was expected of a request that ended
    before its expected TTFT: QoE 1.

    Args:
        ttft_s, e2e_s: time to first and to last token [s].
        output_tokens: tokens delivered, at least 1.
        expected_ttft_s: time after which the user expects text [s].
        digest_tokens_per_s: digest speed [tokens/s].

    Returns:
        QoE in [0, 1]; NaN where a time is NaN.

    Source: Liu et al., Andes: Defining and Enhancing Quality-of-Experience in LLM-Based Text Streaming Services
        (arXiv 2404.16283, version 1).
    """
    end, tokens, speed = _floats(e2e_s), _floats(output_tokens), _floats(digest_tokens_per_s)
    actual = _ramp_area(end - _floats(ttft_s), tokens, speed)
    expected = _ramp_area(end - _floats(expected_ttft_s), tokens, speed)
    return _share(actual, expected, where_zero=1.0)


def token_qoe_v1_walk(token_s: FloatArray, expected_ttft_s: float, digest_tokens_per_s: float) -> float:
    """`token_qoe_v1` of one request with any timeline, stalls included, from the time of every token.

    Token i is digested from c_i = max(t_i, c_{i-1} + 1/TDS) on, for 1/TDS seconds: A(t) is a sum of ramps of height 1.

    Args:
        token_s: time of every token since the request was sent, never decreasing, at least one [s].
        expected_ttft_s: time after which the user expects text [s].
        digest_tokens_per_s: digest speed [tokens/s].
    """
    speed, end = _floats(digest_tokens_per_s), token_s[-1]
    actual = _ramp_area(end - digest_times(token_s, digest_tokens_per_s), _floats(1.0), speed).sum()
    expected = _ramp_area(end - _floats(expected_ttft_s), _floats(len(token_s)), speed)
    return float(_share(actual, expected, where_zero=1.0))


def token_qoe_v2(
    ttft_s: npt.ArrayLike,
    output_tokens: npt.ArrayLike,
    expected_ttft_s: npt.ArrayLike,
    digest_tokens_per_s: npt.ArrayLike,
) -> FloatArray:
    """The later definition, QoE = 1 - S_delay / S_whole, of requests whose text never stalls.

    S_delay sums over the tokens by how much each is digested later than the ideal expected TTFT + (i - 1)/TDS, S_whole
    how long each took since the request was sent. Clipped to [0, 1]. Arguments as in `token_qoe_v1`.

    Source: Liu et al., Andes (arXiv 2404.16283, version 2).
    """
    first, tokens = _floats(ttft_s), _floats(output_tokens)
    delay = tokens * (first - _floats(expected_ttft_s))
    whole = tokens * first + tokens * (tokens - 1.0) / (2.0 * _floats(digest_tokens_per_s))
    return 1.0 - _share(delay, whole, where_zero=0.0)


def token_qoe_v2_walk(token_s: FloatArray, expected_ttft_s: float, digest_tokens_per_s: float) -> float:
    """`token_qoe_v2` of one request with any timeline. Arguments as in `token_qoe_v1_walk`."""
    digested = digest_times(token_s, digest_tokens_per_s)
    ideal = expected_ttft_s + np.arange(len(token_s)) / digest_tokens_per_s
    return 1.0 - float(_share((digested - ideal).sum(), digested.sum(), where_zero=0.0))


def token_qoe_walks(
    token_s: FloatArray,
    bounds: npt.NDArray[np.int64],
    expected_ttft_s: FloatArray,
    digest_tokens_per_s: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """`token_qoe_v1_walk` and `token_qoe_v2_walk` of many requests at once.

    Args:
        token_s: times of all tokens since their request was sent, request after request [s].
        bounds: where each request's tokens begin, and behind the last one their end; every request has at least one.
        expected_ttft_s, digest_tokens_per_s: one a request.

    Returns:
        QoE by the first and by the second definition, one a request.
    """
    begin, end, sizes = bounds[:-1], token_s[bounds[1:] - 1], np.diff(bounds)
    request = np.repeat(np.arange(len(sizes)), sizes)
    speed = digest_tokens_per_s[request]
    pace = (np.arange(len(token_s)) - begin[request]) / speed
    late = token_s - pace
    # each request is lifted above all before it, so that one running maximum serves them all
    lift = request * (late.max() - late.min() + 1.0)
    # lifting rounds, but no token is digested before it is there
    digested = np.maximum(pace + (np.maximum.accumulate(late + lift) - lift), token_s)
    actual = np.add.reduceat(_ramp_area(end[request] - digested, _floats(1.0), speed), begin)
    expected = _ramp_area(end - expected_ttft_s, _floats(sizes), digest_tokens_per_s)
    delay = np.add.reduceat(digested - expected_ttft_s[request] - pace, begin)
    second = 1.0 - _share(delay, np.add.reduceat(digested, begin), where_zero=0.0)
    return _share(actual, expected, where_zero=1.0), second


def digest_times(token_s: FloatArray, digest_tokens_per_s: float) -> FloatArray:
    """When the user begins to take in each token: c_i = max(t_i, c_{i-1} + 1/TDS) [s]."""
    pace = np.arange(len(token_s)) / digest_tokens_per_s
    digested: FloatArray = pace + np.maximum.accumulate(token_s - pace)
    return digested


def _floats(values: npt.ArrayLike) -> FloatArray:
    return np.asarray(values, dtype=np.float64)


def _ramp_area(duration_s: FloatArray, height: FloatArray, slope: FloatArray) -> FloatArray:
    """Area under min(slope * t, height) for t from 0 to `duration_s`; 0 for a negative duration."""
    duration = np.maximum(duration_s, 0.0)
    rise = np.minimum(duration, height / slope)
    with np.errstate(invalid="ignore"):
        top = np.fmin(slope * rise, height)  # an infinite slope is a step: inf * 0 counts as `height`
    area: FloatArray = height * (duration - rise) + top * rise / 2.0
    return area


def _share(part: npt.ArrayLike, whole: npt.ArrayLike, where_zero: float) -> FloatArray:
    """part / whole held within [0, 1]; `where_zero` where `whole` is zero."""
    wholes = _floats(whole)
    parts = np.clip(_floats(part), 0.0, wholes)  # before dividing, or a tiny whole overflows
    share: FloatArray = np.divide(parts, wholes, out=np.full_like(parts, where_zero), where=wholes != 0.0)
    return share
