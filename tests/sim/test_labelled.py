"""Labels of a trace, and the routers between a weak and a strong model: bounds, ordering, and published figures."""

from __future__ import annotations

import gzip
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim import Fleet, InputError, QualityModel, Result, Site, run
from sim.rng import Streams
from sim.routing import CloudOnly, EdgeOnly, QualityOracle, QualityThreshold, RandomSplit
from sim.workload import ConstantRate, Fixed, LabelledTrace
from tests.sim.conftest import MODEL, pool, simulate

DATA = Path(os.environ.get("HYBRIDFLEET_DATA", Path(__file__).parents[3] / "shared" / "data"))
LABELS = "weak_correct,strong_correct,prompt_chars\n1,1,40\n0,1,4\n0,0,401\n1,0,80\n,1,9\n"
NAMED = QualityModel("mmlu", 0.678, router_auc=0.7, weak="edge", strong="cloud")
LARGE = replace(MODEL, id="large")  # that answers by itself, not as the other one does
FEW = {"kv_blocks": 2000, "max_num_seqs": 64}


def write(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def trace(path: Path, rate: float = 200.0, **settings: Any) -> LabelledTrace:
    return LabelledTrace(path, ConstantRate(rate), Fixed(10, 2), **settings)


def two_sites(weak: float = 0.681, strong: float = 0.806) -> Fleet:
    edge = pool("edge", quality={"mmlu": weak}, engine=FEW)
    cloud = pool("cloud", model=LARGE, quality={"mmlu": strong}, engine=FEW)
    return Fleet((Site("edge", "edge", (edge,)), Site("cloud", "cloud", (cloud,))))


def joined(workload: LabelledTrace, seed: int = 0) -> dict[str, list[Any]]:
    batches = list(workload.batches(Streams(seed)))
    names = ("arrival_s", "prompt_tokens", "output_tokens", "question")
    return {name: np.concatenate([getattr(batch, name) for batch in batches]).tolist() for name in names}


def share(result: Result) -> float:
    """Of strong calls."""
    return float((result.requests["pool"] == 1).mean())


# -- the file ----------------------------------------------------------------------------------------------------------


def test_each_question_is_asked_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    got = joined(trace(write(tmp_path, LABELS)))
    assert got["question"] == [0, 1, 2, 3, 4]
    assert got["prompt_tokens"] == [10, 1, 100, 20, 2], "a token is four characters, and at least one"
    assert got["output_tokens"] == [2] * 5
    assert np.diff(got["arrival_s"]) == pytest.approx([0.005] * 4)


def test_shuffled_questions_keep_their_lengths_and_come_again(tmp_path: Path) -> None:
    path = write(tmp_path, LABELS)
    got = joined(trace(path, shuffle=True, limit=12))
    assert sorted(got["question"][:5]) == [0, 1, 2, 3, 4] != got["question"][:5]
    assert got["question"][5:10] == got["question"][:5]
    assert [[10, 1, 100, 20, 2][q] for q in got["question"]] == got["prompt_tokens"]
    assert joined(trace(path, shuffle=True, limit=12)) == got
    assert joined(trace(path, shuffle=True), seed=1)["question"] != got["question"][:5]


def test_what_the_file_tells_is_used(tmp_path: Path) -> None:
    text = "when,prompt_tokens,out,m\n7,30,3,0.5\n9.5,40,4,\n"
    path = tmp_path / "labels.csv.gz"
    path.write_bytes(gzip.compress(text.encode()))
    columns = {"arrival": "when", "output": "out"}
    workload = trace(path, labels={"large": "m"}, columns=columns, shuffle=True)
    assert joined(workload) == {
        "arrival_s": [0.0, 2.5], "prompt_tokens": [30, 40], "output_tokens": [3, 4], "question": [0, 1],
    }  # fmt: skip
    assert workload.expected_requests() == 2
    quality = run(two_sites(), workload, CloudOnly()).requests["quality"]
    assert quality[0] == 0.5
    assert np.isnan(quality[1])


def test_settings_that_reach_nobody_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, LABELS)
    assert trace(path, rate=200.0, tenants={"count": 2}).expected_requests() == 5
    with pytest.raises(InputError, match=r"workload\.speed"):
        trace(path, speed=3)


