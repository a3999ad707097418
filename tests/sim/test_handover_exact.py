"""Disaggregated pools agree with reference engines that hand over step by step, to 1e-9."""

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
from sim.fleet.handover import Handover
from sim.hardware.collectives import Interconnect
from sim.request import NO_TRAITS, Request
from sim.serving.engine import Engine
from sim.serving.prefix_cache import PrefixCache
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer
from tests.oracles.reference_engine import Job, ReferenceEngine, Rules
from tests.oracles.reference_handover import ReferenceHandover
from tests.sim.conftest import StepSignal
from tests.sim.test_engine_exact import REL, ToyTiming, options, scenarios, token_times

BYTES_PER_TOKEN = 1000.0


@st.composite
def pools(draw: st.DrawFn) -> dict:
    """Workloads of single engines, on several; no two things happen at one time by chance alone."""
    case = draw(scenarios())
    rules = replace(case["rules"], whole_prompts=False, closed_batches=False)
    jobs = [(t + 2.7182818e-6 * (i + 1), *rest[:5]) for i, (t, *rest) in enumerate(case["jobs"])]
    prefill = draw(st.integers(1, 2))
    return {
        **case, "jobs": jobs, "rules": rules, "prefill": prefill, "decode": draw(st.integers(1, 2)),
        "latency_s": draw(st.sampled_from([1.1e-5, 3.3e-3])),
        "bytes_per_s": draw(st.sampled_from([1.23456e9, 7.1e6, 1.03e6])),
    }  # fmt: skip


#: Prompts that share a prefix of 16 blocks wait for one another's copies, in memory for little more than one alone.
SHARED = {
    "jobs": [(0.01 * i + 2.7182818e-6 * (i + 1), 20, 4, 0, tuple(range(16)) + tuple(range(100 * i, 100 * i + 4)))
             for i in range(1, 7)],
    "block": 1, "budget": 30, "max_seqs": 8, "blocks": 30, "alpha": 0.0, "window": 0, "headroom_w": 1e9, "spread": 0.0,
    "omega": 0.0, "period": math.inf, "rules": Rules(unit=1), "prefill": 1, "decode": 1, "latency_s": 1e-3,
    "bytes_per_s": 1e5,
}  # fmt: skip

#: A copy is through, and its prefix idle, while the chunks of a long prompt evict another one's: (prompt, output) each.
TIGHT = {
    **SHARED, "block": 16, "budget": 17, "max_seqs": 3, "blocks": 10, "headroom_w": 60.0,
    "rules": Rules(unit=16, order="priority"), "latency_s": 1.1e-5, "bytes_per_s": 1.03e6,
    "jobs": [
        (2.7182818e-6 * (i + 1), prompt, output, 0, (1000 * (i % 8), *range(1000 * i + 1, 1000 * i + prompt)),
         NO_TRAITS._replace(priority=int(i in (1, 5, 8))))
        for i, (prompt, output) in enumerate(
            [(16, 1), (1, 2), (1, 1), (49, 2), (1, 1), (68, 1), (1, 1), (1, 1), (17, 1), *[(1, 1)] * 8])
    ],
}  # fmt: skip


@example(SHARED)
@example(TIGHT)
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pools())
def test_handover_equals_reference(case: dict) -> None:
    compare(case)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pools())
def test_handover_equals_reference_at_length(case: dict) -> None:
    compare(case)


def drive(
    case: dict, make: Callable[[Environment, bool], Engine]
) -> tuple[list[Engine], dict[int, tuple[int, Sequence]]]:
    """Run the jobs on fast engines. Returns these, and where each job ended."""
    env = Environment()
    engines = [make(env, index < case["prefill"]) for index in range(case["prefill"] + case["decode"])]
    done: dict[int, tuple[int, Sequence]] = {}

    def finished(replica: int, seq: Sequence) -> None:
        assert seq.request.id not in done
        done[seq.request.id] = (replica, seq)

    link = Interconnect("toy", case["bytes_per_s"], case["latency_s"])
    handover = Handover(env, engines, case["prefill"], link, BYTES_PER_TOKEN, finished)

    def arrive(job: Job) -> None:
        request = Request(job.id, job.arrival_s, job.prompt, job.output, 0, job.cached, job.hashes, job.traits)
        replica = handover.admit(job.prompt)
        seq = Sequence(request, job.arrival_s, partial(handover.computed, replica))
        seq.target = 1
        engines[replica].submit(seq, job.arrival_s)
        assert all(0 <= engine.used_blocks() <= engine.blocks for engine in engines)

    for job in (Job(i, *job) for i, job in enumerate(case["jobs"])):
        env.schedule(Timer(env, lambda _event, job=job: arrive(job)), delay=job.arrival_s)
    env.run()
    assert not any(handover.on_way)
    return engines, done


def compare(case: dict) -> None:
    timing = ToyTiming(case["alpha"], case["window"], case["headroom_w"], case["spread"], case["omega"])
    varying = math.isfinite(case["period"])
    signal = StepSignal(case["period"], [100.0, 0.0, 350.0]) if varying else Constant(200.0)
    shape = (timing, case["blocks"], case["block"], case["max_seqs"], case["budget"], signal, 30.0)
    rules, prefill = case["rules"], case["prefill"]
    plain = replace(rules, unit=0, host_units=0)
    slow = [ReferenceEngine(*shape, rules) for _ in range(prefill)]
    slow += [ReferenceEngine(*shape, plain) for _ in range(case["decode"])]
    pool = ReferenceHandover(slow, prefill, case["latency_s"], BYTES_PER_TOKEN / case["bytes_per_s"])
    jobs = [Job(i, *job) for i, job in enumerate(case["jobs"])]
    expected = pool.serve(jobs)

    def make(env: Environment, prompts: bool) -> Engine:
        prefix = PrefixCache(case["block"], rules.unit, rules.host_units) if rules.unit and prompts else None
        return Engine(env, *shape, options=options(rules if prompts else plain), prefix=prefix)

    engines, done = drive(case, make)
    for engine, outcome in zip(engines, expected):
        assert engine.busy.real == pytest.approx(outcome.busy_s, rel=REL, abs=REL)
        assert engine.busy.imag == pytest.approx(outcome.dyn_j, rel=REL, abs=REL)
        assert sum(row[1] for row in engine.rows) == len(outcome.steps)
        if varying:
            assert engine.busy_g == pytest.approx(outcome.busy_g, rel=REL, abs=1e-6)
        assert engine.used_blocks() == engine.pinned == engine.n == 0
    for job in jobs:
        replica, seq = done[job.id]
        assert (replica, seq.preemptions) == (pool.place[job.id], job.preemptions)
        assert len(job.tokens) == job.output
        assert token_times(engines[replica], seq) == pytest.approx(job.tokens, rel=REL, abs=REL)
        for mine, theirs in ((seq.prefill, job.prefill), (seq.decode, job.decode), (seq.waste, job.waste)):
            assert [mine.real, mine.imag] == pytest.approx(theirs[:2], rel=REL, abs=REL)
