"""Whether a model answers a request correctly, and what a router or a verifier guesses of it.

A request is as hard as its difficulty, a standard normal; a model with score s on the task answers it correctly iff

    lambda * difficulty + sqrt(1 - lambda^2) * own noise < Phi^-1(s),   lambda^2 = correlation,

so that it is right in a share s of all requests, and two models are right together as often as in a Gaussian copula
with that correlation. Difficulties and noises are functions of seed, request and model (`sim.draws`), drawn by nobody:
another policy finds the same answers right, and all models face the same requests. Where a workload replays labels,
they hold.

Source: one-factor Gaussian copula, Li, "On Default Correlation", J. Fixed Income 2000; the correlation is the
tetrachoric one of labels of two models (`hybridfleet describe` of a labelled trace).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sim.copula import both, normal_cdf, normal_quantile
from sim.draws import Normals
from sim.errors import InputError, instance, number
from sim.hardware.keys import TASKS
from sim.labels import Labels
from sim.request import Request

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
UNKNOWN = math.nan
ROLES = ("weak", "strong")  #: labels of these names are for the models that the settings name


@dataclass(frozen=True, slots=True)
class QualityModel:
    """What is known about answers, before there is a fleet.

    Attributes:
        task: benchmark whose scores count (`sim.hardware.keys.TASKS`); None for no score, so that only labels tell.
        correlation: of two models' latent correctness, in [0, 1).
        router_auc: of the signal by which a router tells requests that only the strong model answers correctly: the
            chance that it ranks one of them above another request, in (0.5, 1) [0.7: assumed].
        score_auc: of the score that a model or a verifier gives an answer: the chance that it ranks a correct answer
            above a wrong one, in (0.5, 1) [0.8: assumed].
        weak, strong: pool or model whose answers the labels ``weak`` and ``strong`` are; None for the one with the
            lowest and the highest score on the task.
    """

    task: str | None = None
    correlation: float = 0.0
    router_auc: float = 0.7
    score_auc: float = 0.8
    weak: str | None = None
    strong: str | None = None

    def __post_init__(self) -> None:
        if self.task is not None and self.task not in TASKS:
            raise InputError("quality.task", self.task, " | ".join((*TASKS, "null")))
        accepted = "a correlation in [0, 0.999]"
        number("quality.correlation", self.correlation, accepted, low=0.0, high=0.999)
        for name in ("router_auc", "score_auc"):
            accepted = "an area under the ROC curve in [0.501, 0.9999]"
            number(f"quality.{name}", getattr(self, name), accepted, low=0.501, high=0.9999)
        for role in ROLES:
            if getattr(self, role) is not None:
                instance(f"quality.{role}", getattr(self, role), str, "name of a pool or id of a model, or null")


class Answerer(Protocol):
    """What has to be known of a pool: `sim.fleet.pool.LivePool` has it."""

    name: str
    model_id: str

    @property
    def served_quality(self) -> Mapping[str, float]: ...


class _Source(NamedTuple):
    """How one pool or model answers: by labels, or by its score; neither where nothing is known."""

    model: str
    score: float
    threshold: float
    label: str | None


class Answers:
    """The answers of one run. Every method takes a pool by its name or a model by its id; unknown ones are NaN.

    A model that pools serve in several number formats has the noise of one model and a score by format: name the pool,
    or the best of them counts.

    Args:
        model: the settings.
        seed: root seed of the run.
        pools: of the fleet.
        labels: of the workload, or None.

    Raises:
        InputError: labels cannot be told to be of any pool's model.
    """

    def __init__(
        self, model: QualityModel, seed: int, pools: Iterable[Answerer], labels: Mapping[str, FloatArray] | None = None
    ) -> None:
        self.model = model
        self.labels = None if labels is None else Labels(labels)
        self._normals = Normals(seed)
        self._shared, self._own = math.sqrt(model.correlation), math.sqrt(1.0 - model.correlation)
        self._router_gain, self._score_gain = (
            math.sqrt(2.0) * normal_quantile(auc) for auc in (model.router_auc, model.score_auc)
        )
        self._sources = self._by_name(list(pools))
        self._priors: dict[tuple[str, str], float] = {}

    @property
    def task(self) -> str | None:
        """What answers are correct about: a benchmark, ``labels`` of the workload, or None for nothing known."""
        return self.model.task if self.labels is None else "labels"

    # -- who answers, and how well -----------------------------------------------------------------------------------

    def _by_name(self, pools: list[Answerer]) -> dict[str, _Source]:
        task = self.model.task
        scores = {pool.name: pool.served_quality.get(task, UNKNOWN) if task else UNKNOWN for pool in pools}
        by_label = self._labelled(pools, scores)
        found: dict[str, _Source] = {}
        for pool in sorted(pools, key=lambda pool: -math.inf if math.isnan(scores[pool.name]) else scores[pool.name]):
            found[pool.model_id] = self._source(pool, scores[pool.name], by_label)
        return found | {pool.name: self._source(pool, scores[pool.name], by_label) for pool in pools}

    def _source(self, pool: Answerer, score: float, by_label: Mapping[str, str]) -> _Source:
        threshold = UNKNOWN if math.isnan(score) else normal_quantile(score)
        label = by_label.get(pool.name, by_label.get(pool.model_id))
        return _Source(pool.model_id, score, threshold, label)

    def _labelled(self, pools: list[Answerer], scores: Mapping[str, float]) -> dict[str, str]:
        """Which label is whose, by the name of a pool or the id of a model."""
        if self.labels is None:
            return {}
        names = [name for pool in pools for name in (pool.name, pool.model_id)]
        found = {}
        for label in self.labels.names:
            whose = self._of_role(label, pools, scores) if label in ROLES else label
            if whose in names:
                found[whose] = label
            elif label in ROLES:
                raise InputError(f"quality.{label}", whose, f"a pool or model of the fleet: {_list(names)}")
        if not found:
            raise InputError("workload.labels", _list(self.labels.names), f"one of weak | strong, {_list(names)}")
        return found

    def _of_role(self, role: str, pools: list[Answerer], scores: Mapping[str, float]) -> str:
        given: str | None = getattr(self.model, role)
        if given is not None:
            return given
        ranked = sorted({(scores[pool.name], pool.model_id) for pool in pools})
        if len(ranked) < 2 or ranked[0][0] == ranked[-1][0] or any(math.isnan(score) for score, _ in ranked):
            accepted = f"the pool or model that the {role} labels are of, as scores do not tell: "
            raise InputError(f"quality.{role}", None, accepted + _list(pool.name for pool in pools))
        return ranked[0 if role == "weak" else -1][1]

    def _find(self, who: str) -> _Source:
        source = self._sources.get(who)
        if source is None:
            raise InputError("quality", who, f"name of a pool or id of a model in the fleet: {_list(self._sources)}")
        return source

    def rate(self, who: str) -> float:
        """Share of all requests that it answers correctly: mean of its labels, or its score."""
        source = self._find(who)
        if source.label is not None and self.labels is not None:
            return self.labels.rate(source.label)
        return source.score

    # -- one request -------------------------------------------------------------------------------------------------

    def correct(self, request: Request, who: str) -> float:
        """1 if it answers the request correctly, 0 if not; labels may lie between."""
        return self._correct(request.id, self._find(who))

    def lifted(self, request: Request, who: str, gain: float) -> float:
        """`correct` if its score were higher by `gain`, as with documents in its prompt; requests that it answers
        without are still answered. NaN for labels, which know nothing of it, unless `gain` is 0."""
        source = self._find(who)
        if gain == 0.0 or source.threshold != source.threshold:
            return self._correct(request.id, source) if gain == 0.0 else UNKNOWN
        if source.label is not None:
            return UNKNOWN
        score = min(max(source.score + gain, 0.0), 1.0)
        if score in (0.0, 1.0):
            return score
        return self._correct(request.id, source._replace(threshold=normal_quantile(score)))

    def _correct(self, number: int, source: _Source) -> float:
        if source.label is not None and self.labels is not None:
            return self.labels.value(source.label, number)
        if source.threshold != source.threshold:
            return UNKNOWN
        hard, own = self._normals.one("difficulty", number), self._normals.one(f"answer {source.model}", number)
        return 1.0 if self._shared * hard + self._own * own < source.threshold else 0.0

    def expected(self, request: Request, who: str) -> float:
        """Chance of a correct answer, as one who knows how hard the request is would put it.

        The difficulty of requests with labels is unknown: theirs is the mean of the labels.
        """
        source = self._find(who)
        if source.label is not None or source.threshold != source.threshold:
            return self.rate(who)
        hard = self._normals.one("difficulty", request.id)
        return normal_cdf((source.threshold - self._shared * hard) / self._own)

    def predicted_win(self, request: Request, weak: str, strong: str) -> float:
        """Chance that only `strong` answers correctly, as a router with the AUC `router_auc` puts it.

        The router sees a normal signal whose mean is higher where only the strong model is right, and knows how often
        that is; this is Bayes' rule. Equal variances, so ranks by signal and by chance agree.

        Source: binormal ROC model, AUC = Phi(gain / sqrt 2); Metz, "Basic principles of ROC analysis", 1978.
        """
        one, other = self._find(weak), self._find(strong)
        win = self._correct(request.id, other) - self._correct(request.id, one)
        if win != win:
            return UNKNOWN
        gain = self._router_gain
        signal = self._normals.one(f"router {one.model} {other.model}", request.id) + gain * max(win, 0.0)
        return _posterior(self.win_rate(weak, strong), gain, signal)

    def score(self, request: Request, who: str) -> float:
        """Chance that its answer is correct, as a verifier with the AUC `score_auc` puts it after reading it."""
        source = self._find(who)
        right = self._correct(request.id, source)
        if right != right:
            return UNKNOWN
        signal = self._normals.one(f"score {source.model}", request.id) + self._score_gain * right
        return _posterior(self.rate(who), self._score_gain, signal)

    # -- all requests ------------------------------------------------------------------------------------------------

    def win_rate(self, weak: str, strong: str) -> float:
        """Share of all requests that only `strong` answers correctly."""
        known = self._priors.get((weak, strong))
        if known is None:
            known = self._priors[weak, strong] = self._win_rate(self._find(weak), self._find(strong), weak, strong)
        return known

    def _win_rate(self, one: _Source, other: _Source, weak: str, strong: str) -> float:
        if one.label is not None and other.label is not None and self.labels is not None:
            return self.labels.win_rate(one.label, other.label)
        low, high = self.rate(weak), self.rate(strong)
        if one.label is not None or other.label is not None:
            return (1.0 - low) * high  # labels know no difficulty, so nothing joins the two
        if one.model == other.model:
            return max(high - low, 0.0)
        return high - both(one.threshold, other.threshold, self.model.correlation)

    def win_threshold(self, weak: str, strong: str, share: float) -> float:
        """The predicted win that a `share` of all requests exceeds.

        Args:
            weak, strong: pools or models.
            share: in (0, 1).
        """
        rate, gain = self.win_rate(weak, strong), self._router_gain
        if rate != rate:
            return UNKNOWN
        low, high = -40.0, 40.0 + gain
        for _ in range(100):  # the share above a signal falls with it
            middle = 0.5 * (low + high)
            above = rate * normal_cdf(gain - middle) + (1.0 - rate) * normal_cdf(-middle)
            low, high = (middle, high) if above > share else (low, middle)
        return _posterior(rate, gain, 0.5 * (low + high))

    def answered(self, numbers: IntArray, who: str) -> FloatArray:
        """`correct` of many requests by their numbers, at once."""
        source = self._find(who)
        if source.label is not None and self.labels is not None:
            return self.labels.values(source.label, numbers)
        if source.threshold != source.threshold or not len(numbers):
            return np.full(len(numbers), UNKNOWN)
        hard, own = (self._normals.many(name, numbers) for name in ("difficulty", f"answer {source.model}"))
        right: FloatArray = (self._shared * hard + self._own * own < source.threshold).astype(np.float64)
        return right


def _posterior(rate: float, gain: float, signal: float) -> float:
    """Chance of what happens at `rate` and moves a standard normal signal by `gain`, given the signal."""
    if rate <= 0.0 or rate >= 1.0:
        return rate
    return 1.0 / (1.0 + (1.0 - rate) / rate * math.exp(gain * (0.5 * gain - signal)))


def _list(names: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(names))
