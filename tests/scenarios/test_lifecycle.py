"""`hybridfleet lifecycle`: published crossings, agreement with `hybridfleet size`, and errors of one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.command import run

LOAD = ("inference.requests=50", "inference.prompt=200", "inference.output=20", "engine.max_num_seqs=16")
BASE = ("model=llama_3_2_1b", "xpu=h100_sxm", *LOAD)
GIVEN = ("lifecycle=bloomz_7b",)


def _life(capsys: pytest.CaptureFixture[str], *arguments: str, command: str = "lifecycle") -> dict[str, Any]:
    done = run([command, *arguments, "--json"], capsys)
    assert done.err == ""
    assert done.status == 0
    return dict(json.loads(done.out))


@pytest.mark.parametrize("name", ["bloomz_7b", "bloomz_3b", "bloomz_1b", "bloomz_560m"])
def test_published_crossings(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Luccioni et al.: after how many answers inference has taken as much energy as training and fine-tuning."""
    found = _life(capsys, f"lifecycle={name}")
    assert abs(found["published_answers"]["error"]) < 2e-4
    assert found["overtaking"]["usd"]["central"]["status"] == "unknown"
    assert found["total"]["usd"] is None  # nobody says what it cost


def test_stages_are_those_of_size_over_time(capsys: pytest.CaptureFixture[str]) -> None:
    sized = _life(capsys, *BASE, command="size")["models"][0]
    settings = ("service.years=2", "trials.share=0.5", "retraining.period_days=100", "retraining.share=0.1")
    found = _life(capsys, *BASE, *settings, "tuning.period_days=null", "tuning.runs=3", "cost=owned")
    stages, training = found["stages"], sized["training"]
    assert stages["training"]["energy_j"]["central"] == pytest.approx(1.5 * training["energy_j"])
    assert stages["training"]["embodied_g"]["high"] == pytest.approx(1.5 * training["embodied_g"]["high"])
    assert stages["tuning"]["operational_g"]["low"] == pytest.approx(3 * sized["lora"]["operational_g"])
    assert stages["retraining"]["energy_j"]["central"] == pytest.approx(0.7 * training["energy_j"])  # days 100 to 700
    tokens = 10 * 20 * 86400 * 730
    assert found["tokens"] == pytest.approx(tokens)
    assert stages["inference"]["energy_j"]["central"] == pytest.approx(tokens * sized["inference"]["j_per_token"])
    for key in ("energy_j", "operational_g", "embodied_g", "usd"):
        parts = sum(stage[key]["central"] for stage in stages.values())
        assert found["total"][key]["central"] == pytest.approx(parts)
        assert found["total"][key]["low"] <= parts <= found["total"][key]["high"]
        assert found["per_token"][key]["central"] == pytest.approx(parts / tokens)
    # whoever owns the xPUs disposes of them: 20 USD each, by the share of five years that was used
    xpu_s = sum(stage["xpu_s"]["central"] for stage in stages.values())
    assert stages["decommissioning"]["usd"]["central"] == pytest.approx(20 * xpu_s / (5 * 365 * 86400))
    others = sum(stage["embodied_g"]["central"] for name, stage in stages.items() if name != "decommissioning")
    assert stages["decommissioning"]["embodied_g"]["central"] == pytest.approx(0.01 * others)


def test_the_end_of_an_xpu_may_be_given_in_kilograms(capsys: pytest.CaptureFixture[str]) -> None:
    stages = _life(capsys, *BASE, "decommissioning.kg_per_xpu=2", "decommissioning.xpu_years=4")["stages"]
    xpu_s = sum(stage["xpu_s"]["central"] for stage in stages.values())
    assert stages["decommissioning"]["embodied_g"]["central"] == pytest.approx(2e3 * xpu_s / (4 * 365 * 86400))
    assert stages["decommissioning"]["usd"]["central"] == 0.0  # the rent pays for it


