"""Training: arithmetic, memory by part, adapters, and the footprint of a run, against published numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.accounting.training_run import embodied_per_xpu_hour, run_footprint
from sim.errors import InputError
from sim.hardware import catalogue
from sim.hardware.lora import TARGETS, Lora, target_shapes
from sim.hardware.training import (
    Layout,
    TrainingState,
    activation_bytes,
    fewest_xpus,
    training_flops,
    training_memory,
    training_seconds,
    xpus_for_deadline,
)

A100, H100 = catalogue.xpu("a100_sxm_80gb"), catalogue.xpu("h100_sxm")
LLAMA_65B, LLAMA_8B = catalogue.model("llama_65b"), catalogue.model("llama_3_1_8b")


def test_llama_65b_takes_21_days_on_2048_a100_at_47_percent() -> None:
    flops = training_flops(LLAMA_65B, 1.4e12, 2048, attention=False)
    assert flops == pytest.approx(6 * 65.2e9 * 1.4e12, rel=0.002)
    days = training_seconds(flops, 2048, A100.flops("bf16"), 0.47) / 86400
    assert days == pytest.approx(21.0, abs=0.2)
    assert xpus_for_deadline(flops, days * 86400, A100.flops("bf16"), 0.47) in (2048, 2049)


def test_attention_is_counted_pair_by_pair() -> None:
    tokens, sequence = 3.0 * 64, 64
    pairs = sum(position for position in range(1, sequence + 1)) * 3
    by_hand = 6 * LLAMA_8B.params * tokens + 3 * 4 * LLAMA_8B.layers * LLAMA_8B.hidden * pairs
    assert training_flops(LLAMA_8B, tokens, sequence) == pytest.approx(by_hand, rel=1e-12)


def test_windowed_layers_attend_to_their_window_alone() -> None:
    model, sequence = catalogue.model("gemma_2_9b"), 10_000
    windowed = sum(min(position, model.window) for position in range(1, sequence + 1))
    full = sequence * (sequence + 1) / 2
    each = 4 * model.heads * model.head_dim
    by_hand = each * (model.window_layers * windowed + (model.layers - model.window_layers) * full)
    attention = training_flops(model, sequence, sequence) - training_flops(model, sequence, sequence, attention=False)
    assert attention == pytest.approx(3 * by_hand, rel=1e-12)


def test_adapters_save_the_gradients_of_weights() -> None:
    lora = Lora(16, TARGETS)
    full, adapters = (training_flops(LLAMA_8B, 1e9, 1, attention=False, lora=each) for each in (None, lora))
    assert full == pytest.approx(6e9 * LLAMA_8B.params)
    assert adapters == pytest.approx(4e9 * LLAMA_8B.params + 6e9 * lora.params(LLAMA_8B))


def test_adapters_have_the_parameters_that_their_library_counts() -> None:
    assert Lora(16, TARGETS).params(LLAMA_8B) == 41_943_040
    assert Lora(8, ("q", "v")).params(LLAMA_8B) == 3_407_872


@pytest.mark.parametrize(
    ("name", "inner"),
    [
        ("llama_2_7b", 11008),
        ("mistral_7b", 14336),
        ("qwen2_5_7b", 18944),
        ("llama_3_1_70b", 28672),
        ("llama_65b", 22016),
    ],
)
def test_width_of_feed_forward_layers_follows_from_the_parameters(name: str, inner: int) -> None:
    model = catalogue.model(name)
    assert target_shapes(model)["gate"] == (model.hidden, inner)


def test_activations_of_gpt_3_by_the_formulas_of_their_paper() -> None:
    model = catalogue.model("gpt_3_175b")  # a s / h = 16, so that a layer keeps s b h (34 + 80)
    sbh, extra = 2048 * 12288, 1 + 4 * (1 + 50257 / 12288)
    for kept, layers in (("none", 114 * 96), ("selective", 34 * 96), ("full", 2 * 96 + 34)):
        layout = Layout(tp=8, sequence=2048, recomputation=kept)
        assert activation_bytes(model, layout) == pytest.approx(sbh * (layers + extra), rel=1e-12)
    twice = Layout(micro_batch=2, sequence=2048)
    assert activation_bytes(model, twice) == 2 * activation_bytes(model, Layout(sequence=2048))


def test_states_take_16_bytes_a_parameter_and_zero_shards_them() -> None:
    per_xpu = {}
    for stage in (0, 1, 2, 3):
        layout = Layout(zero=stage, sequence=1024)
        memory = training_memory(LLAMA_8B, layout, 64)
        assert memory.weights + memory.gradients + memory.optimizer == 16 * LLAMA_8B.params
        per_xpu[stage] = (memory.per_xpu - memory.activations) / LLAMA_8B.params
    assert per_xpu == pytest.approx({0: 16, 1: 4 + 12 / 64, 2: 2 + 14 / 64, 3: 16 / 64})


def test_frozen_weights_have_neither_gradients_nor_optimizer() -> None:
    lora = Lora(16, TARGETS)
    memory = training_memory(LLAMA_8B, Layout(), 1, lora=lora, base_precision="int4")
    assert memory.weights == pytest.approx(0.5 * LLAMA_8B.params + 2 * lora.params(LLAMA_8B))
    assert memory.gradients + memory.optimizer == 14 * lora.params(LLAMA_8B)


@given(
    tp=st.sampled_from([1, 2, 4, 8]),
    zero=st.sampled_from([1, 2, 3]),
    sequence=st.sampled_from([512, 2048, 8192]),
    kept=st.sampled_from(["none", "selective", "full"]),
)
def test_fewest_xpus_fit_and_one_group_less_does_not(tp: int, zero: int, sequence: int, kept: str) -> None:
    layout = Layout(tp, zero, 1, sequence, kept)
    room = 0.9 * H100.memory_bytes - H100.memory_reserved_bytes
    try:
        count = fewest_xpus(LLAMA_8B, H100, layout)
    except InputError:
        assert training_memory(LLAMA_8B, layout, 1 << 20).per_xpu > room
        return
    assert count % tp == 0
    assert training_memory(LLAMA_8B, layout, count).per_xpu <= room
    if count > tp:
        assert training_memory(LLAMA_8B, layout, count - tp).per_xpu > room


@pytest.mark.parametrize(
    ("hours", "watts", "pue", "intensity", "mwh", "tonnes"),
    [
        (1_022_362, 400, 1.1, 385, 449, 173),
        (3.14e23 / 24.6e12 / 3600, 330, 1.10, 429, 1287, 552),
        (1_082_990, 400, 1.0, 57, 433.196, 24.7),
    ],
)
def test_footprints_of_published_runs(
    hours: float, watts: float, pue: float, intensity: float, mwh: float, tonnes: float
) -> None:
    run = run_footprint(hours, watts, pue, intensity)
    assert run.energy_kwh / 1e3 == pytest.approx(mwh, rel=0.005)
    assert run.operational_g / 1e6 == pytest.approx(tonnes, rel=0.005)
    assert run.total_g is None  # idle and embodied are not known, which is not zero


def test_bloom_with_what_stood_by_and_what_was_made() -> None:
    embodied = embodied_per_xpu_hour(150, 2500, 8, 6, 0.85)
    run = run_footprint(1_082_990, 400, 1.0, 57, 256_646, embodied)
    assert run.embodied_g is not None
    assert run.embodied_g / 1e6 == pytest.approx(11.2, abs=0.05)
    assert run.total_g is not None
    assert run.total_g / 1e6 == pytest.approx(50.5, abs=0.1)


@pytest.mark.parametrize(
    ("call", "key"),
    [
        (lambda: training_seconds(1e20, 8, 1e15, 1.2), "mfu"),
        (lambda: training_seconds(1e20, 8, 1e15, 0.0), "mfu"),
        (lambda: training_flops(LLAMA_8B, 0.0, 1), "tokens"),
        (lambda: Layout(zero=4), "zero"),
        (lambda: Layout(recomputation="some"), "recomputation"),
        (lambda: Lora(0), "rank"),
        (lambda: Lora(8, ("q", "z")), "targets"),
        (lambda: Lora(8, ("q", "q")), "targets"),
        (lambda: Lora(8, ("gate",)).params(catalogue.model("mixtral_8x7b")), "targets"),
        (lambda: Lora(5000, ("q",)).params(LLAMA_8B), "rank"),
        (lambda: fewest_xpus(catalogue.model("llama_3_1_70b"), H100, Layout(sequence=8192)), "model"),
        (lambda: fewest_xpus(LLAMA_8B, H100, Layout(zero=0)), "model"),
        (lambda: run_footprint(1.0, 400, 0.9, 100), "pue"),
        (lambda: embodied_per_xpu_hour(150, 2500, 8, 0, 0.85), "lifetime_years"),
        (lambda: TrainingState(optimizer_bytes=-1.0), "optimizer_bytes"),
        (lambda: xpus_for_deadline(1e20, 0.0, 1e15, 0.4), "days"),
    ],
)
def test_bad_input_is_named(call: object, key: str) -> None:
    with pytest.raises(InputError) as caught:
        call()  # type: ignore[operator]
    assert caught.value.key == key


def test_more_reserved_memory_takes_more_xpus() -> None:
    full = replace(H100, memory_reserved_bytes=40e9)
    assert fewest_xpus(LLAMA_8B, full, Layout()) > fewest_xpus(LLAMA_8B, H100, Layout())
