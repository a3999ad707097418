"""`hybridfleet size`: xPUs of training, fine-tuning and inference, and errors of one line."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from tests.scenarios.command import run

FAST = ("inference.requests=50", "inference.prompt=200", "inference.output=20", "engine.max_num_seqs=16")


def _sized(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    done = run(["size", *arguments, "--json"], capsys)
    assert done.err == ""
    assert done.status == 0
    return dict(json.loads(done.out)["models"][0])


def test_llama_65b_on_2048_a100_takes_21_days(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("training.tokens=1.4e12", "training.xpus=2048", "training.mfu=0.47", "layout.attention=false")
    found = _sized(capsys, "model=llama_65b", "xpu=a100_sxm_80gb", "training.sequence=2048", *asked, *FAST, "pue=1.1")
    training = found["training"]
    assert training["time_s"] / 86400 == pytest.approx(21.0, abs=0.2)
    assert training["xpus"] == 2048
    assert training["nodes"] == 256
    # GPUs at 400 W and hosts of 150 W, against the published 449 MWh of GPUs alone
    assert training["energy_j"] / 3.6e9 == pytest.approx(449 * 550 / 400, rel=0.03)


def test_xpus_are_the_most_of_memory_and_load(capsys: pytest.CaptureFixture[str]) -> None:
    found = _sized(capsys, "model=llama_3_1_8b", "xpu=h100_sxm", "training.days=3", "fine_tuning.days=100", *FAST)
    training, tuning = found["training"], found["fine_tuning"]
    assert training["bound"] == "time"
    assert training["xpus"] >= training["xpus_load"] > training["xpus_memory"]
    assert training["time_s"] <= 3 * 86400
    assert tuning["bound"] == "memory"
    assert tuning["xpus"] == tuning["xpus_memory"]
    memory = training["memory_bytes"]
    assert memory["weights"] + memory["gradients"] + memory["optimizer"] == 16 * found["params"]
    assert found["lora"]["trained_params"] == 41_943_040
    assert found["lora"]["xpus"] <= tuning["xpus"]
    serving = found["inference"]
    assert serving["xpus"] == serving["replicas"] * serving["xpus_memory"]
    assert serving["replicas"] * serving["goodput_rps"] >= serving["rate_rps"]
    assert serving["slo_attainment"] >= 0.9
    assert serving["entry_usd"] == pytest.approx(8 * 27500 * 1.48)


def test_a_stricter_slo_and_a_higher_load_take_no_fewer_xpus(capsys: pytest.CaptureFixture[str]) -> None:
    base = ("model=llama_3_1_8b", "xpu=l40s", "host=edge_box", "tp=1", *FAST)
    relaxed, strict = (_sized(capsys, *base, f"slo=chat_{slo}")["inference"] for slo in ("relaxed", "strict"))
    assert strict["goodput_rps"] <= relaxed["goodput_rps"]
    loaded = _sized(capsys, *base, "inference.rate=100")["inference"]
    assert loaded["replicas"] > relaxed["replicas"]
    assert loaded["usd_per_day"] == pytest.approx(0.79 * 24 * loaded["xpus"], rel=1e-6)


def test_a_list_of_models_is_a_table_and_a_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "sizes"
    done = run(
        ["size", "model=llama_3_2_1b,llama_3_1_8b,deepseek_v2_lite", "xpu=h100_sxm", f"out={out}", *FAST], capsys
    )
    assert done.status == 0
    assert "deepseek_v2_lite, LoRA: lora.targets=None is not valid" in done.out
    with (out / "sizing.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["model"] for row in rows] == ["llama_3_2_1b", "llama_3_1_8b", "deepseek_v2_lite"]
    assert int(rows[0]["training_xpus"]) < int(rows[1]["training_xpus"])
    assert rows[2]["lora_xpus"] == ""
    assert (out / "sizing.svg").stat().st_size > 0
    assert (out / "sizing.png").stat().st_size > 0


def test_unknown_prices_stay_unknown(capsys: pytest.CaptureFixture[str]) -> None:
    found = _sized(capsys, "model=llama_3_2_1b", "xpu=v100_sxm_32gb", "host=edge_box", *FAST)
    assert found["training"]["cost_usd"] is None  # nobody's rent of it is known
    assert found["training"]["embodied_g"] is None  # nor what an edge server was made with
    assert found["training"]["capital_usd"] is not None
    assert found["inference"]["usd_per_token"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["xpu=h100_sxm"], "model=None"),
        (["model=llama_3_1_8b"], "xpu=None"),
        (["model=nope", "xpu=h100_sxm"], "model='nope'"),
        (["model=llama_3_1_8b,llama_3_1_8b", "xpu=h100_sxm"], "occur once"),
        (["model=llama_3_1_8b", "xpu=nope"], "xpu='nope'"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "training.mfu=1.2"], "training.mfu=1.2"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "training.mfuu=0.2"], "did you mean training.mfu"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "training.days=0"], "training.days=0"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "training.xpus=1"], "at least 2 h100_sxm"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "layout.zero=5"], "layout.zero=5"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "layout.tp=3"], "layout.tp=3"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "layout.recomputation=some"], "none | selective | full"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "lora.targets=q,z"], "lora.targets[1]='z'"),
        (["model=mixtral_8x7b", "xpu=h100_sxm", "lora.targets=gate"], "lora.targets=['gate']"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "slo=nope"], "slo='nope'"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "pue=0.5"], "pue=0.5"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "power_share=2"], "power_share=2"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "inference.prompt=5"], "both inference.prompt and"),
        (["model=opt_6_7b", "xpu=h100_sxm", "inference.prompt=4000", "inference.output=9"], "at most 2048 tokens"),
        (["model=llama_3_1_405b", "xpu=rtx_4090"], "some number of rtx_4090 can train"),
        (["model=llama_3_1_8b", "xpu=h100_sxm", "tp=3"], "tp=3"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["size", *arguments], capsys)
    assert done.status == 2
    assert said in done.err
    assert done.err.count("\n") == 1
    assert done.out == ""