@pytest.mark.parametrize(
    ("text", "settings", "message"),
    [
        ("a,b\n1,2\n", {}, r"columns='a, b' is not valid; accepted: columns that end in _correct"),
        ("m_correct\n2\n", {}, r"line 2: m_correct='2' is not valid; accepted: a number from 0"),
        ("m_correct\nyes\n", {}, r"line 2: m_correct='yes'"),
        ("m_correct\n", {}, r"at least one question"),
        ("", {}, r"this file is empty"),
        ("m_correct,n\n1\n", {}, r"line 2: row='1' is not valid; accepted: 2 fields"),
        ("m_correct,prompt_tokens\n1,0\n", {}, r"line 2: prompt_tokens='0'"),
        ("m_correct,arrival_s\n1,5\n1,4\n", {}, r"line 3: arrival_s=4\.0"),
        ("m_correct,arrival_s\n1,inf\n", {}, r"line 2: arrival_s='inf'"),
        (LABELS, {"labels": {"weak": "gone"}}, r"workload\.labels\.weak='gone'"),
        (LABELS, {"columns": {"size": "prompt_chars"}}, r"workload\.columns\.size"),
        (LABELS, {"columns": {"prompt": "gone"}}, r"workload\.columns\.prompt='gone'"),
        (LABELS, {"labels": "weak"}, r"workload\.labels='weak'"),
        (LABELS, {"chars_per_token": 0}, r"workload\.chars_per_token"),
    ],
)
def test_files_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, text: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        trace(write(tmp_path, text), **settings)
    assert "\n" not in str(error.value)


def test_no_file_no_text(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="existing file"):
        trace(tmp_path / "gone.csv")
    (tmp_path / "binary").write_bytes(b"weak_correct\n\xff\xfe\n")
    with pytest.raises(InputError, match="UTF-8"):
        trace(tmp_path / "binary")


# -- routers -----------------------------------------------------------------------------------------------------------

ROWS = [(0.002 * i, 10, 2) for i in range(6000)]
ERROR = 4.0 * 0.5 / np.sqrt(len(ROWS))


def correct(router: Any, **changes: Any) -> tuple[float, float]:
    """Share of correct answers, and of strong calls."""
    result = simulate(two_sites(**changes), ROWS, router, quality=NAMED)
    return float(result.requests["quality"].mean()), share(result)


def test_a_quality_threshold_beats_a_coin_with_as_many_strong_calls_and_an_oracle_beats_both() -> None:
    weak, strong = correct(EdgeOnly())[0], correct(CloudOnly())[0]
    oracle, oracle_calls = correct(QualityOracle())
    assert oracle > strong > weak
    last = weak
    for part in (0.2, 0.5, 0.8):
        routed, calls = correct(QualityThreshold(share=part))
        coin, _ = correct(RandomSplit(share=part))
        assert calls == pytest.approx(part, abs=ERROR)
        assert coin == pytest.approx(weak + part * (strong - weak), abs=ERROR)
        assert coin < routed < oracle
        assert routed > last, "more strong calls, more correct answers"
        last = routed
    assert oracle_calls < 0.25


def test_a_higher_threshold_makes_fewer_strong_calls() -> None:
    calls = [correct(QualityThreshold(threshold=tau))[1] for tau in (0.0, 0.15, 0.3, 1.0)]
    assert calls[0] == 1.0
    assert calls[-1] == 0.0
    assert calls == sorted(calls, reverse=True)
    assert 0.0 < calls[2] < calls[1] < 1.0


