"""Power caps and clock limits: the law by hand, parts of steps at their own clocks, and which way they move joules."""

from __future__ import annotations

from dataclasses import replace

import pytest
from simpy import Environment

from sim import Constant, Fleet, InputError, Site, catalogue
from sim.fleet.spec import Pool
from sim.hardware.clock import STEPS, ClockedTiming, Governor
from sim.hardware.clock_law import ClockLaw
from sim.hardware.deployment import Deployment
from sim.hardware.encoder import encode_image, encoder
from sim.hardware.pipeline import timing_of
from sim.hardware.timing import RooflineTiming, StepTiming
from sim.hardware.xpu import PowerCoefficients
from sim.request import Request, Traits
from sim.serving.engine import Engine
from tests.oracles.reference_engine import Job, ReferenceEngine
from tests.sim.conftest import simulate
from tests.sim.test_engine_exact import drive

LLAMA, H100 = catalogue.model("llama_3_1_8b"), catalogue.xpu("h100_sxm")
LAW = catalogue.clock_law()
CUBIC = ClockLaw(3.0, 0.1, {"HBM3": 0.0})  # an operation takes clock^2
DECODE, PREFILL = (16, 0, 0), (0, 2048, 1)


def timing(cap_w: float | None = None, limit: float = 1.0, law: ClockLaw = LAW, xpu=H100, **parts) -> StepTiming:
    return timing_of(Deployment(LLAMA, xpu, power_cap_w=cap_w, clock_limit=limit, clock_law=law, **parts))


def drawn(of: StepTiming, kind: tuple[int, int, int], context: float = 0.0) -> complex:
    """Seconds and joules of a step as the engine has it, static power included."""
    cost = of.step(*kind)
    seconds, dynamic_j = cost.fixed_s + cost.tau * context, cost.fixed_j + cost.eps * context
    seconds = max(seconds, dynamic_j / of.headroom_w)
    return complex(seconds, dynamic_j + of.static_w * seconds)


def test_nothing_changes_without_a_cap_below_the_peak() -> None:
    assert isinstance(timing(700.0), RooflineTiming)
    assert not isinstance(timing(700.0), ClockedTiming)
    free, never = timing(), timing(699.999)  # binds nowhere but where kernels top out
    assert never.step(*DECODE)[:2] == free.step(*DECODE)[:2]
    assert never.step(*PREFILL).fixed_s == pytest.approx(free.step(*PREFILL).fixed_s, rel=1.0 / STEPS)


def test_a_clock_limit_slows_arithmetic_and_not_memory() -> None:
    bound = replace(H100, power=PowerCoefficients(100.0, 500.0, 400.0), timing=replace(H100.timing, attn_start=()))
    free, half = timing(xpu=bound, law=CUBIC), timing(limit=0.5, xpu=bound, law=CUBIC)
    assert half.rho == pytest.approx(2.0 * free.rho, rel=1e-12)
    assert half.rho_j == pytest.approx(0.25 * free.rho_j, rel=1e-12)
    one, slow = free.step(1, 0, 0), half.step(1, 0, 0)
    assert slow.fixed_s == one.fixed_s  # weights stream as before
    assert slow.fixed_j == pytest.approx(0.25 * one.fixed_j, rel=1e-12)
    assert (slow.tau, slow.eps) == (one.tau, pytest.approx(0.25 * one.eps, rel=1e-12))
    devices = replace(CUBIC, memory_j_per_byte={"HBM3": 300.0 / H100.bandwidth_bytes_per_s})  # of the 400 W
    kept, devices_j = timing(limit=0.5, xpu=bound, law=devices).step(1, 0, 0), 300.0 * 131_072 / 3.35e12
    assert kept.eps == pytest.approx(devices_j + 0.25 * (one.eps - devices_j), rel=1e-12)


def test_a_cap_takes_the_highest_clock_that_keeps_to_it() -> None:
    bound = replace(H100, power=PowerCoefficients(100.0, 900.0, 400.0), timing=replace(H100.timing, attn_start=()))
    free, held = timing(xpu=bound, law=CUBIC), timing(300.0, xpu=bound, law=CUBIC)
    dynamic_w = free.rho_j / free.rho
    # time as 1 / f, energy as f^2: power as f^3
    clock = (200.0 / dynamic_w) ** (1.0 / 3.0)
    assert held.rho == pytest.approx(free.rho / clock, rel=1.5 / STEPS)
    assert held.rho_j <= 200.0 * held.rho
    assert held.rho_j == pytest.approx(free.rho_j * clock**2, rel=3.0 / STEPS)
    assert held.step(*PREFILL).never_capped
    assert held.headroom_w == 200.0


