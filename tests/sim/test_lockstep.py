"""Data-parallel ranks in lock-step: agreement with the reference group, numbers by hand, and a fleet's books."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim.accounting.signal import Constant
from sim.request import Request
from sim.serving.lockstep import LockStep, Rank
from sim.serving.prefix_cache import PrefixCache
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer
from tests.oracles.reference_engine import Job
from tests.oracles.reference_group import ReferenceGroup
from tests.sim.conftest import StepSignal
from tests.sim.test_engine_exact import REL, ToyTiming, options, scenarios, token_times


class ToyGroupTiming(ToyTiming):
    """The toy costs, and a visible part of the group's tokens on top."""

    wait_w = 20.0

    def common(self, tokens: int, most: int) -> complex:
        return complex(1e-3 + 2e-5 * tokens + 1e-5 * most, 0.05 + 2e-3 * tokens)


def on_grid(grid: float, t: float, *rest: Any) -> tuple[Any, ...]:
    """A job that comes later, at a multiple of `grid`, and is cancelled as long after its arrival as before."""
    *others, cancel_s = rest
    moved = round(t * 40.0 / grid) * grid
    return moved, *others, cancel_s + (moved - t)


@st.composite
def groups(draw: st.DrawFn) -> dict[str, Any]:
    case = draw(scenarios())
    ranks = draw(st.integers(2, 4))
    grid = draw(st.sampled_from([None, None, 0.1, 1.0]))  # so that several come at once, to a group that was idle
    if grid is not None:
        case["jobs"] = [on_grid(grid, *job) for job in case["jobs"]]
    return case | {"ranks": ranks, "of": [draw(st.integers(0, ranks - 1)) for _ in case["jobs"]]}


def jobs_of(case: dict[str, Any]) -> list[list[Job]]:
    own: list[list[Job]] = [[] for _ in range(case["ranks"])]
    for number, (job, rank) in enumerate(zip(case["jobs"], case["of"])):
        own[rank].append(Job(number, *job))
    return own


def drive(
    ranks: list[Rank], env: Environment, jobs: list[list[Job]], failures: tuple[float, ...]
) -> dict[int, Sequence]:
    """Feed every rank its jobs in order of arrival, cancel and fail as told, and run the group dry."""
    done: dict[int, Sequence] = {}

    def at(time_s: float, call: Callable[[], None]) -> None:
        env.schedule(Timer(env, lambda _event: call()), delay=time_s)

    def cancel(rank: Rank, seq: Sequence, now: float) -> None:
        if seq.request.id not in done:
            rank.cancel(seq, now)

    def arrive(rank: Rank, job: Job) -> None:
        request = Request(job.id, job.arrival_s, job.prompt, job.output, 0, job.cached, job.hashes, job.traits)
        seq = Sequence(request, job.arrival_s, lambda seq: done.setdefault(seq.request.id, seq) and None)
        rank.submit(seq, job.arrival_s)
        if job.cancel_s < math.inf:
            at(job.cancel_s - job.arrival_s, lambda: cancel(rank, seq, job.cancel_s))
        assert all(0 <= each.used_blocks() <= each.blocks for each in ranks)

    every = [(job, rank) for rank, own in zip(ranks, jobs) for job in own]
    for job, rank in sorted(every, key=lambda pair: (pair[0].arrival_s, pair[0].id)):
        at(job.arrival_s, partial(arrive, rank, job))
    for number, failure_s in enumerate(failures):
        at(failure_s, partial(ranks[number % len(ranks)].fail, failure_s))
    env.run()
    return done


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(groups())
def test_a_group_equals_the_reference(case: dict[str, Any]) -> None:
    compare(case)


@pytest.mark.slow
@settings(max_examples=3000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(groups())
def test_a_group_equals_the_reference_at_length(case: dict[str, Any]) -> None:
    compare(case)


def compare(case: dict[str, Any]) -> None:
    timing = ToyGroupTiming(case["alpha"], case["window"], case["headroom_w"], case["spread"], case["omega"])
    varying = math.isfinite(case["period"])
    signal = StepSignal(case["period"], [100.0, 0.0, 350.0]) if varying else Constant(200.0)
    shape = (case["blocks"], case["block"], case["max_seqs"], case["budget"], signal, 30.0)
    own, jobs = case["rules"], jobs_of(case)
    reference = ReferenceGroup(case["ranks"], timing, *shape, rules=own, failures=case["failures"])
    expected = reference.serve(jobs)
    env = Environment()
    group = LockStep(env, timing)
    for _ in range(case["ranks"]):
        prefix = PrefixCache(case["block"], own.unit, own.host_units) if own.unit else None
        Rank(group, env, timing, *shape, options=options(own), prefix=prefix, layout=case["layout"])
    done = drive(group.ranks, env, jobs_of(case), case["failures"])

    shares = sum((seq.prefill + seq.decode + seq.waste for seq in done.values()), 0j)
    busy = sum((rank.busy for rank in group.ranks), 0j)
    assert shares.real == pytest.approx(busy.real, rel=REL)
    assert shares.imag == pytest.approx(busy.imag, rel=REL)
    for rank, outcome, dummy_s, waited_s in zip(group.ranks, expected, reference.dummy_s, reference.waited_s):
        assert rank.busy.real == pytest.approx(outcome.busy_s, rel=REL)
        assert rank.busy.imag == pytest.approx(outcome.dyn_j, rel=REL)
        assert [rank.lost.real, rank.lost.imag] == pytest.approx([outcome.lost_s, outcome.lost_j], rel=1e-8, abs=REL)
        assert rank.dummy_s == pytest.approx(dummy_s, rel=REL, abs=REL)
        assert rank.waited_s == pytest.approx(waited_s, rel=REL, abs=REL)
        assert sum(row[1] for row in rank.rows) == len(outcome.steps)
        if varying:
            assert rank.busy_g == pytest.approx(outcome.busy_g, rel=REL)
        assert (rank.n, rank.context, rank.used_blocks()) == (0, 0, 0)
        for job in outcome.jobs:
            compare_job(rank, done[job.id], job, varying)
    if varying:
        grams = sum(seq.prefill_g + seq.decode_g + seq.waste_g for seq in done.values())
        assert grams == pytest.approx(sum(rank.busy_g for rank in group.ranks), rel=REL)


def compare_job(rank: Rank, seq: Sequence, job: Job, varying: bool) -> None:
    assert (seq.status, seq.emitted) == (job.status, len(job.tokens))
    assert seq.preemptions == job.preemptions
    assert seq.scheduled_s == pytest.approx(job.scheduled_s, rel=REL, abs=REL)
    assert token_times(rank, seq) == pytest.approx(job.tokens, rel=REL, abs=REL)
    for mine, its in ((seq.prefill, job.prefill), (seq.decode, job.decode), (seq.waste, job.waste)):
        assert [mine.real, mine.imag] == pytest.approx(its[:2], rel=REL, abs=REL)
    if varying:
        assert seq.prefill_g == pytest.approx(job.prefill[2], rel=1e-8, abs=1e-6)
        assert seq.decode_g == pytest.approx(job.decode[2], rel=1e-8, abs=1e-6)