def test_requests_that_a_side_cannot_hold_go_to_the_other_and_unknown_answers_are_strong(tmp_path: Path) -> None:
    small = pool("edge", quality={"mmlu": 0.9}, engine={"kv_blocks": 20})
    large = pool("cloud", quality={"mmlu": 0.1}, engine=FEW)
    fleet = Fleet((Site("edge", "edge", (small,)), Site("cloud", "cloud", (large,))))
    result = simulate(fleet, [(0.0, 10, 2), (0.1, 1000, 2)], RandomSplit(share=0.0))
    assert result.requests["pool"].tolist() == [0, 1]
    path = write(tmp_path, LABELS)
    for router in (QualityThreshold(threshold=1.0), QualityOracle()):
        assert run(two_sites(), trace(path), router, quality=NAMED).requests["pool"][4] == 1


def test_sides_may_be_pools_of_one_site() -> None:
    one = pool("small", quality={"mmlu": 0.6}, engine=FEW)
    two = pool("large", model=LARGE, quality={"mmlu": 0.9}, engine=FEW)
    fleet = Fleet((Site("site", "cloud", (one, two)),))
    router = QualityOracle(weak="small", strong="large")
    chosen = simulate(fleet, ROWS[:500], router, quality=QualityModel("mmlu")).requests
    assert 0 < (chosen["pool"] == 1).sum() < 250


@pytest.mark.parametrize("make", [QualityThreshold, QualityOracle, RandomSplit])
def test_sides_that_are_not_there_are_refused(make: Any) -> None:
    settings = {"share": 0.5} if make is QualityThreshold else {}
    with pytest.raises(InputError, match=r"router\.strong='moon'"):
        simulate(two_sites(), ROWS[:1], make(strong="moon", **settings), quality=NAMED)
    with pytest.raises(InputError, match=r"router\.strong"):
        make(weak="edge", strong="edge", **settings)


def test_routers_that_need_quality_say_so() -> None:
    for router in (QualityThreshold(share=0.5), QualityOracle()):
        with pytest.raises(InputError, match=r"quality\.task on which toy of pool edge"):
            simulate(two_sites(), ROWS[:1], router)


@pytest.mark.parametrize("settings", [{}, {"threshold": 0.1, "share": 0.1}, {"threshold": 2.0}, {"share": -0.1}])
def test_a_threshold_or_a_share(settings: dict[str, float]) -> None:
    with pytest.raises(InputError, match=r"router\.(threshold|share)"):
        QualityThreshold(**settings)


# -- published figures -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "weak", "strong", "best", "calls"),
    [("mmlu", 0.681, 0.806, 0.859, 0.178), ("gsm8k", 0.638, 0.857, 0.929, 0.290)],
)
def test_real_labels_give_the_figures_of_weak_strong_oracle_and_coin(
    task: str, weak: float, strong: float, best: float, calls: float
) -> None:
    path = DATA / "traces" / "routellm_quality" / f"{task}_mixtral8x7b_vs_gpt4.csv"
    if not path.is_file():
        pytest.skip(f"{path} is not there; set HYBRIDFLEET_DATA to the folder with the data sets")
    workload = trace(path, rate=1000.0, columns={"prompt_chars": "prompt_chars"}, chars_per_token=100.0)

    def routed(router: Any) -> Result:
        return run(two_sites(), workload, router, quality=NAMED)

    results = {name: routed(router) for name, router in (
        ("weak", EdgeOnly()), ("strong", CloudOnly()), ("oracle", QualityOracle()), ("coin", RandomSplit()),
    )}  # fmt: skip
    right = {name: float(result.requests["quality"].mean()) for name, result in results.items()}
    assert (round(right["weak"], 3), round(right["strong"], 3), round(right["oracle"], 3)) == (weak, strong, best)
    assert round(share(results["oracle"]), 3) == calls
    error = 4.0 * 0.5 / np.sqrt(len(results["coin"]))
    assert share(results["coin"]) == pytest.approx(0.5, abs=error)
    assert right["coin"] == pytest.approx(0.5 * (weak + strong), abs=error)
