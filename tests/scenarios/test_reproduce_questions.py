"""The four questions of Dong and Xie: reduced presets whose verdicts are those of their own numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scenarios.command import run
from tests.scenarios.records import one_line
from tests.scenarios.test_reproduce import found, verdicts

QUESTIONS = ("sizes", "qoe", "documents", "hybrid")
SMALL = {
    "sizes": ["sizes.requests=50", 'sizes.uncertain={"days":[10,90]}'],
    "qoe": ['qoe.rates={"l4":[0.3,0.9]}', "qoe.requests=120"],
    "documents": ["documents.rates=[1]", "documents.requests=60", "documents.update_days=[1,365]"],
    "hybrid": ["hybrid.rates=[1]", "hybrid.requests=100", 'hybrid.routers=["spillover"]', "hybrid.most_replicas=1"],
}


def asked(question: str, *settings: str) -> list[str]:
    """The study with one question alone; a setting replaces the reduced preset's of that key."""
    given = {text.split("=")[0] for text in settings}
    small = [text for text in SMALL[question] if text.split("=")[0] not in given]
    others = [f"{name}=null" for name in QUESTIONS if name != question]
    return ["dong_xie_2024", "processes=1", *others, *small, *settings]


def ask(capsys: pytest.CaptureFixture[str], question: str, *settings: str) -> dict[str, Any]:
    return found(capsys, *asked(question, *settings))


def test_training_grows_faster_than_serving_only_where_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    document = ask(capsys, "sizes", 'sizes.models=["llama_3_2_1b","llama_3_1_8b"]')
    small, large = document["tables"]["sizes"]
    assert verdicts(document)[0] == "holds"
    assert large["training"] / small["training"] > large["serving"] / small["serving"]
    (varied,) = document["tables"]["sizes_varied"]
    assert varied["training xPUs, low"] > varied["high "]  # fewer days take more xPUs
    alike = ask(capsys, "sizes", 'sizes.models=["tinyllama_1_1b","llama_3_2_1b"]')
    assert verdicts(alike)[0] == "does not hold"


def test_fuller_engines_are_cheaper_and_a_stricter_slo_is_dearer(capsys: pytest.CaptureFixture[str]) -> None:
    document = ask(capsys, "qoe", 'qoe.slos=["chat_relaxed","summarization"]')
    spare, full = document["tables"]["qoe"]
    assert spare["USD / 1,000"] > full["USD / 1,000"]
    assert spare["token QoE"] > full["token QoE"]
    assert verdicts(document) == ["holds", "does not hold"]  # the second SLO is the looser one
    assert verdicts(ask(capsys, "qoe", 'qoe.slos=["chat_relaxed","chat_strict"]'))[1] == "holds"  # at no rate
    assert verdicts(ask(capsys, "qoe", 'qoe.slos=["chat_strict"]'))[1] == "cannot be tested"


def test_tuning_pays_back_when_savings_have_paid_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    document = ask(capsys, "documents", 'documents.uncertain={"tokens":[1e7,1e9]}')
    cost = {row["way"]: row["USD, work"] for row in document["tables"]["documents"]}
    (row,) = [each for each in document["tables"]["documents_cheaper"] if each["counted"] == "work"]
    few, many = document["tables"]["documents_varied"]
    assert few["work"] < row["paid back after"] < many["work"]
    saved = (cost["rag"] - cost["fine_tuned"]) / 1e3
    for days in (1, 365):
        pays = 1.0 * days * 86400 > row["paid back after"]
        assert row[f"every {days} d"] == ("fine_tuned" if pays else "rag")
    assert row["paid back after"] * saved == pytest.approx(many["work"] * saved / 10.0, rel=0.01)
    assert verdicts(ask(capsys, "documents", "documents.tokens=1e14"))[1] == "does not hold"  # retrieval always


def test_the_grids_decide_for_the_hybrid(capsys: pytest.CaptureFixture[str]) -> None:
    clean = ask(capsys, "hybrid", 'hybrid.grids=[["study_quebec","study_pace"]]')
    assert all(row["quebec / pace"] < 1.0 for row in clean["tables"]["hybrid"])
    assert verdicts(clean)[0] == verdicts(clean)[2] == "holds"
    dirty = ask(capsys, "hybrid", 'hybrid.grids=[["study_pace","study_quebec"]]')
    assert all(row["pace / quebec"] > 1.0 for row in dirty["tables"]["hybrid"])
    assert verdicts(dirty)[0] == "does not hold"
    by_input = {row["input"]: row["most [%]"] for row in dirty["tables"]["hybrid_varied"]}
    assert by_input["edge_power"] == pytest.approx(30.0, abs=6.0)  # the edge is nearly all of it


@pytest.mark.parametrize(
    ("question", "setting", "key"),
    [
        ("sizes", 'sizes.models=["llama_3_1_8b"]', "sizes.models"),
        ("sizes", 'sizes.uncertain={"mfu":[0.3]}', "sizes.uncertain.mfu"),
        ("sizes", 'sizes.uncertain={"nothing":[1,2]}', "training.nothing"),
        ("qoe", "qoe.slos=[]", "qoe.slos"),
        ("qoe", 'qoe.slos=["no_such"]', "slo"),
        ("qoe", 'qoe.rates={"l4":[0]}', "qoe.rates.l4[0]"),
        ("documents", "documents.tuning=magic", "documents.tuning"),
        ("documents", "documents.rates=[]", "documents.rates"),
        ("hybrid", 'hybrid.grids=[["study_pace"]]', "hybrid.grids[0]"),
        ("hybrid", "hybrid.attainment=2", "hybrid.attainment"),
        ("hybrid", 'hybrid.uncertain={"edge_pue":[1]}', "hybrid.uncertain.edge_pue"),
        ("hybrid", 'hybrid.routers=["no_such"]', "router"),
    ],
)
def test_bad_input_is_one_line(question: str, setting: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["reproduce", *asked(question, setting), "--json"], capsys)
    one_line(done, f"{key}=")