def test_labour_and_data_by_hand(capsys: pytest.CaptureFixture[str]) -> None:
    settings = (
        "service.years=2",
        "labour.person_years=[1,2,3]",
        "labour.persons=0.5",
        "labour.usd_per_person_year=1e5",
    )
    store = ("data.storage_tb=10", "data.usd_per_tb_month=20", "data.licence_usd=7", "data.w_per_tb=1")
    found = _life(capsys, *BASE, *settings, *store, "data.embodied_kg_per_tb_year=3", "pue=1.5")["stages"]
    assert found["labour"]["usd"] == pytest.approx({"low": 2e5, "central": 3e5, "high": 4e5})
    assert found["data"]["usd"]["central"] == pytest.approx(7 + 10 * 20 * 24)
    assert found["data"]["energy_j"]["central"] == pytest.approx(10 * 1.5 * 2 * 365 * 86400)
    assert found["data"]["embodied_g"]["central"] == pytest.approx(10 * 3e3 * 2)


def test_a_published_number_of_tokens_is_taken_unless_one_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("model=llama_65b", "xpu=a100_sxm_80gb", *LOAD)
    tokens = ("given.inference.energy_kwh=1", "service.tokens_per_day=1e6")
    published = _life(capsys, *base, *tokens)["stages"]["training"]["energy_j"]["central"]
    asked = _life(capsys, *base, *tokens, "training.tokens=2.8e12")["stages"]["training"]["energy_j"]["central"]
    assert asked == pytest.approx(2 * published)


def test_what_is_given_takes_the_place_of_what_is_computed(capsys: pytest.CaptureFixture[str]) -> None:
    computed, given = (
        _life(capsys, *BASE, *more) for more in ((), ("given.training.usd=[1e6,2e6,3e6]", "trials.share=0"))
    )
    assert given["stages"]["training"]["usd"] == {"low": 1e6, "central": 2e6, "high": 3e6}
    assert given["stages"]["retraining"]["usd"]["central"] == pytest.approx(2 * 0.1 * 2e6)
    assert given["stages"]["training"]["energy_j"] is None  # only one quantity is known
    assert given["total"]["usd"] is not None
    for stage in ("data", "labour", "inference"):
        assert given["stages"][stage] == computed["stages"][stage]


def test_more_tokens_a_day_are_served_at_that_rate_and_overtake_sooner(capsys: pytest.CaptureFixture[str]) -> None:
    base = (*BASE, "service.years=10")
    some, more = (_life(capsys, *base, f"service.tokens_per_day={rate}") for rate in ("1e9", "1e10"))
    assert some["tokens_per_day"] == 1e9
    days = [each["overtaking"]["energy_j"]["central"]["day"] for each in (some, more)]
    assert days[1] < days[0]


def test_figure_and_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "life"
    done = run(["lifecycle", *GIVEN, f"out={out}"], capsys)
    assert done.status == 0
    assert "592,570,000 answers" in done.out
    with (out / "lifecycle.csv").open() as file:
        rows = [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]
    before = [row for row in rows if row["inference_energy_j"] < row["training_energy_j"]]
    assert before[-1]["day"] < 592.57 < rows[len(before)]["day"]
    assert "inference_usd" not in rows[0]
    assert (out / "lifecycle.png").stat().st_size > 0
    assert json.loads((out / "lifecycle.json").read_text())["lifecycle"] == "bloomz_7b"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "model=None"),
        (["model=llama_3_1_8b"], "xpu=None"),
        (["lifecycle=nope"], "lifecycle='nope'"),
        ([*GIVEN, "model=llama_3_1_8b"], "all stages are given"),
        ([*GIVEN, "service.tokens_per_day=null"], "service.tokens_per_day=None"),
        ([*GIVEN, "service.growth_per_year=-1"], "a share > -1"),
        ([*GIVEN, "service.years=0"], "service.years=0"),
        ([*GIVEN, "retraining.period_days=0"], "at least 1 day"),
        ([*GIVEN, "given.training.energy_kwh=-4"], "given.training.energy_kwh=-4"),
        ([*GIVEN, "tuning.method=x"], "lora | fine_tuning"),
        ([*GIVEN, "service=4"], "no such key"),
        ([*BASE, "labour.persons=[3,2,1]"], "three in order"),
        ([*BASE, "labour.persons=[1,2]"], "three in order"),
        ([*BASE, "servce.years=3"], "did you mean service.years"),
        ([*BASE, "decommissioning.xpu_years=0"], "decommissioning.xpu_years=0"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["lifecycle", *arguments], capsys)
    assert done.status == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