def test_where_kernels_topped_out_the_clock_was_already_lower() -> None:
    topped = replace(H100, power=PowerCoefficients(100.0, 1600.0, 0.0, 0.0, 500.0))
    free = timing(xpu=topped, law=CUBIC)
    full_w = 1600.0 * H100.timing.attn_eff
    was = (400.0 / full_w) ** 0.5  # at measured speed; what the work takes falls as f^2
    assert free.rho_j == pytest.approx(400.0 * free.rho)
    above, below = (timing(limit=limit, xpu=topped, law=CUBIC) for limit in (was + 0.01, was / 2.0))
    assert (above.rho, above.rho_j) == (free.rho, free.rho_j)
    assert below.rho == pytest.approx(2.0 * free.rho, rel=2.0 / STEPS)
    assert below.rho_j == pytest.approx(0.25 * free.rho_j, rel=4.0 / STEPS)


@pytest.mark.parametrize("name", ["h100_sxm", "a100_sxm_80gb", "h200_sxm", "l40s", "l4", "jetson_agx_orin_64gb"])
def test_a_cap_saves_energy_where_memory_binds_and_time_is_lost_where_arithmetic_does(name: str) -> None:
    xpu = catalogue.xpu(name)
    for kind, memory_bound in ((DECODE, True), (PREFILL, False)):
        free = drawn(timing(xpu=xpu), kind, 8_000.0 * memory_bound)
        cap_w = 0.5 * (xpu.power.static_w + free.imag / free.real)  # half of its dynamic power
        held = drawn(timing(cap_w, xpu=xpu), kind, 8_000.0 * memory_bound)
        assert held.imag / held.real <= cap_w * (1.0 + 1e-12)
        assert held.real > 1.1 * free.real or memory_bound
        assert held.imag < free.imag or held.real > 1.5 * free.real  # static power counts for longer


def test_decode_of_an_h100_gives_up_power_before_speed_and_prefill_does_not() -> None:
    """Direction of Splitwise's HHcap (ISCA 2024): at 70 to 75 % of its power, an H100 decodes about as fast."""
    slow, saved = {}, {}
    for kind, context in ((DECODE, 16_000.0), (PREFILL, 0.0)):
        free, held = drawn(timing(), kind, context), drawn(timing(525.0), kind, context)
        slow[kind], saved[kind] = held.real / free.real - 1.0, 1.0 - held.imag / free.imag
    assert slow[DECODE] < 0.03 < 0.1 < slow[PREFILL]
    assert saved[DECODE] > 0.1


def test_a_cap_that_no_clock_keeps_to_stretches_steps() -> None:
    held = timing(200.0)
    cost = held.step(*DECODE)
    assert not cost.never_capped
    assert cost.fixed_j > held.headroom_w * cost.fixed_s
    assert drawn(held, DECODE).imag / drawn(held, DECODE).real == pytest.approx(200.0)


def test_pipelines_groups_and_tensor_parallelism_keep_to_their_caps() -> None:
    whole = timing(400.0, tp=2)
    assert whole.headroom_w == 2.0 * (400.0 - H100.power.static_w)
    cost = whole.step(*PREFILL)
    assert cost.fixed_j <= whole.headroom_w * cost.fixed_s
    assert timing(400.0, pp=2).headroom_w == whole.headroom_w
    assert timing(400.0, pp=2).step(*PREFILL).fixed_s > timing(pp=2).step(*PREFILL).fixed_s
    moe = catalogue.model("qwen3_30b_a3b")
    free, held = (
        timing_of(Deployment(moe, H100, dp=2, expert_parallel=True, power_cap_w=cap, clock_law=LAW))
        for cap in (None, 300.0)
    )
    assert held.headroom_w == 300.0 - H100.power.static_w
    common = [each.common(4096, 2048) for each in (free, held)]  # type: ignore[attr-defined]
    assert common[1].real > common[0].real
    assert common[1].imag <= held.headroom_w * common[1].real < common[0].imag / common[0].real * common[1].real
    assert held.wait_w <= held.headroom_w  # type: ignore[attr-defined]
    assert not held.step(*PREFILL).never_capped


