"""`hybridfleet calibrate` finds the coefficients that made the data, and says which the data cannot tell."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scenarios.calibrate import main
from scenarios.deployment import Requests, pool_of, serve
from scenarios.fitting import fit, with_coefficients
from scenarios.measured_sources import read_kernels
from sim import XPU, InputError, catalogue
from sim.hardware.deployment import Deployment
from sim.hardware.timing import RooflineTiming
from tests.scenarios.command import QUICK, run
from tests.scenarios.records import CLOCK_S, DATA, EPOCH_S, META, needs_data, write_folder

LLAMA, RTX4090 = catalogue.model("llama_3_1_8b"), catalogue.xpu("rtx_4090")
TRUE = {"weight_eff": 0.8, "compute_eff": 0.8}  #: of the chip that the made-up measurements come from
KERNELS = DATA / "measured" / "kernels"


def write_kernels(folder: Path, chip: XPU, meta: str = "model: meta-llama/Llama-3.1-8B\nvariant: bf16\n") -> Path:
    """Kernel times of a chip as its own timing model has them: everything but attention is one dense kernel."""
    timing = RooflineTiming(Deployment(LLAMA, chip))
    folder.mkdir(parents=True)
    (folder / "meta.yaml").write_text(meta)
    layers = LLAMA.layers
    tokens = [1, 2, 4, 8, 16, 32, 64, 128, 256, 384, 512, 1024, 2048]

    def dense_us(count: int) -> float:
        head = timing.step(0, count, 1).fixed_s - timing.step(0, 1, 1).fixed_s
        return 1e6 * (timing.step(0, 1, 1).fixed_s + head) / layers

    def write(name: str, header: str, rows: list[tuple[object, ...]]) -> None:
        with (folder / name).open("w", newline="") as file:
            csv.writer(file).writerows([header.split(","), *rows])

    write("dense.csv", "layer,tokens,time_us", [("all", count, dense_us(count)) for count in tokens])
    write("per_sequence.csv", "layer,sequences,time_us", [("none", 1, 1e-6), ("none", 256, 1e-6)])
    rows: list[tuple[object, ...]] = []
    for n in (1, 8, 32, 128):
        for context in (512, 1024, 2048):
            cost = timing.step(n, 0, 0)
            whole_us = 1e6 * (cost.fixed_s + cost.tau * n * context) / layers
            rows.append((0, 0, n, context, max(0.0, whole_us - np.interp(n, tokens, [dense_us(t) for t in tokens]))))
    for chunk in (128, 512, 2048):
        for cached in (0, 2048):
            pairs = chunk * (cached + 0.5 * (chunk + 1))
            rows.append((chunk, cached, 0, 0, 1e6 * timing.rho * pairs / layers))
    write("attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us", rows)
    return folder


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_kernels(tmp_path_factory.mktemp("made_up") / "kernels", with_coefficients(RTX4090, TRUE))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without preemptions on the chip with other coefficients."""
    rng = np.random.default_rng(3)
    n = 40
    arrival = np.cumsum(rng.exponential(0.2, n))
    requests = Requests(arrival - arrival[0], rng.integers(50, 1500, n), rng.integers(20, 300, n))
    engine = {"max_num_seqs": 16, "max_num_batched_tokens": 512, "kv_blocks": 2000, "max_model_len": 4096}
    pool = pool_of({"model": "llama_3_1_8b", "xpu": "rtx_4090", "engine": engine}, {})
    object.__setattr__(pool, "xpu", with_coefficients(RTX4090, TRUE))
    column = serve(pool, requests).requests
    rows = [
        {
            "request_id": f"r{i}", "input_toks": int(requests.prompt[i]), "output_toks": int(requests.output[i]),
            "arrival_time": EPOCH_S + at, "queued_ts": CLOCK_S + at, "scheduled_ts": CLOCK_S + at,
            "first_token_ts": CLOCK_S + at + column["ttft_s"][i], "last_token_ts": CLOCK_S + at + column["e2e_s"][i],
        }
        for i, at in enumerate(requests.arrival_s.tolist())
    ]  # fmt: skip
    meta = json.loads(json.dumps(META))
    meta["engine_kwargs"] |= {"async_scheduling": False, "enforce_eager": True}
    meta["kv_cache"] |= {"num_gpu_blocks": 2000, "enable_prefix_caching": False}
    return write_folder(tmp_path_factory.mktemp("made_up") / "run", rows, meta)


