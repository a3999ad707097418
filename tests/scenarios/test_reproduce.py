"""Published studies by one command: what they leave, that their signs are physical, and that bad inputs are refused."""

from __future__ import annotations

import csv
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from sim.hardware import catalogue
from tests.scenarios.command import run
from tests.scenarios.records import one_line

#: The study of the two GPUs, with one model, two batches and one input varied.
TWO_GPUS = ("zhou_nguyen_2025", 'models=["llama_3_2_1b"]', "batches=[1,64]", 'uncertain={"lifetime_years":[3,8]}')


def found(capsys: pytest.CaptureFixture[str], *settings: str) -> dict[str, Any]:
    """The JSON of a study."""
    done = run(["reproduce", *settings, "--json"], capsys)
    assert (done.status, done.err) == (0, "")
    document: dict[str, Any] = json.loads(done.out)
    return document


def verdicts(document: dict[str, Any]) -> list[str]:
    return [claim["verdict"] for claim in document["claims"]]


def test_without_a_name_the_studies_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["reproduce"], capsys)
    assert done.status == 0
    assert all(name in done.out for name in catalogue.list_entries("study"))


def test_a_study_leaves_report_tables_figures_and_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "study"
    done = run(["reproduce", *TWO_GPUS, f"out={out}"], capsys)
    assert done.status == 0
    assert "HOLDS" in done.out
    document = json.loads((out / "study.json").read_text("utf-8"))
    for name, rows in document["tables"].items():
        with open(out / "tables" / f"{name}.csv", newline="", encoding="utf-8") as file:
            assert len(list(csv.DictReader(file))) == len(rows)
    assert {path.name for path in (out / "figures").glob("*.svg")} == {"ratio.svg", "tornado.svg"}
    report = (out / "report.html").read_text("utf-8")
    assert all(claim["evidence"].split(":")[0] in report for claim in document["claims"])
    assert "hybridfleet reproduce zhou_nguyen_2025" in report
    assert document["inputs"]["batches"]["kind"] == "given"
    assert document["inputs"]["lifetime_years"]["kind"] == "assumed"


def test_every_case_of_two_gpus_is_physical(capsys: pytest.CaptureFixture[str]) -> None:
    rows = found(capsys, *TWO_GPUS)["tables"]["cells"]
    assert len(rows) == 2 * 2 * 2 * 2 * 3  # xPU, batch, phase, boundary, grid
    by_case: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in rows:
        xpu = catalogue.xpu(row["xpu"])
        assert xpu.power.static_w <= row["power_w"] <= xpu.tdp_w * (1 + 1e-9)
        assert row["j_per_token"] == pytest.approx(row["power_w"] * row["s_per_token"])
        by_case[row["xpu"], row["batch"], row["phase"], row["boundary"], row["grid"]] = row
    for (xpu, batch, phase, boundary, grid), row in by_case.items():
        shares = {
            name: by_case[xpu, batch, phase, boundary, name]["embodied_share"]
            for name in ("study_quebec", "study_ciso", "study_pace")
        }
        assert shares["study_quebec"] > shares["study_ciso"] > shares["study_pace"] > 0.0
        hosted = by_case[xpu, batch, phase, "with host", grid]
        assert hosted["operational_g_per_token"] >= row["operational_g_per_token"]
        larger = by_case[xpu, 64, phase, boundary, grid]
        assert larger["j_per_token"] <= row["j_per_token"]  # weights are read once for all of a batch
        assert batch in (1, 64)


def test_carbon_of_a_token_is_what_its_parts_give(capsys: pytest.CaptureFixture[str]) -> None:
    rows = found(capsys, *TWO_GPUS)["tables"]["cells"]
    row = next(r for r in rows if (r["xpu"], r["boundary"], r["grid"]) == ("t4", "GPU alone", "study_pace"))
    assert row["operational_g_per_token"] == pytest.approx(row["j_per_token"] / 3.6e6 * 647.0)
    assert row["embodied_g_per_token"] == pytest.approx(
        9672.0 * row["s_per_token"] / (5 * 8760 * 3600), rel=1e-3
    )  # 9.67 kg by ACT


