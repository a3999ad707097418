"""`hybridfleet validate aggregates=` and `energy=`, error tables, and names of devices."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from analysis.agreement import Side, absolute, compare, relative_error
from scenarios.aggregates import compare_aggregates
from scenarios.deployment import pool_of, xpu_named
from scenarios.energy import compare_energy
from sim.errors import InputError
from sim.results import GapSample
from tests.scenarios.command import run
from tests.scenarios.records import AGGREGATE, ENERGY_COLUMNS, ENERGY_ROW, Row, agreement, write_rows


def test_means_of_its_own_are_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [{**AGGREGATE, "stage_index": stage} for stage in (-1, 0, 1)]
    first = compare_aggregates(write_rows(tmp_path / "first.csv", rows), {})
    for row, each in zip(rows, first):
        for key, column in (("e2e_s", "e2e_mean"), ("itl_s", "itl_mean"), ("ttft_s", "ttft_mean")):
            row[column] = 1e3 * each.errors[key]["simulated"]
    path = write_rows(tmp_path / "second.csv", rows)
    found = agreement(capsys, f"aggregates={path}")
    assert [run["stage_index"] for run in found["runs"]] == [-1, 0, 1]
    for each in found["runs"]:
        for key in ("e2e_s", "itl_s", "ttft_s"):
            assert each[key]["error"] == pytest.approx(0.0, abs=0.01), (each["stage_index"], key)
    assert found["absolute_error"]["e2e_s"]["rows"] == 1  # runs, not stages
    slow, fast = (each["itl_s"]["simulated"] for each in found["runs"][1:])
    assert slow < found["runs"][0]["itl_s"]["simulated"] < fast
    table = run(["validate", f"aggregates={path}"], capsys)
    assert "mean absolute error of runs" in table.out
    assert "llama_3_1_8b, 1 x h100_sxm" in table.out


def test_repeated_prompts_are_not_computed_again(tmp_path: Path) -> None:
    repeated = compare_aggregates(write_rows(tmp_path / "few.csv", [AGGREGATE]), {})
    distinct = compare_aggregates(write_rows(tmp_path / "many.csv", [{**AGGREGATE, "n_sys_prompts": 10**7}]), {})
    few, many = (found[0].errors["ttft_s"]["simulated"] for found in (repeated, distinct))
    assert few < 0.8 * many


def test_energy_of_its_own_is_met(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Row] = [{**ENERGY_ROW, "joules_per_token": 1.0, "step_s": 1.0, "PP": pp} for pp in (1, 1, 2)]
    first = compare_energy(write_rows(tmp_path / "first.csv", rows), {}, ENERGY_COLUMNS).cases[0]
    for row, factor in zip(rows, (1.5, 0.5, 1.0)):  # the mean of repeated rows counts
        row["joules_per_token"] = factor * first.errors["joules_per_token_simulated"]["simulated"]
        row["step_s"] = first.errors["step_s"]["simulated"]
    path = write_rows(tmp_path / "second.csv", rows)
    columns = [f"columns.{field}={name}" for field, name in ENERGY_COLUMNS.items()]
    found = agreement(capsys, f"energy={path}", *columns)
    case, piped = found["runs"]
    assert piped["rows"] == 1
    assert (case["model"], case["xpu"], case["batch"], case["output"]) == ("llama_3_1_8b", "h100_sxm", 40, 60)
    assert case["rows"] == 2
    for key in ("joules_per_token", "joules_per_token_at_pace", "joules_per_token_simulated", "step_s"):
        assert case[key]["error"] == pytest.approx(0.0, abs=1e-9)
    assert piped["joules_per_token"]["error"] != pytest.approx(0.0, abs=1e-3)  # two stages are another case
    assert found["left_out"] == []


def test_energy_at_a_slower_pace_adds_static_power_alone(tmp_path: Path) -> None:
    row = {**ENERGY_ROW, "in": 1, "joules_per_token": 1.0, "step_s": 0.5}  # no step at the limit
    errors = compare_energy(write_rows(tmp_path / "a.csv", [row]), {}, ENERGY_COLUMNS).cases[0].errors
    pool = pool_of({"model": "llama_3_1_8b", "xpu": "h100_sxm"}, {})
    slower_s = 0.5 - errors["step_s"]["simulated"]
    extra = errors["joules_per_token_at_pace"]["simulated"] - errors["joules_per_token_simulated"]["simulated"]
    assert extra == pytest.approx(pool.xpu.power.static_w * slower_s / 40, rel=1e-4)
    assert errors["joules_per_token"] == errors["joules_per_token_at_pace"]


def test_energy_as_power_of_decode_steps(tmp_path: Path) -> None:
    row = {**ENERGY_ROW, "power_fraction": 0.5, "step_ms": 10.0, "bs": 4}
    (case,) = compare_energy(write_rows(tmp_path / "a.csv", [row]), {}, ENERGY_COLUMNS).cases
    assert case.case.decode_only
    assert case.errors["joules_per_token"]["measured"] == pytest.approx(0.5 * 700.0 * 0.010 / 4)
    longer = {**row, "in": 1000}  # a prompt adds to the context, but its own energy does not count
    (long_case,) = compare_energy(write_rows(tmp_path / "b.csv", [longer]), {}, ENERGY_COLUMNS).cases
    ratio = long_case.errors["joules_per_token"]["simulated"] / case.errors["joules_per_token"]["simulated"]
    assert 1.0 < ratio < 1.2


# -- parts ------------------------------------------------------------------------------------------------------------


def test_errors_are_signed_fractions_of_what_was_measured() -> None:
    assert relative_error(10.0, 8.0) == pytest.approx(-0.2)
    assert relative_error(0.0, 1.0) is None
    assert relative_error(None, 1.0) is None
    rows = [{"x": {"error": -0.2}}, {"x": {"error": 0.1}}, {"x": {"error": None}}, {}]
    assert absolute(rows, ["x"]) == {
        "x": {"mean": pytest.approx(0.15), "median": pytest.approx(0.15), "max": 0.2, "rows": 2}
    }
    assert absolute([], ["x"])["x"]["mean"] is None


def test_a_comparison_pools_gaps_and_skips_single_tokens() -> None:
    tpot = np.array([0.1, np.nan, 0.3])
    measured = Side(np.array([1.0, 2.0, 3.0]), tpot, np.array([2.0, 2.0, 6.0]), 10.0, 30)
    twice = Side(2 * measured.ttft_s, 2 * tpot, 2 * measured.e2e_s, 20.0, 30, GapSample(np.array([0.2]), np.array([3])))
    section = compare(measured, twice)
    assert section["tpot_s"]["mean"]["measured"] == pytest.approx(0.2)
    assert section["ttft_s"]["p50"] == {"measured": 2.0, "simulated": 4.0, "error": 1.0}
    assert section["makespan_s"]["error"] == 1.0
    assert "itl_s" not in section  # known on one side only


@pytest.mark.parametrize(
    ("hint", "expected"),
    [
        ("NVIDIA GeForce RTX 4090", "rtx_4090"),
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("H100", "h100_sxm"),
        ("NVIDIA A100-SXM4-40GB", "a100_sxm_40gb"),
        ("a100-80gb", "a100_sxm_80gb"),
        ("A100-80", "a100_sxm_80gb"),
        ("NVIDIA RTX PRO 6000 Blackwell Server Edition", "rtx_pro_6000"),
        ("NVIDIA RTX 6000 Ada Generation", "rtx_6000_ada"),
        ("rtxpro6000_llama31_8b", "rtx_pro_6000"),
        ("Tesla V100-SXM2-32GB", "v100_sxm_32gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA L4", "l4"),
        ("h100_sxm", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA A100", None),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("rtx4090_and_l4", None),
        ("my run", None),
    ],
)
def test_devices_are_found_by_name(hint: str, expected: str | None) -> None:
    if expected is None:
        with pytest.raises(InputError, match="xpu"):
            xpu_named(hint)
    else:
        assert xpu_named(hint) == expected


def test_a_table_that_leaves_the_memory_open_means_the_larger_board() -> None:
    assert xpu_named("A100-SXM", largest=True) == "a100_sxm_80gb"
    assert xpu_named("NVIDIA A100-SXM4-40GB", largest=True) == "a100_sxm_40gb"
    with pytest.raises(InputError, match="xpu"):
        xpu_named("rtx4090_and_l4", largest=True)


def test_a_device_of_another_size_is_refused() -> None:
    assert xpu_named("NVIDIA GeForce RTX 4090", memory_bytes=25250627584) == "rtx_4090"
    with pytest.raises(InputError, match="has"):
        xpu_named("NVIDIA GeForce RTX 4090", memory_bytes=48e9)