def calibrate(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_kernel_times_give_back_the_coefficients_they_were_made_with(
    kernels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = calibrate(capsys, f"kernels={kernels}", "xpu=rtx_4090", f"out={tmp_path}")
    for name, value in TRUE.items():
        fitted = found["coefficients"][name]
        assert fitted["determined"]
        assert fitted["after"] == pytest.approx(value, rel=0.02), name
        assert fitted["before"] == getattr(RTX4090.timing, name)
        assert 0.0 <= fitted["standard_error"] < 0.05
    for part in ("fitted", "held out"):
        errors = found["errors"]["kernels"][part]
        assert abs(errors["before"]["steps, mean absolute"]) > 0.05
        assert abs(errors["after"]["steps, mean absolute"]) < 0.02


def test_what_the_data_cannot_tell_apart_is_kept_and_said(
    kernels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # one model has one number of layers: time a step and time a layer cannot be told apart
    found = calibrate(capsys, f"kernels={kernels}", "xpu=rtx_4090", f"out={tmp_path}")
    step = found["coefficients"]["step_overhead_s"]
    assert not step["determined"]
    assert step["after"] == step["before"] == RTX4090.timing.step_overhead_s
    assert "link_bytes_per_s" not in found["coefficients"]  # nothing was measured on several xPUs


def test_a_measured_run_is_fitted_and_the_entry_runs(
    measured: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine"
    found = calibrate(capsys, f"measured={measured}", f"out={out}")
    errors = found["errors"]["run"]
    assert errors["held out"]["before"]["TPOT mean"] < -0.05
    assert abs(errors["held out"]["after"]["TPOT mean"]) < 0.02
    assert abs(errors["fitted"]["after"]["E2E mean"]) < 0.02
    chip = catalogue.xpu("rtx_4090_calibrated", [out])
    weight = found["coefficients"]["weight_eff"]
    assert weight["determined"]
    assert chip.timing.weight_eff == pytest.approx(weight["after"], rel=1e-3)
    assert chip.timing.attn_start == RTX4090.timing.attn_start
    unit, source, kind = chip.provenance["timing.weight_eff"]
    assert (unit, kind) == ("share of peak", "measured")
    assert "hybridfleet calibrate on run" in source
    entry = ["--config-dir", str(out), "fleet.xpu=rtx_4090_calibrated", f"out={tmp_path / 'run'}"]
    done = run(["run", *QUICK, *entry], capsys)
    assert done.status == 0, done.err


def test_a_table_is_printed(kernels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"kernels={kernels}", "xpu=rtx_4090", f"out={tmp_path}", "held_out=0"]) == 0
    out = capsys.readouterr().out
    assert "weight_eff" in out
    assert "not determined by these data; kept" in out
    assert "held out" not in out
    assert str(tmp_path / "xpu" / "rtx_4090_calibrated.yaml") in out


def test_a_source_without_effect_determines_nothing() -> None:
    class Deaf:
        name, tp = "deaf", 1

        def residuals(self, xpu: XPU) -> Any:
            return np.array([0.1, -0.1, 0.2])

        def errors(self, xpu: XPU, held_out: bool) -> dict[str, float]:
            return {}

    fitted = fit(RTX4090, [Deaf()])
    assert fitted.xpu == RTX4090
    assert not any(each.determined for each in fitted.coefficients)
    assert all(math.isinf(each.error) for each in fitted.coefficients)


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ([], "arguments"),
        (["measured"], "arguments"),
        (["measured="], "arguments"),
        (["mesured=x"], "mesured"),
        (["measured=nowhere"], "measured"),
        (["kernels=nowhere", "xpu=rtx_4090"], "kernels"),
        (["kernels={kernels}"], "xpu"),
        (["kernels={kernels}", "xpu=rtx_4091"], "xpu"),
        (["kernels={kernels}", "xpu=rtx_4090", "held_out=1.5"], "held_out"),
        (["kernels={kernels}", "xpu=rtx_4090", "seed=-1"], "seed"),
        (["kernels={kernels}", "xpu=rtx_4090", "seed=1", "seed=2"], "seed"),
    ],
)
def test_bad_arguments_are_refused(arguments: list[str], key: str, kernels: Path) -> None:
    with pytest.raises(InputError) as refused:
        main([each.format(kernels=kernels) for each in arguments])
    assert refused.value.key == key


def test_nothing_is_overwritten(kernels: Path, tmp_path: Path) -> None:
    entry = tmp_path / "xpu" / "rtx_4090_calibrated.yaml"
    entry.parent.mkdir()
    entry.write_text("mine")
    with pytest.raises(InputError, match="does not exist yet"):
        main([f"kernels={kernels}", "xpu=rtx_4090", f"out={tmp_path}"])
    assert entry.read_text() == "mine"


def test_malformed_kernel_times_are_refused(kernels: Path, tmp_path: Path) -> None:
    for name, content, message in (
        ("meta.yaml", "model: nobody/nothing\n", "model="),
        ("meta.yaml", "[", "readable YAML"),
        ("meta.yaml", "model: meta-llama/Llama-3.1-8B\ntp_degrees: [1, 2]\n", "name ends in tpN"),
        ("dense.csv", "layer,tokens,time_us\nall,1,fast\n", "dense.csv line 2"),
        ("attention.csv", "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us\n0,0,1,16,9\n", "contexts"),
    ):
        folder = tmp_path / str(abs(hash((name, content))))
        folder.mkdir()
        for file in kernels.iterdir():
            (folder / file.name).write_text(file.read_text())
        (folder / name).write_text(content)
        with pytest.raises(InputError, match=message):
            read_kernels(folder, 0.0, np.random.default_rng(0))


@needs_data
@pytest.mark.parametrize(
    ("folder", "name", "bound"),
    [
        ("RTX4090_Llama-3.1-8B_bf16_tp1", "rtx_4090", 0.08),
        ("RTXPRO6000_Llama-3.1-8B_bf16_tp1", "rtx_pro_6000", 0.08),
        ("RTXPRO6000_Llama-3.1-8B_bf16_tp2", "rtx_pro_6000", 0.10),
    ],
)
def test_shipped_entries_agree_with_kernel_times(folder: str, name: str, bound: float) -> None:
    source = read_kernels(KERNELS / folder, 0.0, np.random.default_rng(0))
    errors = source.errors(catalogue.xpu(name), held_out=False)
    assert errors["steps, mean absolute"] < bound
    assert abs(errors["decode steps, mean"]) < 0.08  # entries know overheads of whole engines that no kernel shows