def test_images_are_encoded_at_the_clock_as_well() -> None:
    model = catalogue.model("qwen3_vl_8b")
    image = Request(0, 0.0, 500, 10, 0, traits=Traits(images=1, image_tokens=400))
    free, held = (encoder(Pool("p", model, H100, power_cap_w=cap, clock_law=LAW))(image) for cap in (None, 350.0))
    assert free == encode_image(model.vision, Deployment(model, H100), 400.0)
    assert held.real > free.real
    assert held.imag < free.imag
    assert held.imag <= (350.0 - H100.power.static_w) * held.real * (1.0 + 1e-12)


def test_the_reference_engine_agrees_on_capped_steps() -> None:
    a100 = catalogue.xpu("a100_sxm_80gb")
    rows = [(0.02 * i, 300 + 97 * i, 20 + 7 * i) for i in range(12)]
    for of in (timing(150.0, xpu=a100), timing(250.0, limit=0.8, xpu=a100)):
        shape = (of, 400, 16, 6, 512, Constant(200.0), 30.0)
        expected = ReferenceEngine(*shape).serve([Job(i, *row) for i, row in enumerate(rows)])
        env = Environment()
        engine = Engine(env, *shape)
        done = drive(engine, env, [Job(i, *row) for i, row in enumerate(rows)])
        assert [engine.busy.real, engine.busy.imag] == pytest.approx([expected.busy_s, expected.dyn_j], rel=1e-9)
        for job in expected.jobs:
            assert done[job.id].last_s == pytest.approx(job.tokens[-1], rel=1e-9)


def test_a_capped_run_draws_no_more_than_the_cap() -> None:
    rows = [(0.01 * i, 400, 60) for i in range(60)]
    results = []
    for cap in (None, 350.0):
        one = Pool("p", LLAMA, H100, power_cap_w=cap, clock_law=LAW)
        fleet = Fleet((Site("s", "cloud", (one,), Constant(400.0, "lca")),))
        results.append(simulate(fleet, rows, keep_spans=True))
    for result, limit_w in zip(results, (700.0, 350.0)):
        spans = result.spans
        k, a, b = spans["steps"], spans["a_s"], spans["b_s"]
        seconds = k * a + b * k * (k - 1) / 2
        assert (spans["dyn_j"] / seconds + H100.power.static_w <= limit_w * (1 + 1e-9)).all()
    free, held = (sum(result.pools[0].it_energy_j[part] for part in ("active", "wasted")) for result in results)
    assert held < free
    assert results[1].requests["e2e_s"].mean() > results[0].requests["e2e_s"].mean()


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"power_cap_w": 100.0, "clock_law": LAW}, "power_cap_w"),
        ({"power_cap_w": 701.0, "clock_law": LAW}, "power_cap_w"),
        ({"power_cap_w": float("nan"), "clock_law": LAW}, "power_cap_w"),
        ({"clock_limit": 1.01, "clock_law": LAW}, "clock_limit"),
        ({"clock_limit": 0.1, "clock_law": LAW}, "clock_limit"),  # the lowest is 0.15
        ({"power_cap_w": 500.0}, "clock_law"),
        ({"clock_limit": 0.9}, "clock_law"),
    ],
)
def test_caps_and_limits_that_cannot_be_are_refused(changes, key) -> None:
    with pytest.raises(InputError, match=key):
        Pool("p", LLAMA, H100, **changes)


def test_what_a_clock_law_does_not_know_is_refused() -> None:
    odd = replace(H100, memory_type="core rope")
    with pytest.raises(InputError, match="memory_type of h100_sxm='core rope'"):
        Governor(Deployment(LLAMA, odd, power_cap_w=500.0, clock_law=LAW))
    for values in ({"exponent": 0.5}, {"lowest": 0.0}, {"memory_j_per_byte": {"HBM3": -1.0}}):
        with pytest.raises(InputError, match=next(iter(values))):
            ClockLaw(**{"exponent": 2.5, "lowest": 0.1, **values})
    with pytest.raises(InputError, match="timing"):
        timing_of(Deployment(LLAMA, H100, power_cap_w=500.0, clock_law=LAW), lambda of: RooflineTiming(of))
