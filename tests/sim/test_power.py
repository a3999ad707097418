"""Power of a step: active, compute and memory terms by hand, the peak that kernels top out at, and serving stacks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sim import InputError, catalogue
from sim.hardware.collectives import grouped_all_reduce_s
from sim.hardware.deployment import Deployment
from sim.hardware.timing import RooflineTiming, interpolate
from sim.hardware.xpu import PowerCoefficients

LLAMA, H100 = catalogue.model("llama_3_1_8b"), catalogue.xpu("h100_sxm")


def timing(tp: int = 1, **power: float | None) -> RooflineTiming:
    values: dict[str, float | None] = {"static_w": 0.0, "compute_w": 0.0, "memory_w": 0.0, **power}
    chip = replace(H100, power=PowerCoefficients(**values))  # type: ignore[arg-type]
    return RooflineTiming(Deployment(LLAMA, chip, tp))


def test_active_power_is_drawn_while_kernels_run_and_not_while_hosts_work() -> None:
    for decoding, tokens, prompts in ((8, 0, 0), (300, 0, 0), (8, 512, 2)):
        cost = timing(active_w=100.0).step(decoding, tokens, prompts)
        eff = H100.timing
        hosts_s = eff.step_overhead_s + eff.layer_overhead_s * 32 + eff.seq_overhead_s * (decoding + prompts)
        assert cost.fixed_j == pytest.approx(100.0 * (cost.fixed_s - hosts_s))
        assert cost.eps == pytest.approx(100.0 * timing().step(decoding, 0, 0).tau)
    two = timing(tp=2, active_w=100.0).step(8, 0, 0)
    hosts_s = H100.timing.step_overhead_s + H100.timing.layer_overhead_s * 32 + H100.timing.seq_overhead_s * 8
    link_s = 64 * grouped_all_reduce_s(8 * LLAMA.hidden * 2.0, 2, 2, Deployment(LLAMA, H100, 2).link, None)
    assert two.fixed_j == pytest.approx(200.0 * (two.fixed_s - hosts_s - link_s))  # collectives keep few cores busy


def test_a_kernel_draws_active_power_or_by_its_work_whichever_is_more() -> None:
    by_work, both = timing(memory_w=350.0).step(8, 0, 0), timing(memory_w=350.0, active_w=100.0).step(8, 0, 0)
    assert both.eps == by_work.eps  # reads most of the time at peak bandwidth
    starts_s = 32 * interpolate(H100.timing.attn_start, 64.0) + 8 * 32 * 13.5 * 2.0 * LLAMA.hidden / 3.35e12
    assert both.fixed_j - by_work.fixed_j == pytest.approx(100.0 * starts_s)
    lazy = timing(memory_w=35.0, active_w=100.0).step(8, 0, 0)
    assert lazy.eps == timing(active_w=100.0).step(8, 0, 0).eps


def test_steps_with_gaps_draw_more_in_their_kernels_than_a_limit_that_holds_means() -> None:
    chip = replace(H100, power=PowerCoefficients(156.0, 1170.0, 535.0, 140.0, 700.0))
    slow = replace(chip, timing=replace(chip.timing, seq_overhead_s=10e-3))  # the host takes its time
    close, gaps = (RooflineTiming(Deployment(LLAMA, each)).step(0, 2048, 16) for each in (chip, slow))
    kernels_s = close.fixed_s - 16 * chip.timing.seq_overhead_s
    assert close.fixed_j == pytest.approx(544.0 * close.fixed_s)  # topped out
    assert gaps.fixed_j > 544.0 * kernels_s
    assert gaps.fixed_j < 544.0 * gaps.fixed_s


def test_compute_and_memory_terms_count_flops_and_bytes() -> None:
    cost = timing(memory_w=335.0).step(1, 0, 0)  # 335 W at 3.35 TB/s: 100 pJ a byte
    assert cost.fixed_j == pytest.approx(1e-10 * 2.0 * (LLAMA.params - LLAMA.embedding_params), rel=1e-6)
    assert cost.eps == pytest.approx(1e-10 * 131_072)
    cost = timing(compute_w=989.0).step(64, 0, 0)  # 989 W at 989 TFLOP/s: 1 pJ a FLOP
    assert cost.fixed_j == pytest.approx(1e-12 * 2.0 * (LLAMA.params - LLAMA.embedding_params) * 64, rel=1e-3)


def test_kernels_top_out_at_peak_power_without_slowing_down() -> None:
    power = {"static_w": 175.0, "active_w": 140.0, "compute_w": 1400.0, "memory_w": 700.0}
    free, held = timing(**power), timing(**power, peak_w=700.0)
    for kind in ((1, 0, 0), (256, 0, 0), (0, 2048, 4), (64, 1024, 1)):
        before, after = free.step(*kind), held.step(*kind)
        assert not before.never_capped
        assert after.never_capped
        assert after.fixed_s == before.fixed_s
        assert after.fixed_j == pytest.approx(min(before.fixed_j, 525.0 * after.fixed_s))
    assert held.step(0, 2048, 4).fixed_j < free.step(0, 2048, 4).fixed_j
    assert held.rho_j == pytest.approx(525.0 * held.rho)
    lower = RooflineTiming(Deployment(LLAMA, replace(H100, tdp_w=400.0)))  # a lower limit still costs time
    assert not lower.step(0, 2048, 1).never_capped


def test_a_stack_replaces_overheads_of_hosts_alone() -> None:
    chip = catalogue.with_stack(H100, "mlenergy_v2")
    before = RooflineTiming(Deployment(LLAMA, H100, 4)).step(100, 0, 0)
    after = RooflineTiming(Deployment(LLAMA, chip, 4)).step(100, 0, 0)
    own, stack = H100.timing, chip.timing
    extra = stack.step_overhead_s - own.step_overhead_s + 3 * stack.peer_overhead_s
    extra += 32 * (stack.layer_overhead_s - own.layer_overhead_s) + 100 * (stack.seq_overhead_s - own.seq_overhead_s)
    assert after.fixed_s - before.fixed_s == pytest.approx(extra)
    assert after.fixed_j == pytest.approx(before.fixed_j)
    assert chip.provenance["timing.seq_overhead_s"][2] == "derived"
    assert catalogue.with_stack(H100, "vllm_v1").timing == own


def test_power_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="peak_w"):
        PowerCoefficients(100.0, 1.0, 1.0, 0.0, 90.0)
    with pytest.raises(InputError, match="active_w"):
        PowerCoefficients(100.0, 1.0, 1.0, -1.0)
    with pytest.raises(InputError, match="stack"):
        catalogue.with_stack(H100, "no_such_stack")


def test_data_centre_gpus_keep_to_their_limit_at_full_speed() -> None:
    for name in ("a100_sxm_40gb", "a100_sxm_80gb", "h100_sxm", "h200_sxm", "b200_sxm", "l40s", "rtx_4090"):
        model = RooflineTiming(Deployment(LLAMA, catalogue.xpu(name)))
        assert all(model.step(*kind).never_capped for kind in ((1, 0, 0), (128, 0, 0), (0, 2048, 1), (64, 512, 1)))