def test_inputs_varied_move_the_answer_the_way_they_must(capsys: pytest.CaptureFixture[str]) -> None:
    varied = 'uncertain={"lifetime_years":[3,8],"old_share":[0,1],"power":[0.5,1.5]}'
    cases = found(capsys, *TWO_GPUS[:3], varied)["tables"]["sensitivity_cases"]
    assert len(cases) == (2 + 2 * 4) * 2 * 2 * 3  # inputs; corner, phase, grid
    for row in cases:
        if row["input"] == "share of t4's embodied":
            assert row["ratio_at_low"] < row["ratio_at_high"] == pytest.approx(row["ratio"])
        if row["input"] == "t4 power.static_w":
            assert row["ratio_at_low"] < row["ratio_at_high"]
        if row["input"] == "rtx_6000_ada power.memory_w":
            assert row["ratio_at_low"] >= row["ratio_at_high"]
        if row["input"] == "lifetime_years":  # a longer life makes embodied carbon matter less
            energy_side = abs(row["ratio_at_high"] - row["ratio"]) > 0.0
            assert energy_side
        sides = {row[key] < 1.0 for key in ("ratio", "ratio_at_low", "ratio_at_high")}
        assert row["turns"] == (len(sides) == 2)


def test_the_largest_model_outgrows_the_old_gpu(capsys: pytest.CaptureFixture[str]) -> None:
    document = found(
        capsys, TWO_GPUS[0], 'models=["llama_3_2_1b","llama_2_7b"]', "batches=[1,64]", 'uncertain={"pue":[1,1.5]}'
    )
    cells = document["tables"]["cells"]
    lost = {(row["model"], row["xpu"], row["batch"]) for row in cells if row["j_per_token"] is None}
    assert lost == {("llama_2_7b", "t4", 64)}
    assert verdicts(document)[-1] == "holds"
    roomy = found(capsys, *TWO_GPUS)  # 1B alone
    assert verdicts(roomy)[-1] == "does not hold"


def test_the_change_of_the_greener_gpu_lies_where_the_ratio_passes_one(capsys: pytest.CaptureFixture[str]) -> None:
    document = found(capsys, *TWO_GPUS[:2], "batches=[1,2,16,32]", TWO_GPUS[3])
    for row in document["tables"]["greener"]:
        column = {"GPU alone": "", "with host": " + host"}[row["boundary"]]
        ratios = [
            (each["batch"], each[f"ciso{column}"])
            for each in document["tables"]["ratios"]
            if each["phase"] == row["phase"]
        ]
        named = [part.split()[0] for part in row["ciso"].split(", ")]
        sides = [ratio < 1.0 for _, ratio in ratios]
        changes = sum(one != other for one, other in pairwise(sides))
        assert len(named) == changes + 1
        assert named[0] == ("t4" if sides[0] else "rtx_6000_ada")
        assert all(math.isfinite(ratio) for _, ratio in ratios)


@pytest.mark.parametrize(
    ("settings", "key"),
    [
        (["nothing"], "study"),
        (["zhou_nguyen_2025", "batches=[]"], "batches"),
        (["zhou_nguyen_2025", "batches=[4,2]"], "batches"),
        (["zhou_nguyen_2025", "models=[]"], "models"),
        (["zhou_nguyen_2025", 'models=["no_such"]'], "models"),
        (["zhou_nguyen_2025", "grids=[]"], "grids"),
        (["zhou_nguyen_2025", "lifetime_years=0"], "lifetime_years"),
        (["zhou_nguyen_2025", "pue=0.9"], "pue"),
        (["zhou_nguyen_2025", "output=1"], "output"),
        (["zhou_nguyen_2025", "memory_share=0.1"], "memory_share"),
        (["zhou_nguyen_2025", "host_embodied_kg=null"], "host_embodied_kg"),
        (["zhou_nguyen_2025", "uncertain.pue=[1]"], "uncertain.pue"),
        (["zhou_nguyen_2025", "uncertain.nothing=[1,2]"], "uncertain.nothing"),
        (["zhou_nguyen_2025", "nothing=1"], "nothing"),
        (["zhou_nguyen_2025", "embodied=magic"], "embodied.method"),
        (["zhou_nguyen_2025", "program=no_such"], "program"),
    ],
)
def test_bad_input_is_one_line(settings: list[str], key: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["reproduce", *settings, "--json"], capsys)
    one_line(done, f"{key}=", "accepted")


def test_a_folder_that_exists_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["reproduce", *TWO_GPUS, f"out={tmp_path}"], capsys)
    assert done.status == 2
    assert "out=" in done.err
