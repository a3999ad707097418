"""Policies that try a cheap model first and give to a stronger one what it does not answer well."""

from __future__ import annotations

from typing import Any

from sim.errors import InputError, number, whole
from sim.fleet.leg import FAILED, Leg
from sim.fleet.link import CLIENT
from sim.journey import Journey, Outcome, Steps, follow
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from sim.routing.candidates import check_kind, least_outstanding, require_kind


def bind_all(fleet: Any, *policies: Any) -> None:
    """Let each of these policies or routers look at the fleet."""
    for policy in policies:
        bind = getattr(policy, "bind", None)
        if bind is not None:
            bind(fleet)


def check_stage(key: str, value: object) -> Any:
    """Return a policy or router that is part of another.

    Raises:
        InputError: it is none.
    """
    if isinstance(value, type) or not (hasattr(value, "handle") or hasattr(value, "choose")):
        raise InputError(key, value, "a router or policy, such as {_target_: sim.routing.EdgeOnly}")
    return value


class Cascade:
    """Asks one model after the other, from cheap to strong, until a verifier is content with an answer.

    Every answer but the last model's is held back until its score is there: the chance that it is correct, as
    `quality.score_auc` lets a verifier tell. What was not shown is wasted.

    Args:
        stages: a router each, the cheapest model's first; the last may be a policy.
        threshold: score at which an answer is shown, in [0, 1].
        verify_s: time that scoring an answer takes [s].

    Source: Chen, Zaharia, Zou, "FrugalGPT", arXiv 2305.05176, with the scorer's accuracy given instead of learnt.
    """

    def __init__(self, stages: list[Any], threshold: float = 0.5, verify_s: float = 0.0) -> None:
        if not isinstance(stages, list | tuple) or len(stages) < 2:
            raise InputError("router.stages", stages, "at least two routers, the cheapest model's first")
        self._stages = [check_stage(f"router.stages[{i}]", stage) for i, stage in enumerate(stages)]
        for i, stage in enumerate(self._stages[:-1]):
            if not hasattr(stage, "choose") or hasattr(stage, "handle"):
                raise InputError(f"router.stages[{i}]", type(stage).__name__, "a router; only the last may be a policy")
        if len({id(stage) for stage in self._stages}) < len(self._stages) or self in self._stages:
            raise InputError("router.stages", "a stage that comes twice", "a cascade without a circle")
        self._threshold = number("router.threshold", threshold, "a share in [0, 1]", low=0.0, high=1.0)
        self._verify_s = number("router.verify_s", verify_s, "a time >= 0 s", low=0.0)

    @property
    def parts(self) -> tuple[Any, ...]:
        """The stages."""
        return tuple(self._stages)

    def bind(self, fleet: FleetView) -> None:
        """Let every stage look at the fleet."""
        bind_all(fleet, *self._stages)

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Serve at the first stage whose answer is good enough, or the last."""
        source = CLIENT
        for stage in self._stages[:-1]:
            pool = stage.choose(request, fleet)
            if pool is None:
                continue
            leg = yield fleet.serve(pool, source=source)
            if not leg.ok:
                continue
            source = pool.site_name
            if self._verify_s:
                yield fleet.wait(self._verify_s)
            if fleet.quality.score(request, pool.name) >= self._threshold:
                return fleet.show(leg)
            fleet.escalations += 1
        return (yield from _last(self._stages[-1], request, fleet, source))


def serve_at(pool: PoolView, fleet: Journey) -> Steps:
    """Serve the request at one pool, and nowhere else."""
    leg: Leg = yield fleet.serve(pool)
    return leg


def _last(stage: Any, request: Request, fleet: Journey, source: str) -> Steps:
    """The stage behind which there is none: its answer streams."""
    if hasattr(stage, "handle"):
        outcome: Outcome = yield from follow(stage, request, fleet)
        return outcome
    leg: Leg | None = None
    for _ in range(3):
        pool = stage.choose(request, fleet)
        if pool is None:
            break
        leg = yield fleet.serve(pool, source=source)
        if leg.status != FAILED:
            break
    return "rejected" if leg is None else leg


class EdgeAnswerCloudValidate:
    """The edge answers at once, the cloud reads the answer and corrects it where it is wrong.

    The edge's tokens stream to the client. Then question and answer go to the cloud, which judges them in one pass (a
    prefill and a verdict of `verdict_tokens`); if it is not content it answers anew, and that replaces the edge's text.
    The client's first token is the edge's, its last the cloud's where there is a correction, else the edge's.

    Args:
        answer, validate: kinds of site that answer and that judge.
        verdict_tokens: output of the judgement [tokens].
        threshold: chance of being correct below which an answer is corrected, in [0, 1]; the judge sees it with the
            accuracy of `quality.score_auc`.
        share: share of the answers that are judged, in [0, 1].

    Source: Dong and Xie, "Large Language Models (LLMs): Deployment, Tokenomics and Sustainability", arXiv 2405.17147:
    edge models answer, cloud models validate.
    """

    balancer = "least_outstanding"

    def __init__(
        self,
        answer: str = "edge",
        validate: str = "cloud",
        verdict_tokens: int = 1,
        threshold: float = 0.5,
        share: float = 1.0,
    ) -> None:
        self._answer_kind, self._judge_kind = (
            check_kind("router.answer", answer),
            check_kind("router.validate", validate),
        )
        if answer == validate:
            raise InputError("router.validate", validate, f"another kind of site than router.answer ({answer})")
        self._verdict = whole("router.verdict_tokens", verdict_tokens, "a whole number of at least 1 token", low=1)
        self._threshold = number("router.threshold", threshold, "a share in [0, 1]", low=0.0, high=1.0)
        self._share = number("router.share", share, "a share in [0, 1]", low=0.0, high=1.0)

    def bind(self, fleet: FleetView) -> None:
        """Check that both kinds of site are there."""
        self._answerers = require_kind(fleet, self._answer_kind, "edge_answer_cloud_validate")
        self._judges = require_kind(fleet, self._judge_kind, "edge_answer_cloud_validate")

    def handle(self, request: Request, fleet: Journey) -> Steps:
        """Answer at the edge, have it judged, and correct it if need be."""
        edge = least_outstanding(self._answerers.holding(request))
        cloud = least_outstanding(self._judges.holding(request))
        if edge is None:
            return "rejected" if cloud is None else (yield from serve_at(cloud, fleet))
        leg: Leg = yield fleet.serve(edge, keep=True)
        if not leg.ok:
            return leg if cloud is None else (yield from serve_at(cloud, fleet))
        if cloud is None or (self._share < 1.0 and fleet.rng.random() >= self._share):
            return leg
        text = request.prompt + request.output
        verdict: Leg = yield fleet.serve(
            cloud, prompt=text, output=self._verdict, role="validate", source=edge.site_name
        )
        if not verdict.ok or fleet.quality.score(request, edge.name) >= self._threshold:
            return leg
        fleet.escalations += 1
        # the judge has the question's KV cache, but not beyond the first word that it would have put otherwise
        better: Leg = yield fleet.serve(
            cloud,
            cached=request.prompt - 1,
            source=edge.site_name,
            nbytes=0.0,
            keep=True,
            replica=verdict.replica,
        )
        if not better.ok:
            return leg
        leg.useful = 0.0
        if request.output == 1:
            return better
        return fleet.answer(fleet.stream(leg, 0, 1), fleet.stream(better, 1), quality_of=better)
