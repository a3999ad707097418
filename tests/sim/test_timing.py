"""Step costs have the right units, floors and limits: weights bind small batches, compute large ones, the TDP all."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim import InputError, catalogue
from sim.accounting.signal import Constant
from sim.hardware.deployment import Deployment
from sim.hardware.model import Model
from sim.hardware.timing import RooflineTiming, StepCost
from sim.hardware.xpu import XPU, TimingCoefficients
from sim.request import Request
from sim.serving.costs import Shared
from sim.serving.engine import Engine
from sim.serving.sequence import Sequence
from tests.sim.conftest import MODEL, WINDOWED, xpu

LLAMA, H100 = catalogue.model("llama_3_1_8b"), catalogue.xpu("h100_sxm")
MIXTRAL = catalogue.model("mixtral_8x7b")
#: Energy by FLOP and byte alone; see test_power.py for the rest.
BY_WORK = replace(H100, power=replace(H100.power, active_w=0.0, peak_w=None))


def ideal(chip: XPU, **changes: float) -> XPU:
    """The chip at its peak rates, without overheads and with flat curves."""
    timing = chip.timing
    flat = {"compute_eff": 1.0, "weight_eff": 1.0, "kv_eff": 1.0, "attn_eff": 1.0}
    none = {"step_overhead_s": 0.0, "layer_overhead_s": 0.0, "seq_overhead_s": 0.0}
    link = {"link_bytes_per_s": timing.link_bytes_per_s, "link_latency_s": timing.link_latency_s}
    return replace(chip, timing=TimingCoefficients(**flat | none | link | changes))


def timing(model: Model = MODEL, chip: XPU | None = None, **deployment: object) -> RooflineTiming:
    return RooflineTiming(Deployment(model, chip or xpu(), **deployment))


def decode(of: RooflineTiming, n: int, context: float) -> tuple[float, float]:
    """Seconds and dynamic joules of a decode step over n sequences of equal context, before the power limit."""
    cost = of.step(n, 0, 0)
    return cost.fixed_s + cost.tau * n * context, cost.fixed_j + cost.eps * n * context


def test_the_floor_of_an_8b_model_on_an_h100() -> None:
    # 16.06 GB of weights less the 1.05 GB embedding table, over 3.35 TB/s; a known bound is 4.8 ms with the table
    cost = timing(LLAMA, ideal(H100)).step(1, 0, 0)
    streamed = (LLAMA.params - LLAMA.embedding_params) * 2.0
    assert cost.fixed_s == pytest.approx(streamed / 3.35e12, rel=1e-12)
    assert LLAMA.params * 2.0 / 3.35e12 == pytest.approx(4.8e-3, rel=5e-3)
    assert 4.4e-3 < cost.fixed_s < 4.8e-3
    assert cost.tau == pytest.approx(131_072 / 3.35e12, rel=1e-12)  # KV bytes of a token of Llama-3-8B in BF16


def test_large_batches_are_bound_by_compute() -> None:
    chip = ideal(H100)
    small, large = (timing(LLAMA, chip).step(0, tokens, 1).fixed_s for tokens in (1, 8192))
    head = 128_256 * 4096
    dense = LLAMA.params_active - LLAMA.embedding_params - head
    assert large == pytest.approx(2 * dense * 8192 / 989e12 + 2 * head / 3.35e12, rel=1e-9)  # the head serves one token
    assert small == timing(LLAMA, chip).step(0, 2, 1).fixed_s  # weights bind: another token is free
    ridge = timing(LLAMA, chip)
    times = [ridge.step(0, tokens, 1).fixed_s for tokens in range(1, 800)]
    assert times[0] == times[200]
    assert times[400] < times[700]


def test_overheads_and_efficiencies_enter_where_they_belong() -> None:
    base = timing(LLAMA, ideal(BY_WORK)).step(4, 0, 0)
    slower = {
        "weight_eff": (base.fixed_s * 2, base.tau),
        "kv_eff": (base.fixed_s, base.tau * 2),
        "compute_eff": (base.fixed_s, base.tau),
        "attn_eff": (base.fixed_s, base.tau),
    }
    for key, (fixed_s, tau) in slower.items():
        cost = timing(LLAMA, ideal(BY_WORK, **{key: 0.5})).step(4, 0, 0)
        assert (cost.fixed_s, cost.tau) == pytest.approx((fixed_s, tau), rel=1e-12), key
        assert (cost.fixed_j, cost.eps) == (base.fixed_j, base.eps), key  # energy is per operation, not per second
    assert timing(LLAMA, ideal(BY_WORK, attn_eff=0.5)).rho == 2 * timing(LLAMA, ideal(BY_WORK)).rho
    for key, times in {"step_overhead_s": 1, "layer_overhead_s": 32, "seq_overhead_s": 4}.items():
        cost = timing(LLAMA, ideal(BY_WORK, **{key: 1e-3})).step(4, 0, 0)
        assert cost.fixed_s == pytest.approx(base.fixed_s + times * 1e-3, rel=1e-12), key


KINDS = st.tuples(st.integers(0, 64), st.integers(0, 64), st.integers(0, 8))


@settings(max_examples=200, deadline=None)
@given(KINDS, st.integers(0, 40), st.integers(0, 64), st.sampled_from([MODEL, WINDOWED, LLAMA, MIXTRAL]))
def test_more_work_is_never_faster_and_never_cheaper(
    kind: tuple[int, int, int], more_decoding: int, more_prefill: int, model: Model
) -> None:
    n, tokens, prompts = kind
    tokens = max(tokens, prompts)
    prompts = max(prompts, bool(tokens))
    if not n + tokens:
        n = 1
    of = timing(model, H100)
    less = of.step(n, tokens, prompts)
    more = of.step(n + more_decoding, tokens + more_prefill if prompts else 0, prompts)
    assert more.fixed_s >= less.fixed_s
    assert more.fixed_j >= less.fixed_j
    assert min(less.fixed_s, less.fixed_j, less.tau, less.eps) >= 0.0
    assert 0.0 <= less.alpha <= 1.0


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm_80gb", "b200_sxm", "l4", "jetson_agx_orin_64gb", "rtx_4090"])
def test_catalogue_chips_stay_within_their_power(name: str) -> None:
    chip = catalogue.xpu(name)
    precision = "bf16" if "bf16" in chip.peak_flops else "fp16"
    small = catalogue.model("llama_3_2_1b")
    of = timing(small, chip, precision=precision)
    for n, tokens, context in itertools.product((1, 16, 128), (0, 512), (100, 8000)):
        watts = power_of_engine(of, n, tokens, context)
        assert chip.idle_w <= watts <= chip.tdp_w * (1 + 1e-9), (n, tokens, context)


def power_of_engine(of: RooflineTiming, n: int, tokens: int, context: int) -> float:
    """Mean power of a replica that serves n requests at once, as its engine meters it [W]."""
    env = Environment()
    engine = Engine(env, of, 10**6, 16, 256, max(256, n + tokens), Constant(0.0))
    for number in range(n):
        engine.submit(Sequence(Request(number, 0.0, context, 4), 0.0, lambda seq: None), 0.0)
    if tokens:
        engine.submit(Sequence(Request(n, 0.0, tokens, 1), 0.0, lambda seq: None), 0.0)
    env.run()
    return of.static_w + engine.busy.imag / engine.busy.real


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 40), st.integers(1, 200), st.floats(81.0, 400.0), st.sampled_from([MODEL, WINDOWED]))
def test_power_never_exceeds_any_limit(n: int, context: int, tdp_w: float, model: Model) -> None:
    of = timing(model, xpu(tdp_w=tdp_w))
    assert power_of_engine(of, n, 30, context) <= tdp_w * (1 + 1e-9)


def test_padding_is_computed_and_limited_like_any_work() -> None:
    # 16 tokens are bound by weights and stay below the limit; the 4,096 that run in their place would not
    of = timing(chip=xpu(power={"compute_w": 500.0}))
    assert of.step(0, 16, 1).never_capped
    env = Environment()
    engine = Engine(env, of, 100, 16, 8, 16, Constant(0.0), shared=Shared(of, (4096,)))
    engine.submit(Sequence(Request(0, 0.0, 16, 1), 0.0, lambda seq: None), 0.0)
    env.run()
    padded = of.step(0, 4096, 1)
    assert engine.busy.imag == pytest.approx(padded.fixed_j + of.rho_j * 136, rel=1e-12)
    assert engine.busy.imag / engine.busy.real == pytest.approx(of.headroom_w, rel=1e-12)


def test_a_step_slows_down_without_a_jump_as_the_limit_falls() -> None:
    def span_s(tdp_w: float) -> float:
        env = Environment()
        engine = Engine(env, timing(chip=xpu(tdp_w=tdp_w)), 10**5, 16, 64, 64, Constant(0.0))
        engine.submit(Sequence(Request(0, 0.0, 40, 20), 0.0, lambda seq: None), 0.0)
        env.run()
        return engine.end_s

    limits = [90.0 + 0.25 * i for i in range(600)]
    times = [span_s(limit) for limit in limits]
    assert all(after <= before for before, after in itertools.pairwise(times))
    assert times[0] > 2 * times[-1]
    assert times[-1] == span_s(300.0)  # not limited any more
    # 21 steps of E joules take E / (limit - static) at most: the derivative bounds every jump
    for (low, slow), (high, fast) in itertools.pairwise(zip(limits, times)):
        assert slow - fast <= slow * (high - low) / (low - 80.0) + 1e-12


def test_energy_is_what_power_coefficients_say() -> None:
    # at peak rates and bound by bandwidth: static + memory power, plus compute power times the share of peak
    chip = replace(ideal(BY_WORK), tdp_w=5000.0)
    of = timing(LLAMA, chip)
    seconds, joules = decode(of, 1, 0.0)
    flops = LLAMA.gemm_flops_per_token()
    mfu = flops / (989e12 * seconds)
    assert joules / seconds == pytest.approx(chip.power.memory_w + chip.power.compute_w * mfu, rel=1e-12)
    big_s = of.step(0, 65_536, 1).fixed_s
    watts = of.step(0, 65_536, 1).fixed_j / big_s
    assert watts == pytest.approx(chip.power.compute_w, rel=0.02)  # compute binds; weights are read once


def test_tensor_parallelism_speeds_up_and_pays_for_it() -> None:
    one, two, four = (timing(LLAMA, BY_WORK, tp=tp) for tp in (1, 2, 4))
    for n, context in ((1, 1000), (64, 2000)):
        times = [decode(of, n, context)[0] for of in (one, two, four)]
        assert times[0] > times[1] > times[2]
        assert times[0] < 4 * times[2]  # collectives and overheads stay
    assert four.static_w == 4 * one.static_w
    assert four.idle_w == 4 * one.idle_w
    assert four.headroom_w == 4 * one.headroom_w
    assert decode(four, 1, 1000)[1] == pytest.approx(decode(one, 1, 1000)[1], rel=1e-9)  # the same bytes and FLOP
    assert four.step(0, 2048, 1).fixed_s < one.step(0, 2048, 1).fixed_s
    assert four.rho == one.rho / 4


def test_collectives_cost_latency_and_bytes() -> None:
    lone, pair = timing(chip=ideal(xpu())), timing(chip=ideal(xpu()), tp=2)
    weights_s = (1e6 - 64_000) * 2.0 / 5e8
    assert lone.step(8, 0, 0).fixed_s == pytest.approx(weights_s, rel=1e-12)
    ring_s = 2 * 4 * (1e-5 + 2 * (1 / 2) * 8 * 64 * 2.0 / 1e8)
    assert pair.step(8, 0, 0).fixed_s == pytest.approx(weights_s / 2 + ring_s, rel=1e-12)
    with pytest.raises(InputError, match="no link to a peer"):
        timing(chip=xpu(timing={"link_bytes_per_s": None}), tp=2).step(1, 0, 0)


def test_kv_heads_are_replicated_beyond_their_number() -> None:
    assert timing(tp=2).step(1, 0, 0).tau == timing().step(1, 0, 0).tau / 2
    assert timing(tp=4).step(1, 0, 0).tau == timing().step(1, 0, 0).tau / 2  # two KV heads on four chips
    deepseek = catalogue.model("deepseek_v2_lite")
    one, two = (Deployment(deepseek, H100, tp=tp).kv_bytes_per_token_and_xpu for tp in (1, 2))
    assert one == two  # every chip keeps the whole latent


def test_quantized_weights_decode_faster() -> None:
    bf16, fp8, int4 = (timing(LLAMA, H100, precision=name) for name in ("bf16", "fp8", "int4"))
    assert decode(bf16, 1, 500)[0] > decode(fp8, 1, 500)[0] > decode(int4, 1, 500)[0]
    assert decode(bf16, 1, 500)[1] > decode(fp8, 1, 500)[1] > decode(int4, 1, 500)[1]
    assert fp8.step(0, 8192, 1).fixed_s < bf16.step(0, 8192, 1).fixed_s  # computed in FP8
    assert int4.step(0, 8192, 1).fixed_s == pytest.approx(bf16.step(0, 8192, 1).fixed_s, rel=1e-9)  # only stored so
    assert fp8.rho == bf16.rho  # attention stays in 16 bit
    small_kv = timing(LLAMA, H100, kv_precision="fp8")
    assert small_kv.step(1, 0, 0).tau == bf16.step(1, 0, 0).tau / 2
    with pytest.raises(InputError, match=r"precision on xpu t4='bf16'"):
        timing(LLAMA, catalogue.xpu("t4"), precision="bf16")


def test_a_mixture_of_experts_reads_the_experts_it_visits() -> None:
    of = timing(MIXTRAL, ideal(H100))
    seconds = [of.step(n, 0, 0).fixed_s for n in (1, 2, 8, 64)]
    assert seconds == sorted(seconds)
    visited = 8 * (1 - (1 - 2 / 8) ** 2)  # by two tokens that pick 2 of 8 each
    read = MIXTRAL.params - MIXTRAL.embedding_params - MIXTRAL.moe_layers * MIXTRAL.expert_params * (8 - visited)
    assert seconds[1] == pytest.approx(read * 2.0 / 3.35e12, rel=1e-9)
    all_of_it = (MIXTRAL.params - MIXTRAL.embedding_params) * 2.0 / 3.35e12
    assert seconds[3] == pytest.approx(all_of_it, rel=1e-6)
    assert seconds[0] < 0.35 * seconds[3]


def test_windowed_layers_read_and_compute_their_share() -> None:
    full, half = timing(MODEL), timing(WINDOWED)
    a, b = full.step(3, 0, 0), half.step(3, 0, 0)
    assert (full.window, half.window) == (0, 24)
    assert a.tau_w == a.eps_w == full.rho_w == full.rho_w_j == 0.0
    assert (b.tau + b.tau_w, b.eps + b.eps_w) == pytest.approx((a.tau, a.eps), rel=1e-12)
    assert b.tau == pytest.approx(b.tau_w, rel=1e-12)  # two of four layers
    assert half.rho + half.rho_w == pytest.approx(full.rho, rel=1e-12)


def test_skew_is_linear_between_its_knots() -> None:
    knots = ((2.0, 0.1), (4.0, 0.3), (8.0, 0.2))  # over the KV heads of all sequences; the toy has two
    of = timing(chip=xpu(skew=knots))
    assert [of.step(n, 0, 0).alpha for n in (1, 2, 3, 4, 100)] == pytest.approx([0.1, 0.3, 0.25, 0.2, 0.2])
    assert of.skewed
    assert not timing().skewed
    assert timing().step(5, 0, 0).alpha == 0.0
    mixed = timing(chip=xpu(timing={"skew_mixed": ((4.0, 0.5), (8.0, 0.7))}))  # over query heads; the toy has four
    assert [mixed.step(n, 8, 1).alpha for n in (1, 2, 3)] == pytest.approx([0.5, 0.7, 0.7])
    assert mixed.step(1, 0, 0).alpha == 0.0


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 50), st.integers(0, 40), st.integers(0, 400), st.floats(85.0, 400.0))
def test_a_step_that_says_it_is_never_capped_is_not(n: int, tokens: int, context: int, tdp_w: float) -> None:
    of = timing(chip=xpu(tdp_w=tdp_w))
    cost: StepCost = of.step(n, tokens, int(tokens > 0))
    pairs = tokens * (tokens + 1) / 2 + tokens * context
    seconds = cost.fixed_s + cost.tau * n * context + of.rho * pairs
    joules = cost.fixed_j + cost.eps * n * context + of.rho_j * pairs
    if cost.never_capped:
        assert joules <= of.headroom_w * seconds * (1 + 1e-12)


def with_timing(chip: XPU, **changes: object) -> XPU:
    return replace(chip, timing=replace(chip.timing, **changes))


def test_tokens_come_in_whole_tiles_where_arithmetic_binds() -> None:
    chip = ideal(BY_WORK)
    plain, tiled = timing(LLAMA, chip), timing(LLAMA, with_timing(chip, gemm_tile=128))
    assert tiled.step(0, 1024, 1).fixed_s == pytest.approx(plain.step(0, 1024, 1).fixed_s, rel=0.02)
    dense_s = LLAMA.gemm_flops_per_token() - 2.0 * LLAMA.head_params
    jump = tiled.step(0, 1025, 1).fixed_s - tiled.step(0, 1024, 1).fixed_s
    elementwise = chip.timing.activation_passes * 2.0 * LLAMA.hidden * LLAMA.layers / 3.35e12
    pad = chip.timing.attn_pad * tiled.rho
    assert jump == pytest.approx(128 * dense_s / 989e12 + elementwise + pad, rel=1e-9)
    assert tiled.step(0, 1025, 1).fixed_j < tiled.step(0, 1152, 1).fixed_j  # a tile's padding computes nothing


def test_curves_scale_efficiencies_by_the_tokens_of_a_step() -> None:
    chip = ideal(H100)
    slow = timing(LLAMA, with_timing(chip, weight_curve=((1.0, 1.0), (65.0, 0.5))))
    base = timing(LLAMA, chip)
    head_s = LLAMA.head_params * 2.0 / 3.35e12
    for n, share in ((1, 1.0), (33, 0.75), (65, 0.5), (130, 0.5)):
        # the head's rows are sequences, as many as tokens in a decode step
        extra = (base.step(n, 0, 0).fixed_s - base.step(1, 0, 0).fixed_s) if n > 1 else 0.0
        expected = base.step(1, 0, 0).fixed_s + extra + (weights_s(LLAMA) + head_s) * (1.0 / share - 1.0)
        assert slow.step(n, 0, 0).fixed_s == pytest.approx(expected, rel=1e-9), n


def weights_s(model: Model) -> float:
    """Time to stream all but the embedding table and the head on an ideal H100 [s]."""
    return (model.params - model.embedding_params - model.head_params) * 2.0 / 3.35e12


def test_attention_starts_by_the_heads_of_the_batch() -> None:
    knots = ((8.0, 1e-5), (64.0, 2e-5))  # KV heads on one xPU, over all sequences
    chip = with_timing(ideal(H100), attn_start=knots)
    bare = timing(LLAMA, with_timing(ideal(H100), attn_start=()))
    of = timing(LLAMA, chip)
    for n, start in ((1, 1e-5), (8, 2e-5), (100, 2e-5)):
        assert of.step(n, 0, 0).fixed_s - bare.step(n, 0, 0).fixed_s == pytest.approx(32 * start, rel=1e-6), n
    two = timing(LLAMA, chip, tp=2)  # half of the heads on each
    assert two.step(16, 0, 0).fixed_s - timing(LLAMA, with_timing(chip, attn_start=()), tp=2).step(
        16, 0, 0
    ).fixed_s == pytest.approx(32 * 2e-5, rel=1e-6)


def test_a_decoding_query_takes_a_tile_beside_prefill() -> None:
    chip = with_timing(ideal(H100), attn_tile=64.0, attn_pad=100.0, idle_tile_s=1e-9)
    plain = with_timing(ideal(H100), attn_tile=1.0, attn_pad=0.0, idle_tile_s=0.0)
    of, base = timing(LLAMA, chip), timing(LLAMA, plain)
    assert of.step(8, 0, 0) == base.step(8, 0, 0)  # nothing of it without prefill
    mixed = of.step(8, 512, 1)
    assert mixed.tau == max(base.step(8, 512, 1).tau, 64.0 * of.rho)
    rows = 512 + 8 * 64
    idle_s = 32 * 8 * 32 * 512 / 64 * 1e-9  # layers, sequences, heads, tiles of the chunk
    expected = base.step(8, 512, 1).fixed_s + rows * 100.0 * of.rho + idle_s
    assert mixed.fixed_s == pytest.approx(expected, rel=1e-9)


def test_narrow_formats_and_experts_have_speeds_of_their_own() -> None:
    slow = with_timing(ideal(H100), narrow_eff=0.5)
    many = 65_536
    fast_s, slow_s = (timing(LLAMA, chip, precision="fp8").step(0, many, 1).fixed_s for chip in (ideal(H100), slow))
    dense_s = (LLAMA.gemm_flops_per_token() - 2.0 * LLAMA.head_params) * many / 1978e12
    assert slow_s - fast_s == pytest.approx(dense_s, rel=1e-9)
    assert timing(LLAMA, slow).step(0, many, 1) == timing(LLAMA, ideal(H100)).step(0, many, 1)
    base = timing(MIXTRAL, ideal(H100)).step(4, 0, 0).fixed_s
    routed = timing(MIXTRAL, with_timing(ideal(H100), moe_overhead_s=1e-4)).step(4, 0, 0).fixed_s
    assert routed - base == pytest.approx(MIXTRAL.moe_layers * 1e-4, rel=1e-9)
    assert timing(MIXTRAL, with_timing(ideal(H100), moe_eff=0.5)).step(4, 0, 0).fixed_s > 1.5 * base


def test_sorting_costs_by_the_vocabulary() -> None:
    chip = with_timing(ideal(H100), sort_s=1e-10)
    plain, sorting = (timing(LLAMA, chip, sorted_sampling=flag) for flag in (False, True))
    extra = sorting.step(16, 0, 0).fixed_s - plain.step(16, 0, 0).fixed_s
    assert extra == pytest.approx(16 * LLAMA.vocab * 1e-10, rel=1e-9)


def test_penalties_take_a_step_and_what_was_generated() -> None:
    chip = with_timing(ideal(BY_WORK), penalty_step_s=3e-4, penalty_token_s=4e-8)
    plain, penal = (timing(LLAMA, chip, penalized_sampling=flag).step(16, 0, 0) for flag in (False, True))
    assert penal.fixed_s - plain.fixed_s == pytest.approx(3e-4, rel=1e-9)
    assert (plain.omega, penal.omega) == (0.0, 4e-8)
    assert penal.fixed_j == plain.fixed_j  # the host takes it


def test_an_all_reduce_takes_one_shot_or_two() -> None:
    chip = with_timing(ideal(H100), link_bytes_per_s=1e11, link_latency_s=1e-5)
    four, lone = timing(LLAMA, chip, tp=4), with_timing(chip, link_bytes_per_s=1e30, link_latency_s=0.0)
    bare = timing(LLAMA, lone, tp=4)

    def reduce_s(tokens: int) -> float:
        return (four.step(0, tokens, 1).fixed_s - bare.step(0, tokens, 1).fixed_s) / (2 * LLAMA.layers)

    small, large = 1 * 8192.0, 4096 * 8192.0
    assert reduce_s(1) == pytest.approx(1e-5 + 3 * small / 1e11, rel=1e-6)
    assert reduce_s(4096) == pytest.approx(2e-5 + 1.5 * large / 1e11, rel=1e-6)


@pytest.mark.parametrize("name", catalogue.list_entries("xpu"))
def test_steps_of_catalogue_chips_grow_with_their_tokens(name: str) -> None:
    chip = catalogue.xpu(name)
    of = timing(LLAMA, chip, precision="bf16" if "bf16" in chip.peak_flops else "fp16")
    decodes = [of.step(n, 0, 0).fixed_s for n in range(1, 300)]
    prefills = [of.step(0, tokens, 1).fixed_s for tokens in range(1, 4100)]
    for times in (decodes, prefills):
        assert all(later >= sooner for sooner, later in itertools.pairwise(times))
