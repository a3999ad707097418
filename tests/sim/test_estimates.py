"""What routers are told a request would meet and take, against what then happens and what the books charge."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim.request import Request
from tests.sim.conftest import fleet_of, live_pool, owned, pool, simulate, xpu


def load(live, count, prompt=60, output=40):
    for number in range(count):
        live.send(Request(number, 0.0, prompt, output))


def test_times_at_an_idle_pool_are_close_to_what_happens():
    env = Environment()
    live = live_pool(pool(), env=env)
    times = live.times(60, 40)
    done = []
    live.done = lambda pool, replica, seq: done.append(seq)
    live.send(Request(0, 0.0, 60, 40))
    env.run()
    assert times.ttft_s == pytest.approx(done[0].first_s, rel=0.05)
    assert times.tpot_s == pytest.approx((done[0].last_s - done[0].first_s) / 39, rel=0.05)
    assert times.e2e_s == pytest.approx(done[0].last_s, rel=0.05)


@pytest.mark.parametrize("engine", [{"max_num_seqs": 4}, {"kv_blocks": 4 * 7 + 1, "max_num_seqs": 100}])
def test_a_pool_without_seats_or_memory_lets_wait(engine):
    live = live_pool(pool(engine=engine))  # four requests of 100 tokens fit
    load(live, 4)
    full = live.times(60, 40).ttft_s
    load(live, 4)
    service_s = 40 * live.times(60, 40).tpot_s
    assert live.times(60, 40).ttft_s > full + 0.7 * service_s


def test_prompts_that_cut_in_lengthen_the_time_per_token():
    alone = live_pool(pool()).times(600, 20).tpot_s
    live = live_pool(pool())
    load(live, 4, 600, 20)
    prompts_s = 4 / 20 * live.timing.step(0, 600, 1).fixed_s
    assert live.times(600, 20).tpot_s > alone + 0.9 * prompts_s


def test_cached_tokens_are_not_computed():
    live = live_pool(pool())
    assert live.times(600, 20, 590).ttft_s < 0.5 * live.times(600, 20).ttft_s
    saved_s = live.work(600, 1).busy_s - live.work(600, 1, 590).busy_s
    assert saved_s == pytest.approx(live.times(600, 1).ttft_s - live.times(600, 1, 590).ttft_s)


@pytest.mark.parametrize("batch", [1, 6])
def test_work_is_what_the_books_charge(batch):
    spec = pool(cost=owned(), engine={"max_num_batched_tokens": 64 * 8, "kv_blocks": 400})
    result = simulate(fleet_of(spec, pue=1.3), [(0.0, 64, 150)] * batch)
    live = live_pool(spec)
    work, requests = live.work(64, 150, batch=batch), result.requests
    assert 1.3 * work.energy_j == pytest.approx(requests["energy_j"].mean(), rel=0.08)
    assert work.busy_s == pytest.approx(requests["xpu_s"].mean(), rel=0.08)
    assert work.embodied_g == pytest.approx(requests["carbon_embodied_g"].mean(), rel=0.08)
    electricity = (1.3 - 1.0) * work.energy_j * owned().rates().usd_per_facility_j  # that of the building
    assert work.cost_usd + electricity == pytest.approx(requests["cost_usd"].mean(), rel=0.08)


def test_what_is_unknown_stays_unknown():
    work = live_pool(pool(cost=None, embodied=None)).work(10, 10)
    assert math.isnan(work.cost_usd)
    assert math.isnan(work.embodied_g)
    assert work.energy_j > 0.0


def test_a_larger_batch_shares_more():
    live = live_pool(pool())
    works = [live.work(60, 40, batch=n) for n in (1, 2, 8, 32)]
    assert [each.energy_j for each in works] == sorted((each.energy_j for each in works), reverse=True)
    assert live.work(60, 40) == works[0]
    load(live, 7)
    assert live.work(60, 40) == works[2]


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 400), st.integers(1, 200), st.floats(0.001, 0.2))
def test_the_full_batch_is_the_largest_that_holds_the_pace(prompt, output, tpot_s):
    live = live_pool(pool(engine={"max_num_seqs": 50, "kv_blocks": 300}))
    prefill = live.timing.step(0, prompt, 1).fixed_s + live.timing.rho * prompt * prompt / 2
    budget = live.spec.engine.max_num_batched_tokens
    assert prompt <= budget

    def token_s(n):
        cost = live.timing.step(n, 0, 0)
        step_s = cost.fixed_s + (cost.tau + cost.tau_w) * n * (prompt + 0.5 * output)
        return step_s + (n - 1) * prefill / output

    most = min(50, live.blocks * 16 // (prompt + output))
    expected = max((n for n in range(1, most + 1) if token_s(n) <= tpot_s), default=1)
    assert live.full_batch(prompt, output, tpot_s) == expected


def test_power_from_idle_to_the_limit():
    live = live_pool(pool(replicas=2, xpu=xpu(tdp_w=130.0)))
    idle, limit = live.timing.idle_w + live.host_w, 130.0 + live.host_w
    watts = [live.power_w]
    for _ in range(2):
        load(live, 1)
        watts.append(live.power_w)
    assert watts[0] == pytest.approx(2 * idle)
    assert watts[0] < watts[1] < watts[2] <= 2 * limit + 1e-9
    assert watts[1] - watts[0] == pytest.approx(watts[2] - watts[1])
