"""`hybridfleet validate training=`: published training runs from their own inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sim.hardware import catalogue
from tests.scenarios.command import run

OWN = """\
name: Mine
model: llama_3_1_8b
xpu: h100_sxm
precision: bf16
params: {value: 8.0e9, unit: parameters, source: me, kind: assumed}
tokens: {value: 1.0e12, unit: tokens, source: me, kind: assumed}
xpu_hours: {value: 100000, unit: h, source: me, kind: assumed}
power_w: {value: 700, unit: W, source: me, kind: assumed}
pue: {value: PUE, unit: ratio, source: me, kind: assumed}
intensity: {value: 100, unit: g/kWh, source: me, kind: assumed}
published:
  energy_kwh: {value: 100000, unit: kWh, source: me, kind: assumed}
"""


def test_published_runs_are_met_within_a_tenth(capsys: pytest.CaptureFixture[str]) -> None:
    done = run(["validate", "training=all", "--json"], capsys)
    assert done.status == 0
    runs = {each["id"]: each for each in json.loads(done.out)["runs"]}
    assert set(runs) == set(catalogue.list_entries("training"))
    for name, keys in {
        "llama_65b": {"days", "energy_kwh", "operational_kg"},
        "gpt_3": {"flops", "energy_kwh", "operational_kg"},
        "bloom_176b": {"days", "energy_kwh", "operational_kg", "total_kg"},
    }.items():
        compared = {key: pair for key, pair in runs[name].items() if isinstance(pair, dict)}
        assert set(compared) == keys
        assert all(abs(pair["error"]) < 0.10 for pair in compared.values())
    assert runs["llama_65b"]["mfu"] == pytest.approx(0.47, abs=0.01)
    # not stated, so not compared
    assert "operational_kg" not in runs["llama_3_1_405b"]
    assert runs["llama_3_1_405b"]["implied_pue_x_g_per_kwh"] == pytest.approx(414, abs=2)


def test_a_run_of_ones_own_that_is_off_is_said_to_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "mine.yaml").write_text(OWN.replace("PUE", "1.0"))
    done = run(["validate", "training=mine", "--config-dir", str(tmp_path)], capsys)
    assert done.status == 0
    assert "Mine: energy [MWh] is -30.0 % off." in done.out


def test_bad_runs_are_refused_on_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "mine.yaml").write_text(OWN.replace("PUE", "0.5"))
    for argument, said in (("mine", "pue=0.5"), ("nowhere", "training='nowhere'")):
        done = run(["validate", f"training={argument}", "--config-dir", str(tmp_path)], capsys)
        assert done.status == 2
        assert said in done.err
        assert done.err.count("\n") == 1
