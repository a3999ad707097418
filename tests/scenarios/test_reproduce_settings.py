"""Instances, parallelism and clock by load: savings are those of the runs, and verdicts follow them."""

from __future__ import annotations

import pytest

from tests.scenarios.command import run
from tests.scenarios.records import one_line
from tests.scenarios.test_reproduce import found, verdicts

SMALL = ("dynamollm_2025", "model=llama_3_1_8b", "xpus=2", "tp=[2,1]", "clocks=[0.7]", "rates=[1,6]", "requests=60",
         "uncertain={}", "processes=1")  # fmt: skip


def test_savings_are_those_of_the_best_setting_within_the_slo(capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, *SMALL)
    every = document["tables"]["settings"]
    assert len(every) == 2 * 3 * 2  # rates; 1x2, 2x1, 1x1; clocks
    for row in document["tables"]["loads"]:
        own = [each for each in every if each["rate"] == row["rate [1/s]"]]
        (base,) = [each for each in own if (each["tp"], each["clock"]) == (2, 1.0)]
        held = [each["wh_per_1000_requests"] for each in own if each["slo_attainment"] >= 0.9]
        assert row["all [%]"] == pytest.approx(100.0 * (1.0 - min(held) / base["wh_per_1000_requests"]))
        assert row["all [%]"] >= max(row["clock [%]"], row["instances [%]"]) >= 0.0
    spent = [(row["Wh / 1,000"] * row["rate [1/s]"], row["all [%]"] / 100.0) for row in document["tables"]["loads"]]
    saved = sum(watts * share for watts, share in spent) / sum(watts for watts, _ in spent)
    same = found(capsys, *SMALL, f"published={saved}", "within=0.001")
    assert verdicts(same)[0] == "holds"
    assert verdicts(found(capsys, *SMALL, "published=0.99", "within=0.01"))[0] == "holds in part"


def test_nothing_is_saved_where_nothing_may_change(capsys: pytest.CaptureFixture[str]) -> None:
    alone = [each for each in SMALL if not each.startswith(("tp=", "xpus=", "clocks=", "uncertain="))]
    uncertain = 'uncertain={"slo":["chat_relaxed"]}'
    document = found(capsys, *alone, "xpus=1", "tp=[1]", "clocks=[1.0]", uncertain)
    assert verdicts(document) == ["does not hold"] * 4
    assert [row["all [%]"] for row in document["tables"]["varied"]] == [0.0, 0.0]


@pytest.mark.parametrize(
    ("setting", "key"),
    [
        ("rates=[]", "rates"),
        ("tp=[]", "tp"),
        ("tp=[4]", "tp"),
        ("clocks=[1.2]", "clocks[0]"),
        ("published=0", "published"),
        ('uncertain={"nothing":[1]}', "uncertain.nothing"),
        ("slo=no_such", "slo"),
        ("xpu=no_such", "fleet.xpu"),
    ],
)
def test_bad_input_is_one_line(setting: str, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    others = [each for each in SMALL if each.split("=")[0] != setting.split("=")[0]]
    done = run(["reproduce", *others, setting, "--json"], capsys)
    one_line(done, f"{key}=")
