"""The fast engine agrees with the reference engine to 1e-9 on random workloads, and keeps the invariants."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim.accounting.signal import Constant
from sim.hardware.kv_layout import KvLayout
from sim.hardware.timing import StepCost
from sim.request import Request, Traits
from sim.serving.andes import Andes
from sim.serving.engine import Engine
from sim.serving.options import Options
from sim.serving.prefix_cache import PrefixCache
from sim.serving.queues import FairShare, Fcfs, Ordered
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer
from tests.oracles.reference_engine import Job, ReferenceEngine, Rules
from tests.sim.conftest import StepSignal

REL = 1e-9


class ToyTiming:
    """Costs with every term switched on or off at will; one unit of context costs visibly."""

    static_w, idle_w = 100.0, 50.0

    def __init__(self, alpha: float, window: int, headroom_w: float, spread: float, omega: float) -> None:
        self.alpha, self.window, self.headroom_w, self.spread, self.omega = alpha, window, headroom_w, spread, omega
        self.skewed = alpha > 0
        self.rho, self.rho_j = 3e-6, 4e-4
        self.rho_w, self.rho_w_j = (1e-6, 2e-4) if window else (0.0, 0.0)

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        tokens = decoding + prefill_tokens
        fixed = 5e-3 + max(1e-4 * tokens, 2e-3) * self.spread + 1e-5 * (decoding + prefills)
        alpha = self.alpha * (0.5 if prefills else 1.0) / max(decoding, 1)
        return StepCost(
            fixed, 0.2 + 0.01 * tokens, 2e-6, 3e-4, alpha, 1e-6 if self.window else 0.0,
            1e-4 if self.window else 0.0, False, 1.0 / (1 + prefills) if prefills and self.spread else 1.0, self.omega,
        )  # fmt: skip


def drive(engine: Engine, env: Environment, jobs: list[Job], failures: tuple[float, ...] = ()) -> dict[int, Sequence]:
    """Feed jobs to a fast engine in order of arrival, cancel and fail as told, and run it dry."""
    done: dict[int, Sequence] = {}

    def at(time_s: float, call: Callable[[], None]) -> None:
        env.schedule(Timer(env, lambda _event: call()), delay=time_s)

    def cancel(seq: Sequence, now: float) -> None:
        if seq.request.id not in done:
            engine.cancel(seq, now)
            assert engine.used_blocks() <= engine.blocks

    def finished(seq: Sequence) -> None:
        assert seq.request.id not in done
        done[seq.request.id] = seq

    def arrive(job: Job) -> None:
        request = Request(job.id, job.arrival_s, job.prompt, job.output, 0, job.cached, job.hashes, job.traits)
        seq = Sequence(request, job.arrival_s, finished)
        engine.submit(seq, job.arrival_s)
        if job.cancel_s < math.inf:
            at(job.cancel_s - job.arrival_s, lambda: cancel(seq, job.cancel_s))
        used = engine.used_blocks()
        assert 0 <= used <= engine.blocks

    for job in sorted(jobs, key=lambda job: (job.arrival_s, job.id)):
        timer = Timer(env, lambda _event, job=job: arrive(job))
        env.schedule(timer, delay=job.arrival_s)
    for failure_s in failures:
        at(failure_s, partial(engine.fail, failure_s))
    env.run()
    return done


def token_times(engine: Engine, seq: Sequence) -> list[float]:
    """Every token's time, read off the step clock."""
    times: list[float] = []
    phases = [*(seq.segments or []), (seq.row, seq.last_row, 0.0)]
    # the first token of a phase ends a prefill; the others end the steps of its rows
    start = seq.first_s
    for first, last, gap in phases:
        times.append(start)
        ends = [start]
        for t, k, a, b, *_ in engine.rows[first : last + 1]:
            ends += [t + i * a + b * (i * (i - 1) * 0.5) for i in range(1, k + 1)]
        tokens = (len(ends) - 1) * engine.pace // engine.parts
        times += [ends[-(-i * engine.parts // engine.pace)] for i in range(1, tokens + 1)]
        start = ends[-1] + gap
    return times[: seq.emitted]


traits = st.builds(
    Traits,
    tenant=st.integers(0, 2),
    priority=st.integers(0, 2),
    deadline_s=st.sampled_from([0.1, 0.5, math.inf]),
    adapter=st.integers(0, 3),
    images=st.sampled_from([0, 0, 1, 2]),
    image_tokens=st.just(0),
)
ORDERS = {
    "fcfs": Fcfs,
    "priority": lambda: Ordered(lambda seq: seq.request.traits.priority),
    "sjf": lambda: Ordered(lambda seq: seq.request.prompt + seq.request.output),
    "edf": lambda: Ordered(lambda seq: seq.request.arrival_s + seq.request.traits.deadline_s),
    "vtc": FairShare,
    "andes": Andes,
}


@st.composite
def rules(draw: st.DrawFn, block: int, drafts: int) -> Rules:
    batches = draw(st.sampled_from(["chunked", "chunked", "chunked", "whole", "closed"]))
    chunked = batches == "chunked"
    order = draw(
        st.sampled_from(["fcfs", "fcfs", *ORDERS] if chunked else [each for each in ORDERS if each != "andes"])
    )
    return Rules(
        order=order,
        quantum_s=draw(st.sampled_from([0.02, 0.2])) if order == "andes" else 0.0,
        most_preemptions=draw(st.integers(0, 3)),
        expected_s=draw(st.sampled_from([0.0, 0.05])),
        speed=draw(st.sampled_from([20.0, 150.0])),
        async_scheduling=draw(st.booleans()),
        unit=draw(st.sampled_from([0, 1, 2, 4])) * block if chunked else 0,
        host_units=draw(st.sampled_from([0, 3, 20, 1000])) if chunked else 0,
        offload_s=draw(st.sampled_from([1e-5, 4e-5])),
        whole_prompts=batches == "whole" or (batches == "closed" and draw(st.booleans())),
        closed_batches=batches == "closed",
        swap_tokens=draw(st.sampled_from([0, 0, 60, 400])),
        swap_s=2e-5,
        adapter_slots=draw(st.sampled_from([0, 0, 1, 2])),
        adapter_load_s=0.02,
        image_s=draw(st.sampled_from([0.0, 0.003])),
        image_j=0.4,
        drafts=drafts,
        pace=draw(st.integers(16, 16 * (1 + drafts))) if drafts else 1,
        parts=16 if drafts else 1,
    )


def options(of: Rules) -> Options:
    def encode(request: Request) -> complex:
        return request.traits.images * complex(of.image_s, of.image_j)

    return Options(
        ORDERS[of.order], of.async_scheduling, of.whole_prompts, of.closed_batches, of.swap_tokens, of.swap_s,
        of.adapter_slots, of.adapter_load_s, of.drafts, of.pace, of.parts, encode, of.offload_s,
        of.quantum_s, of.most_preemptions, ((of.expected_s, of.speed),),
    )  # fmt: skip


@st.composite
def groups(draw: st.DrawFn, of: Rules, block: int, window: int) -> Rules:
    """Layers in groups, some of which keep a window only: the combinations that the engine knows."""
    full = draw(st.integers(0, 2))
    return replace(
        of, unit=0, host_units=0, swap_tokens=0, whole_prompts=False, closed_batches=False, full_groups=full,
        windowed_groups=draw(st.integers(1, 3)), window=window,
        windowed_block=block * draw(st.sampled_from([1, 1, 2])) if full else block,
    )  # fmt: skip


def layout_of(of: Rules, block: int, budget: int) -> KvLayout:
    most = -(-(of.window - 1 + budget) // of.windowed_block) + 1
    return KvLayout(block, of.full_groups, of.windowed_groups, of.window, of.windowed_block, most)


@st.composite
def scenarios(draw: st.DrawFn, grouped: bool = False) -> dict:
    block = draw(st.sampled_from([1, 2, 4, 16]))
    drafts = draw(st.sampled_from([0, 0, 0, 0, 1] if grouped else [0, 0, 1, 3]))
    budget = draw(st.integers(2 + drafts, 64))
    max_seqs = draw(st.integers(1, min(budget // (1 + drafts), 12)))
    count = draw(st.integers(1, 25))
    gap = draw(st.sampled_from([0.0, 0.004, 0.03, 0.3]))
    t, jobs = 0.0, []
    for number in range(count):
        t += draw(st.integers(0, 10**6)) * 1e-6 * gap
        prompt = draw(st.integers(1, 90))
        cached = draw(st.sampled_from([0, 0, 0, prompt // 2, prompt - 1]))
        family, alike = draw(st.integers(0, 2)), draw(st.integers(0, 90))
        output = draw(st.integers(1, 40))
        named = prompt + draw(st.sampled_from([0, output]))
        hashes = tuple(1000 * family + i if i < alike else 100_000 * (number + 1) + i for i in range(named))
        # a client's patience ends at no boundary, nor when another comes
        patience = draw(st.sampled_from([math.inf, math.inf, math.inf, 0.002, 0.04, 0.5]))
        cancel_s = t + draw(st.integers(1, 1000)) * 1e-3 * patience + 3.1415926e-6 * (number + 1)
        jobs.append((t, prompt, output, cached, hashes, draw(traits), cancel_s))
    own, window = draw(rules(block, drafts)), draw(st.sampled_from([7, 20, 33] if grouped else [0, 0, 7, 33]))
    layout = None
    if grouped:
        own = draw(groups(own, block, window))
        layout = layout_of(own, block, budget)
    shape = layout or KvLayout(block)
    longest = max(shape.needs(prompt + output + drafts) for _, prompt, output, *_ in jobs)
    blocks = longest + draw(st.integers(0, 3 * longest))
    return {
        "jobs": jobs, "block": block, "budget": budget, "max_seqs": max_seqs, "blocks": blocks,
        "alpha": draw(st.sampled_from([0.0, 0.3, 1.0])), "window": window,
        "headroom_w": draw(st.sampled_from([1e9, 60.0, 25.0])), "spread": draw(st.sampled_from([0.0, 1.0])),
        "omega": draw(st.sampled_from([0.0, 0.0, 1e-5])),
        "period": draw(st.sampled_from([math.inf, 0.05, 0.7])),
        "rules": own, "layout": layout,
        "failures": tuple(f * 2.7182818e-6 for f in draw(st.lists(st.integers(1, 10**6), max_size=2))),
    }  # fmt: skip


#: The power limit begins to bind in a step that needs exactly its limit.
AT_THE_LIMIT = {
    "jobs": [(0.0, 66, 1, 33, ())], "block": 1, "budget": 5, "max_seqs": 1, "blocks": 67, "alpha": 0.0, "window": 0,
    "headroom_w": 60.0, "spread": 0.0, "omega": 0.0, "period": math.inf, "rules": Rules(), "failures": (),
}  # fmt: skip


#: A sequence is swapped out, and cancelled in the step that takes the copy: which is then the loss of its engine.
CANCELLED_WHILE_SWAPPED_OUT = {
    **AT_THE_LIMIT, "budget": 2, "blocks": 24, "headroom_w": 1e9, "spread": 1.0,
    "jobs": [
        (0.0, 1, output, 0, (i,), Traits(0, 0, 0.1), cancel_s)
        for i, (output, cancel_s) in enumerate(
            [*[(1, math.inf)] * 4, (23, math.inf), (1, math.inf), (9, 0.2540219911482), (1, math.inf)])
    ],
    "rules": Rules(order="andes", swap_tokens=60, swap_s=2e-5, quantum_s=0.02, most_preemptions=3, speed=20.0),
}  # fmt: skip


#: Two are cancelled in one step, the later comer first: its adapter has been unused for longer, and is the first to go.
CANCELLED_IN_ANOTHER_ORDER = {
    **AT_THE_LIMIT, "budget": 4, "max_seqs": 4, "blocks": 4, "headroom_w": 1e9,
    "jobs": [
        (0.0, 1, output, 0, (i,), Traits(adapter=adapter), cancel_s)
        for i, (output, adapter, cancel_s) in enumerate(
            [(2, 2, 1.6e-5), (1, 0, math.inf), (1, 0, math.inf), (2, 3, 1.5e-5), *[(1, 0, math.inf)] * 4,
             (1, 1, math.inf), (1, 2, math.inf)])
    ],
    "rules": Rules(adapter_slots=2, adapter_load_s=0.02),
}  # fmt: skip


@example(AT_THE_LIMIT)
@example(CANCELLED_WHILE_SWAPPED_OUT)
@example(CANCELLED_IN_ANOTHER_ORDER)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_fast_forward_equals_reference(case: dict) -> None:
    compare(case)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios(grouped=True))
def test_fast_forward_equals_reference_where_layers_keep_a_window(case: dict) -> None:
    compare(case)


@pytest.mark.slow
@settings(max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios())
def test_fast_forward_equals_reference_at_length(case: dict) -> None:
    compare(case)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(scenarios(grouped=True))
def test_fast_forward_equals_reference_where_layers_keep_a_window_at_length(case: dict) -> None:
    compare(case)


def _parts(charge: complex) -> list[float]:
    return [charge.real, charge.imag]


def compare(case: dict) -> None:
    timing = ToyTiming(case["alpha"], case["window"], case["headroom_w"], case["spread"], case["omega"])
    varying = math.isfinite(case["period"])
    signal = StepSignal(case["period"], [100.0, 0.0, 350.0]) if varying else Constant(200.0)
    jobs = [Job(i, *job) for i, job in enumerate(case["jobs"])]
    shape = (timing, case["blocks"], case["block"], case["max_seqs"], case["budget"], signal, 30.0)
    expected = ReferenceEngine(*shape, case["rules"], case["failures"]).serve(jobs)
    env = Environment()
    own = case["rules"]
    prefix = PrefixCache(case["block"], own.unit, own.host_units) if own.unit else None
    layout = case.get("layout")
    engine = Engine(env, *shape, options=options(case["rules"]), prefix=prefix, layout=layout)
    done = drive(engine, env, [Job(i, *job) for i, job in enumerate(case["jobs"])], case["failures"])

    assert engine.busy.real == pytest.approx(expected.busy_s, rel=REL)
    assert engine.busy.imag == pytest.approx(expected.dyn_j, rel=REL)
    assert _parts(engine.lost) == pytest.approx([expected.lost_s, expected.lost_j], rel=1e-8, abs=REL)
    assert sum(row[1] for row in engine.rows) == len(expected.steps)
    shares = [0.0, 0.0, 0.0]
    for job in expected.jobs:
        seq = done[job.id]
        assert seq.status == job.status
        assert seq.emitted == len(job.tokens)
        assert seq.preemptions == job.preemptions
        assert seq.scheduled_s == pytest.approx(job.scheduled_s, rel=REL, abs=REL)
        assert token_times(engine, seq) == pytest.approx(job.tokens, rel=REL, abs=REL)
        if job.status == 0:
            assert seq.last_s == pytest.approx(job.tokens[-1], rel=REL, abs=REL)
        assert _parts(seq.prefill) == pytest.approx(job.prefill[:2], rel=REL, abs=REL)
        assert _parts(seq.decode) == pytest.approx(job.decode[:2], rel=REL, abs=REL)
        assert _parts(seq.waste) == pytest.approx(job.waste[:2], rel=REL, abs=REL)
        whole = seq.prefill + seq.decode + seq.waste
        shares[0] += whole.real
        shares[1] += whole.imag
        shares[2] += seq.prefill_g + seq.decode_g + seq.waste_g
        if varying:
            assert seq.prefill_g == pytest.approx(job.prefill[2], rel=1e-8, abs=1e-6)
            assert seq.decode_g == pytest.approx(job.decode[2], rel=1e-8, abs=1e-6)
    assert shares[0] == pytest.approx(engine.busy.real, rel=REL)
    assert shares[1] == pytest.approx(engine.busy.imag, rel=REL)
    if varying:
        assert engine.busy_g == pytest.approx(expected.busy_g, rel=REL)
        assert shares[2] == pytest.approx(engine.busy_g, rel=REL)
    assert engine.n == 0
    assert engine.context == 0
    assert not engine.running
    assert engine.used_blocks() == 0
    assert not any(engine._residues)
    if engine.groups is not None:
        assert not any(engine.groups._beyond)
        assert not any(engine.groups._windowed)
