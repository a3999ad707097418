"""Whether models answer correctly: shares, what two models have in common, and what routers and verifiers guess."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from analysis.metrics import summarize
from analysis.table import rows as table_rows
from sim import InputError, QualityModel
from sim.copula import both, normal_quantile, tetrachoric
from sim.draws import BLOCK, Normals
from sim.quality import Answers
from sim.request import Request
from sim.routing.base import FleetView, PoolView
from tests.sim.conftest import fleet_of, pool, simulate

N = 40_000
IDS = np.arange(N)
MMLU = QualityModel("mmlu", 0.678, router_auc=0.7, score_auc=0.8)


@dataclass
class Served:
    """What answers need to know of a pool."""

    name: str
    model_id: str
    served_quality: dict[str, float] = field(default_factory=dict)


WEAK, STRONG = Served("edge", "small", {"mmlu": 0.681}), Served("cloud", "large", {"mmlu": 0.806})


def answers(model: QualityModel = MMLU, *pools: Served, seed: int = 3, **labels: Any) -> Answers:
    columns = {name: np.array(column, dtype=np.float64) for name, column in labels.items()}
    made = Answers(model, seed, pools or (WEAK, STRONG), columns or None)
    if made.labels is not None:
        made.labels.ask(np.arange(len(next(iter(columns.values())))))
    return made


def request(number: int) -> Request:
    return Request(number, 0.0, 10, 10)


def each(method: Any, *who: str, count: int = N) -> Any:
    return np.array([method(request(i), *who) for i in range(count)])


def auc(signal: Any, event: Any) -> float:
    """Chance that a request with the event has the higher signal."""
    ranks = np.argsort(np.argsort(signal))
    hits = int(event.sum())
    return float((ranks[event].sum() - hits * (hits - 1) / 2) / (hits * (len(event) - hits)))


def test_normals_are_normal_and_their_tables_equal_single_ones() -> None:
    normals = Normals(7)
    values = normals.many("a", IDS)
    assert abs(values.mean()) < 4.0 / math.sqrt(N)
    assert values.std() == pytest.approx(1.0, abs=4.0 / math.sqrt(2 * N))
    assert abs(np.corrcoef(values, normals.many("b", IDS))[0, 1]) < 4.0 / math.sqrt(N)
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 4.0 / math.sqrt(N)
    assert np.mean(values < -1.0) == pytest.approx(statistics.NormalDist().cdf(-1.0), abs=0.008)
    for i in (0, 5, BLOCK - 1, BLOCK, 3 * BLOCK + 17):
        assert normals.one("a", i) == values[i]
    assert Normals(8).one("a", 5) != values[5]


def test_blocks_that_were_let_go_come_back_the_same() -> None:
    normals = Normals(1)
    first = normals.one("a", 3)
    for block in range(1000):
        normals.one("a", block * BLOCK)
    assert normals.one("a", 3) == first
    assert len(normals._blocks) <= 256


def test_copula_equals_the_bivariate_normal() -> None:
    for p, q, r in itertools.product((0.1, 0.681), (0.5, 0.9), (0.0, 0.22, 0.9)):
        a, b = normal_quantile(p), normal_quantile(q)
        exact = multivariate_normal.cdf([a, b], cov=[[1.0, r], [r, 1.0]])
        assert both(a, b, r) == pytest.approx(exact, abs=1e-6)
        assert tetrachoric(p, q, both(a, b, r)) == pytest.approx(r, abs=1e-6)


def test_a_model_is_right_as_often_as_its_score_and_together_with_others_as_often_as_the_copula_says() -> None:
    made = answers()
    weak, strong = made.answered(IDS, "edge"), made.answered(IDS, "cloud")
    error = 4.0 * 0.5 / math.sqrt(N)
    assert weak.mean() == pytest.approx(0.681, abs=error)
    assert strong.mean() == pytest.approx(0.806, abs=error)
    expected = both(normal_quantile(0.681), normal_quantile(0.806), 0.678)
    assert (weak * strong).mean() == pytest.approx(expected, abs=error)
    assert made.win_rate("edge", "cloud") == pytest.approx(0.806 - expected)
    assert ((1.0 - weak) * strong).mean() == pytest.approx(made.win_rate("edge", "cloud"), abs=error)


def test_answers_depend_on_seed_request_and_model_alone() -> None:
    whole, backwards = answers(), answers(MMLU, STRONG, Served("other", "third", {"mmlu": 0.3}), WEAK)
    table = whole.answered(IDS, "cloud")
    for i in (5000, 17, 2048, 0):
        assert backwards.correct(request(i), "cloud") == table[i] == whole.correct(request(i), "large")
    assert (answers(seed=4).answered(IDS, "cloud") != table).any()


def test_a_model_in_another_format_is_right_where_the_better_one_is() -> None:
    made = answers(MMLU, Served("full", "m", {"mmlu": 0.7}), Served("int4", "m", {"mmlu": 0.65}))
    full, small = made.answered(IDS, "full"), made.answered(IDS, "int4")
    assert (small <= full).all()
    assert small.mean() < full.mean()
    assert made.rate("m") == 0.7
    assert made.win_rate("int4", "full") == pytest.approx(0.05)


def test_expected_is_calibrated_by_difficulty() -> None:
    made = answers()
    expected, right = each(made.expected, "edge"), made.answered(IDS, "edge")
    assert expected.mean() == pytest.approx(0.681, abs=0.01)
    for low, high in itertools.pairwise((0.0, 0.3, 0.6, 0.9, 1.0)):
        part = (expected >= low) & (expected < high)
        assert right[part].mean() == pytest.approx(expected[part].mean(), abs=0.02)


def test_guesses_have_the_auc_they_state_and_are_calibrated() -> None:
    made = answers()
    win = (made.answered(IDS, "edge") == 0.0) & (made.answered(IDS, "cloud") == 1.0)
    predicted = each(made.predicted_win, "edge", "cloud")
    assert auc(predicted, win) == pytest.approx(0.7, abs=0.015)
    likely = predicted > np.quantile(predicted, 0.8)
    assert win[likely].mean() == pytest.approx(predicted[likely].mean(), abs=0.02)
    score, right = each(made.score, "edge"), made.answered(IDS, "edge") == 1.0
    assert auc(score, right) == pytest.approx(0.8, abs=0.015)
    assert right[score > 0.8].mean() == pytest.approx(score[score > 0.8].mean(), abs=0.02)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_threshold_of_a_share_is_exceeded_by_that_share(share: float) -> None:
    made = answers()
    predicted = each(made.predicted_win, "edge", "cloud")
    assert (predicted > made.win_threshold("edge", "cloud", share)).mean() == pytest.approx(share, abs=0.01)


def test_labels_hold_where_they_are() -> None:
    labels = {"weak": [1, 0, 0, math.nan], "strong": [1, 1, 0, 1]}
    made = answers(MMLU, **labels)
    assert [made.correct(request(i), "edge") for i in range(3)] == [1.0, 0.0, 0.0]
    assert made.answered(np.array([3, 1]), "cloud").tolist() == [1.0, 1.0]
    for unknown in (made.correct(request(3), "edge"), made.predicted_win(request(3), "edge", "cloud")):
        assert math.isnan(unknown)
    assert made.rate("edge") == pytest.approx(1 / 3)
    assert made.expected(request(0), "cloud") == 0.75
    assert made.win_rate("edge", "cloud") == pytest.approx(1 / 3)
    assert math.isnan(made.correct(request(4), "edge")), "not drawn yet"


def test_labels_go_to_whom_the_settings_name() -> None:
    made = answers(QualityModel(weak="cloud", strong="small"), weak=[0.0], strong=[1.0])
    assert [made.correct(request(0), who) for who in ("cloud", "large", "edge", "small")] == [0.0, 0.0, 1.0, 1.0]
    by_model = answers(QualityModel(), large=[0.5])
    assert by_model.correct(request(0), "cloud") == 0.5
    assert math.isnan(by_model.correct(request(0), "edge"))


def test_the_unknown_is_nan() -> None:
    made = answers(QualityModel())
    for method in (made.correct, made.expected, made.score):
        assert math.isnan(method(request(0), "edge"))
    assert math.isnan(made.predicted_win(request(0), "edge", "cloud"))
    assert np.isnan(made.answered(IDS[:5], "edge")).all()
    assert math.isnan(made.win_threshold("edge", "cloud", 0.5))


class ByAnswer:
    """An oracle: the first pool that is right, else the last."""

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        right = [pool for pool in fleet.pools if fleet.quality.correct(request, pool.name) == 1.0]
        return right[0] if right else fleet.pools[-1]


def test_a_router_sees_the_answers_of_its_run() -> None:
    fleet = fleet_of(pool("one", quality={"mmlu": 0.6}), pool("two", quality={"mmlu": 0.7}))
    rows = [(0.001 * i, 10, 2) for i in range(500)]
    chosen = simulate(fleet, rows, ByAnswer(), quality=QualityModel("mmlu"), seed=5).requests["pool"]
    same = answers(QualityModel("mmlu"), Served("one", "toy", {"mmlu": 0.6}), seed=5).answered(np.arange(500), "one")
    assert ((chosen == 0) == (same == 1.0)).all()


def test_results_hold_the_quality_of_the_answers_that_were_served() -> None:
    fleet = fleet_of(pool("one", quality={"mmlu": 0.6}), pool("two", quality={"mmlu": 0.7}), pool("dark", quality={}))
    rows = [(0.001 * i, 10, 2) for i in range(400)]
    result = simulate(fleet, [*rows, (0.5, 10, 10**6)], InTurn(2), quality=QualityModel("mmlu"), oversize="reject")
    quality, chosen = result.requests["quality"], result.requests["pool"]
    made = answers(QualityModel("mmlu"), *(Served(p.name, "toy", dict(p.quality or {})) for p in fleet.pools), seed=0)
    for index, name in enumerate(("one", "two")):
        mine = np.flatnonzero(chosen == index)
        assert (quality[mine] == made.answered(mine, name)).all()
    assert math.isnan(quality[400]), "it was rejected"
    summary = summarize(result)
    assert summary["total"]["answer_task"] == "mmlu"
    assert summary["total"]["answer_quality"] == pytest.approx(quality[:400].mean())
    assert summary["by_pool"]["two"]["answer_quality"] == pytest.approx(quality[chosen == 1].mean())
    assert summary["by_pool"]["dark"]["answer_quality"] is None
    assert any("correct, by MMLU" in row.label for row in table_rows(summary))


def test_quality_is_unknown_where_any_answer_is() -> None:
    fleet = fleet_of(pool("one", quality={"mmlu": 0.6}), pool("dark", quality={}))
    summary = summarize(simulate(fleet, [(0.0, 10, 2)] * 8, InTurn(2), quality=QualityModel("mmlu")))
    assert summary["by_pool"]["one"]["answer_quality"] is not None
    assert summary["total"]["answer_quality"] is None
    none = summarize(simulate(fleet, [(0.0, 10, 2)] * 8))
    assert none["total"]["answer_task"] is None
    assert not any("correct" in row.label for row in table_rows(none))


@dataclass
class InTurn:
    """The first pools in turn; a request that is too long is refused."""

    count: int

    def choose(self, request: Request, fleet: FleetView) -> PoolView | None:
        return fleet.pools[request.id % self.count]


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_scores_at_the_ends_are_always_or_never_right(score: float) -> None:
    made = answers(MMLU, Served("sure", "m", {"mmlu": score}), STRONG)
    assert made.answered(IDS[:100], "sure").mean() == made.expected(request(0), "sure") == score
    assert made.score(request(0), "sure") == score
    assert 0.0 <= made.predicted_win(request(0), "sure", "cloud") <= 1.0


@pytest.mark.parametrize(
    ("key", "value"),
    [("task", "poetry"), ("correlation", 1.0), ("router_auc", 0.4), ("score_auc", 1.0), ("weak", 3)],
)
def test_settings_that_cannot_be_are_refused(key: str, value: object) -> None:
    with pytest.raises(InputError, match=f"quality.{key}"):
        QualityModel(**{key: value})  # type: ignore[arg-type]


def test_labels_of_nobody_are_refused() -> None:
    with pytest.raises(InputError, match=r"quality\.weak"):
        answers(QualityModel(), weak=[1.0])  # no scores, so nobody is the weak one
    with pytest.raises(InputError, match=r"quality\.strong"):
        answers(QualityModel("mmlu", strong="nobody"), strong=[1.0])
    with pytest.raises(InputError, match=r"workload\.labels"):
        answers(QualityModel(), gpt=[1.0])
    with pytest.raises(InputError, match="name of a pool"):
        answers().correct(request(0), "nobody")
