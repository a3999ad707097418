"""Tables of energy: pace, units, stacks and suspects; power of kernels; and fits of power and of stacks to tables."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios.energy import compare_energy, pool_for
from scenarios.energy_fit import (
    POWER,
    EnergySource,
    Sample,
    carried_over,
    fit_to,
    left_out,
    steady_state,
    summary,
)
from scenarios.energy_table import Case, Measure, read_energy
from scenarios.fitting import with_coefficients
from scenarios.kernel_power import RAMP_S, read_kernel_power
from sim.errors import InputError
from sim.hardware import catalogue
from tests.scenarios.command import run
from tests.scenarios.records import DATA, agreement, needs_data, one_line, write_rows

ROW: dict[str, Any] = {"model": "llama3.1-8b", "GPU": "H100", "batch": 32, "prompt": 100, "output": 50}


def test_throughput_sets_the_pace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # 32 sequences at 640 tokens/s: 50 ms a step, and 154 W of static power for 1/640 s a token; no step at the limit
    row = {**ROW, "prompt": 1, "joules_per_token": 0.5, "tokens_per_s": 640.0, "step_s": 0.045}
    path = write_rows(tmp_path / "a.csv", [row])
    (paced,) = agreement(capsys, f"energy={path}")["runs"]
    (free,) = agreement(capsys, f"energy={path}", "pace=simulated")["runs"]
    assert (paced["pace"], free["pace"]) == ("measured", "simulated")
    assert paced["step_s"]["measured"] == pytest.approx(0.05)
    assert paced["joules_per_token"] == paced["joules_per_token_at_pace"] == free["joules_per_token_at_pace"]
    assert free["joules_per_token"] == free["joules_per_token_simulated"]
    extra = paced["joules_per_token"]["simulated"] - free["joules_per_token"]["simulated"]
    static_w = catalogue.xpu("h100_sxm").power.static_w
    assert extra == pytest.approx(static_w * (0.05 - free["step_s"]["simulated"]) / 32, rel=1e-4)
    assert "pace" in run(["validate", f"energy={path}"], capsys).out


def test_without_a_pace_the_simulated_one_counts_and_batches_follow_from_littles_law(tmp_path: Path) -> None:
    (case,) = compare_energy(write_rows(tmp_path / "a.csv", [{**ROW, "joules_per_token": 0.5}]), {}).cases
    assert (case.pace, set(case.errors)) == ("simulated", {"joules_per_token", "joules_per_token_simulated"})
    row = {key: value for key, value in ROW.items() if key != "batch"}
    row |= {"avg_power_watts": 400.0, "output_throughput_tokens_per_sec": 1000.0, "mean_itl_ms": 24.0}
    ((found, measure),) = read_energy(write_rows(tmp_path / "b.csv", [row]), {}).means().items()
    assert found.batch == 24
    assert not found.decode_only
    assert measure == pytest.approx((0.4, 1e-3))


def test_the_limit_holds_at_the_measured_pace(tmp_path: Path) -> None:
    found = []
    for pace in (2.0, 8.0):
        row = {**ROW, "prompt": 4000, "output": 2, "joules_per_token": 10.0, "step_s": pace}
        found += compare_energy(write_rows(tmp_path / f"{pace}.csv", [row]), {}).cases
    close, gaps = (each.errors for each in found)
    limit_w, static_w = 700.0, catalogue.xpu("h100_sxm").power.static_w
    assert close["joules_per_token"]["simulated"] == pytest.approx(limit_w * 2.0 / 32, rel=1e-3)  # chips have no room
    simulated_w = close["joules_per_token_simulated"]["simulated"] / close["step_s"]["simulated"] * 32
    assert simulated_w <= limit_w
    assert gaps["joules_per_token"]["simulated"] < limit_w * 8.0 / 32
    assert gaps["joules_per_token"]["simulated"] > close["joules_per_token"]["simulated"] + static_w * 2.0 / 32


def test_sampling_by_top_p_sorts_and_tasks_of_ml_energy_say_which_do(tmp_path: Path) -> None:
    names = ("llm-chat", "llm-code", "mllm-chat")
    rows = [{**ROW, "output": 100 + at, "joules_per_token": 0.5, "task": name} for at, name in enumerate(names)]
    table = read_energy(write_rows(tmp_path / "a.csv", rows), {})
    assert [case.sorted_sampling for case in table.measured] == [True, False, True]
    chat, code = (pool_for(case, {}, ()) for case in list(table.measured)[:2])
    assert (chat.engine.sorted_sampling, code.engine.sorted_sampling) == (True, False)
    rows = [{**ROW, "joules_per_token": 0.5, "sampling": "top_p"}]
    (case,) = read_energy(write_rows(tmp_path / "b.csv", rows), {}).measured
    assert case.sorted_sampling


def test_a_stack_slows_the_simulated_pace_alone(tmp_path: Path) -> None:
    row = {**ROW, "prompt": 1, "joules_per_token": 0.5, "step_s": 0.02}  # no step at the limit
    plain, stacked = compare_energy(
        write_rows(tmp_path / "a.csv", [{**row, "stack": "vllm_v1"}, {**row, "stack": "mlenergy_v2"}]), {}
    ).cases
    assert stacked.errors["step_s"]["simulated"] > plain.errors["step_s"]["simulated"] + 32 * 0.4e-3
    at_pace = [each.errors["joules_per_token_at_pace"]["simulated"] for each in (plain, stacked)]
    assert at_pace[0] == pytest.approx(at_pace[1], rel=1e-4)


def test_a_case_that_contradicts_its_file_is_shown_and_not_summed_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    energies = {100: 0.5, 200: 0.48, 400: 0.2, 800: 0.45}
    rows = [{**ROW, "prompt": prompt, "joules_per_token": joules} for prompt, joules in energies.items()]
    path = write_rows(tmp_path / "a.csv", rows)
    found = agreement(capsys, f"energy={path}")
    assert [each["suspected"] for each in found["runs"]] == [False, False, True, False]
    assert found["absolute_error"]["joules_per_token"]["rows"] == 3
    assert "suspected: 1 case " in run(["validate", f"energy={path}"], capsys).out


BAD = {
    "no tokens": ({**ROW, "output": 0, "joules_per_token": 1}, ["output"]),
    "no measure": (ROW, ["joules_per_request"]),
    "power without a pace": ({**ROW, "power_w": 400}, ["tokens_per_s"]),
    "seconds for milliseconds": ({**ROW, "joules_per_token": 1, "step_ms": 20, "step_s": 20}, ["step_ms", "20000"]),
    "requests for tokens": ({**ROW, "joules_per_token": 25, "joules_per_request": 25}, ["joules_per_token", "0.5"]),
    "kilojoules": ({**ROW, "joules_per_token": 300, "tokens_per_s": 640}, ["line 2", "700 W"]),
    "a rate of another batch": ({**ROW, "joules_per_token": 0.5, "tokens_per_s": 640, "step_s": 2}, ["tokens_per_s"]),
    "an unknown model": ({**ROW, "model": "acme/9b", "joules_per_token": 1}, ["acme/9b"]),
    "an unknown GPU": ({**ROW, "GPU": "Z900", "joules_per_token": 1}, ["Z900"]),
    "an unknown stack": ({**ROW, "joules_per_token": 1, "stack": "tgi"}, ["stack", "list stacks"]),
    "kernels beyond any limit": (
        {"system": "H200", "latency_us": 9, "power_w": 2e4, "mfu": 0.1, "mbu": 0.1},
        ["watts"],
    ),
    "kernels without a shape": ({"system": "H200", "latency_us": 9, "power_w": 400}, ["mfu"]),
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_is_refused_in_one_line(what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    row, told = BAD[what]
    path = write_rows(tmp_path / "a.csv", [row])
    one_line(run(["validate", f"energy={path}"], capsys), *told)


def test_calibrate_refuses_what_does_not_go_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_rows(tmp_path / "a.csv", [{**ROW, "joules_per_token": 0.5}])
    for arguments, told in (
        (["held_out=0.2"], "held_out"),
        (["fit=pace"], "power | stack"),
        (["loo=batch"], "model | xpu"),
        (["kernels=b"], "one kind at a time"),
        (["fit=stack"], "tokens_per_s"),
    ):
        one_line(run(["calibrate", f"energy={path}", f"out={tmp_path / 'out'}", *arguments], capsys), told)
    assert not (tmp_path / "out").exists()


# -- kernels ----------------------------------------------------------------------------------------------------------


def test_joules_of_a_kernel_by_hand(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[dict[str, Any]] = [
        {"system": "h200_sxm", "op": "gemm", "latency_ms": 0.05, "power_w": 300.0, "m": 1, "n": 8192, "k": 8192},
        {"system": "h200_sxm", "op": "gemm", "latency_ms": 1.3, "power_w": 700.0, "m": 8192, "n": 8192, "k": 8192},
    ]
    path = write_rows(tmp_path / "kernels.csv", rows)
    (kernels,) = read_kernel_power(path, {}).kernels
    xpu = kernels.xpu
    mbu = 2.0 * (8192**2 + 2 * 8192) / 50e-6 / xpu.bandwidth_bytes_per_s
    mfu = 2.0 * 8192**2 / 50e-6 / xpu.peak_flops["bf16"]
    power = xpu.power
    seen = 50e-6 / (50e-6 + RAMP_S)
    drawn = power.static_w + max(power.active_w, power.compute_w * mfu + power.memory_w * mbu) * seen
    limit_w = power.static_w + (700.0 - power.static_w) * kernels.seconds[1] / (kernels.seconds[1] + RAMP_S)
    assert kernels.simulated_w(xpu) == pytest.approx([drawn, limit_w])  # more than the chip can do: at its limit
    found = agreement(capsys, f"energy={path}")["absolute_error"]["joules_per_kernel"]
    assert found["max"] == pytest.approx(abs(drawn / 300.0 - 1.0))
    assert "50 us and longer" in run(["validate", f"energy={path}"], capsys).out


def test_kernels_that_their_shape_makes_impossible_are_left_out(tmp_path: Path) -> None:
    shape = {"batch": 1, "isl": 4096, "heads": 32, "kv_heads": 8, "head_dim": 128}
    row = {"system": "h200_sxm", "op": "context_attention", "power_w": 400.0, **shape}
    flops = 2.0 * 4096**2 * 32 * 128
    peak = catalogue.xpu("h200_sxm").peak_flops["bf16"]
    path = write_rows(tmp_path / "a.csv", [{**row, "latency_us": 2e6 * flops / peak}, {**row, "latency_us": 1.0}])
    table = read_kernel_power(path, {})
    assert table.kernels[0].mfu == pytest.approx([0.5])
    assert table.left_out[0].startswith("1 rows")


# -- fits -------------------------------------------------------------------------------------------------------------


def made_up(xpu: str, **power: float) -> list[Sample]:
    """Cases of two models on a chip with other power coefficients, without noise."""
    samples = []
    for model, tp in (("llama_3_1_8b", 1), ("llama_3_1_70b", 4)):
        for n, prompt, pace in ((1, 64, 2.0), (8, 2000, 1.5), (32, 200, 4.0), (256, 100, 8.0)):
            case = Case(model, xpu, tp, "bf16", n, prompt, 200, False, None)
            pool = pool_for(case, {}, ())
            _, token_s = steady_state(Sample(case, Measure(1.0, float("nan")), pool), pool.xpu)
            sample = Sample(case, Measure(1.0, token_s * pace), pool)
            joules, _ = steady_state(sample, with_coefficients(pool.xpu, power))
            samples.append(replace(sample, measure=Measure(joules, token_s * pace)))
    return samples


def test_static_power_comes_back_and_what_is_not_determined_is_said() -> None:
    samples = made_up("a100_sxm_80gb", static_w=70.0)
    found = fit_to(samples, "power", POWER)
    by_name = {each.name: each for each in found.coefficients}
    assert by_name["static_w"].after == pytest.approx(70.0, rel=0.03)
    assert EnergySource("", samples).errors(found.xpu, False)["J/token, worst"] < 0.03
    assert EnergySource("", samples).errors(samples[0].pool.xpu, False)["J/token, worst"] > 0.1


def test_slopes_are_not_read_off_fewer_than_three_models() -> None:
    found = fit_to(made_up("a100_sxm_80gb", static_w=70.0), "power", POWER)
    assert [each.name for each in found.coefficients] == ["static_w"]


def test_power_is_carried_over_in_shares_and_that_of_arithmetic_by_the_energy_of_a_flop() -> None:
    h100, a100 = catalogue.xpu("h100_sxm"), catalogue.xpu("a100_sxm_40gb")
    to = carried_over(h100, a100, "power").power
    assert to.memory_w / a100.tdp_w == pytest.approx(h100.power.memory_w / h100.tdp_w)
    # 7 nm over the 5 nm class
    assert to.compute_w / 312e12 == pytest.approx(h100.power.compute_w / 989e12 * 7.0 / 5.0)
    unknown = replace(a100, node_nm=None)
    assert carried_over(h100, unknown, "power").power.compute_w == pytest.approx(h100.power.compute_w * 400.0 / 700.0)


def test_what_is_left_out_is_not_fitted() -> None:
    low, high = made_up("a100_sxm_80gb", static_w=70.0), made_up("h100_sxm", static_w=175.0)
    errors = left_out([*low, *high], lambda sample: sample.case.xpu, "power", ("static_w",))
    # 70 W are 0.175 of the limit of A100, 175 W are 0.25 of that of H100: each predicts the other's share
    assert all(error < 0.0 for error in errors["h100_sxm"])
    assert all(error > 0.0 for error in errors["a100_sxm_80gb"])
    assert summary(errors)["worst"] == pytest.approx(max(abs(e) for group in errors.values() for e in group))


def test_steady_state_is_near_the_simulated_batch(tmp_path: Path) -> None:
    rows = [{**ROW, "batch": n, "output": out, "joules_per_token": 1.0} for n, out in ((8, 300), (128, 300))]
    for compared in compare_energy(write_rows(tmp_path / "a.csv", rows), {}).cases:
        case = compared.case
        joules, _ = steady_state(
            Sample(case, Measure(1.0, float("nan")), pool_for(case, {}, ())), catalogue.xpu(case.xpu)
        )
        assert joules == pytest.approx(compared.errors["joules_per_token"]["simulated"], rel=0.1)


def test_a_fitted_entry_is_written_and_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for sample in made_up("a100_sxm_80gb", static_w=70.0):
        case, measure = sample.case, sample.measure
        rows.append(
            {"model": case.model, "xpu": case.xpu, "tp": case.tp, "batch": case.batch, "prompt": case.prompt}
            | {"output": case.output, "joules_per_token": measure.joules, "tokens_per_s": 1.0 / measure.token_s}
        )
    path, out = write_rows(tmp_path / "a.csv", rows), tmp_path / "out"
    done = run(["calibrate", f"energy={path}", f"out={out}", "--json"], capsys)
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)["a100_sxm_80gb"]
    assert found["coefficients"]["static_w"]["after"] == pytest.approx(70.0, rel=0.03)
    shares = found["errors"]["energy on a100_sxm_80gb"]
    assert shares["models left out"]["after"]["J/token, worst"] < shares["fitted"]["before"]["J/token, worst"]
    entry = catalogue.xpu("a100_sxm_80gb_calibrated", [out])
    assert entry.power.static_w == pytest.approx(70.0, rel=0.03)
    again = run(["calibrate", f"energy={path}", f"out={out}"], capsys)
    one_line(again, "a file that does not exist yet")
    done = run(["validate", f"energy={path}", f"--config-dir={out}", "xpu=a100_sxm_80gb_calibrated", "--json"], capsys)
    assert json.loads(done.out)["absolute_error"]["joules_per_token"]["max"] < 0.1


def test_overheads_of_a_stack_come_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for sample in made_up("a100_sxm_80gb"):
        case, chip = sample.case, sample.pool.xpu
        chip = with_coefficients(chip, {"layer_overhead_s": 200e-6, "seq_overhead_s": 300e-6, "peer_overhead_s": 5e-3})
        _, token_s = steady_state(Sample(case, Measure(1.0, float("nan")), sample.pool), chip)
        rows.append(
            {"model": case.model, "xpu": case.xpu, "tp": case.tp, "batch": case.batch, "prompt": case.prompt}
            | {"output": case.output, "joules_per_token": 0.01 / token_s * token_s, "tokens_per_s": 1.0 / token_s}
        )
    command = ["calibrate", f"energy={write_rows(tmp_path / 'a.csv', rows)}", "fit=stack", "stack=mlenergy_v2"]
    done = run([*command, f"out={tmp_path / 'out'}", "--json"], capsys)
    assert (done.status, done.err) == (0, "")
    found = json.loads(done.out)["mlenergy_v2"]["coefficients"]
    assert found["layer_overhead_s"]["after"] == pytest.approx(200e-6, rel=0.05)
    assert found["seq_overhead_s"]["after"] == pytest.approx(300e-6, rel=0.05)
    assert found["peer_overhead_s"]["after"] == pytest.approx(5e-3, rel=0.05)
    chip = catalogue.with_stack(catalogue.xpu("h100_sxm"), "mlenergy_v2_calibrated", [tmp_path / "out"])
    assert chip.timing.peer_overhead_s == pytest.approx(5e-3, rel=0.05)


# -- real measurements ------------------------------------------------------------------------------------------------


@needs_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "suspected"), [("v2_llm_a100_h100.csv", 0), ("splitwise_a100_power_fraction_of_tdp.csv", 3)]
)
def test_real_tables_stay_within_the_documented_bounds(name: str, suspected: int) -> None:
    from scenarios.validation_document import BOUNDS

    done = compare_energy(DATA / "measured/power" / name, {})
    assert sum(each.suspected for each in done.cases) == suspected
    off = np.abs([errors["joules_per_token"]["error"] for errors in done.trusted()])
    assert np.median(off) < BOUNDS["energy of full batches at measured pace, median over cases"]
    assert off.max() < BOUNDS["energy at measured pace, worst case"]


def test_a_table_without_columns_is_refused(tmp_path: Path) -> None:
    for missing in ("model", "GPU", "batch", "output"):
        row = {key: value for key, value in ROW.items() if key != missing}
        with pytest.raises(InputError, match="columns"):
            read_energy(write_rows(tmp_path / f"{missing}.csv", [{**row, "joules_per_token": 1.0}]), {})
