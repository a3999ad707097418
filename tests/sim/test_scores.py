"""Weighted signals, predicted QoE, and a bandit whose regret falls."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim import Constant, Fleet, InputError, Rent, Site, SLOClass
from sim.qoe import token_qoe_v1, token_qoe_v1_walk
from sim.routing import Bandit, LeastOutstanding, MinPredictedLatency, QoEAware, QoEPreemptive, Weighted
from sim.routing.scores import SIGNALS, steady_qoe
from tests.sim.conftest import pool, simulate, xpu

RELAXED = SLOClass("chat", ttft_s=2.0, tpot_s=0.2)


def fast_and_cheap(**engine: object) -> Fleet:
    """A fast, dear, thirsty pool on a dirty grid, and a slow one that is better in all else."""
    fast = pool("fast", xpu=xpu(1.0), cost=Rent(20.0), engine=engine)
    cheap = pool("cheap", xpu=xpu(0.5, power={"static_w": 10.0, "compute_w": 50.0, "memory_w": 20.0}), engine=engine)
    return Fleet([Site("a", "cloud", [fast], Constant(600.0)), Site("b", "cloud", [cheap], Constant(100.0))])


def split(result) -> list[int]:
    return np.bincount(result.requests["pool"].astype(int), minlength=2).tolist()


ROWS = [(0.1 * i, 40, 20) for i in range(100)]


@pytest.mark.parametrize(
    ("signal", "first"),
    [("latency", 0), ("ttft", 0), ("cost", 1), ("energy", 1), ("carbon", 1)],
)
def test_each_signal_alone_goes_where_it_is_lowest(signal, first):
    result = simulate(fast_and_cheap(), ROWS, Weighted({signal: 1.0}), slo_classes=(RELAXED,))
    assert split(result)[first] == 100


def test_signals_of_load_alone_level_it():
    rows = [(0.001 * i, 40, 20) for i in range(200)]
    least = simulate(fast_and_cheap(), rows, LeastOutstanding(), slo_classes=(RELAXED,))
    assert split(simulate(fast_and_cheap(), rows, Weighted({"load": 2.0}), slo_classes=(RELAXED,))) == split(least)
    for name in ("queue", "memory"):
        result = simulate(fast_and_cheap(max_num_seqs=4), rows, Weighted({name: 1.0}), slo_classes=(RELAXED,))
        assert min(split(result)) > 40


def test_weights_trade_one_signal_for_another():
    rows = [(0.01 * i, 40, 20) for i in range(300)]
    shares, cost, latency = [], [], []
    for weight in (0.0, 0.6, 1.2, 5.0):
        router = Weighted({"latency": 1.0, "cost": weight})
        result = simulate(fast_and_cheap(), rows, router, slo_classes=(RELAXED,))
        shares.append(split(result)[1])
        cost.append(result.requests["cost_usd"].sum())
        latency.append(result.requests["e2e_s"].mean())
    assert shares == sorted(shares)
    assert shares[0] < shares[-1]
    assert cost[-1] < cost[0]
    assert latency[-1] > latency[0]


def test_latency_alone_is_min_predicted_latency():
    rows = [(0.005 * i, 40, 20) for i in range(200)]
    one = simulate(fast_and_cheap(), rows, Weighted({"latency": 1.0}), slo_classes=(RELAXED,))
    two = simulate(fast_and_cheap(), rows, MinPredictedLatency(), slo_classes=(RELAXED,))
    assert (one.requests["pool"] == two.requests["pool"]).all()


@pytest.mark.parametrize(
    ("weights", "key"),
    [
        ({}, "router.weights"),
        ({"load": 0.0}, "router.weights"),
        ({"load": -1.0}, "router.weights.load"),
        ({"luck": 1.0}, "router.weights.luck"),
        ({"cost": "much"}, "router.weights.cost"),
        (3.0, "router.weights"),
    ],
)
def test_bad_weights_name_their_key(weights, key):
    with pytest.raises(InputError) as error:
        Weighted(weights)
    assert error.value.key == key


def test_signals_that_nobody_knows_are_refused():
    fleet = Fleet([Site("a", "cloud", [pool("one", cost=None)])])
    for signal, what in (("cost", "cost"), ("carbon", "grid")):
        with pytest.raises(InputError, match=f"router='weighted' .* whose {what} is known; it is not of: one"):
            simulate(fleet, ROWS, Weighted({signal: 1.0}))
    assert {"cost", "carbon"} < set(SIGNALS)


@given(
    st.floats(0.0, 5.0), st.floats(0.0, 1.0), st.integers(1, 60), st.floats(0.0, 3.0), st.floats(0.5, 30.0)
)  # fmt: skip
def test_qoe_of_a_steady_pace_is_that_of_its_timeline(ttft, tpot, tokens, expected, speed):
    own = steady_qoe(ttft, tpot, tokens, expected, speed)
    times = ttft + tpot * np.arange(tokens)
    if tpot * speed <= 1.0:
        assert own == pytest.approx(float(token_qoe_v1(ttft, times[-1], tokens, expected, speed)), abs=1e-9)
    elif tokens > 20:  # tokens come one by one, the ramp is smooth
        assert own == pytest.approx(token_qoe_v1_walk(times, expected, speed), abs=0.1)
    assert 0.0 <= own <= 1.0


def test_qoe_aware_leaves_a_pool_when_readers_would_wait():
    rows = [(0.06 * i, 40, 40) for i in range(250)]
    reader = SLOClass("chat", expected_ttft_s=0.01, digest_tokens_per_s=150.0)
    level, aware = (
        simulate(fast_and_cheap(max_num_seqs=8), rows, router, slo_classes=(reader,))
        for router in (LeastOutstanding(), QoEAware())
    )
    assert aware.requests["token_qoe"].mean() > level.requests["token_qoe"].mean() + 0.02


def test_preemption_by_qoe_lets_more_readers_have_their_pace():
    """Andes: under overload more requests have a QoE of 0.95, for those ahead of their reader wait for those behind."""
    rows = [(0.02 * i, 40, 60) for i in range(300)]
    reader = SLOClass("chat", expected_ttft_s=0.5, digest_tokens_per_s=6.0)
    fleet = fast_and_cheap(max_num_seqs=8)
    aware, preemptive = (
        simulate(fleet, rows, router, slo_classes=(reader,)) for router in (QoEAware(), QoEPreemptive())
    )
    good = [(result.requests["token_qoe"] >= 0.95).mean() for result in (aware, preemptive)]
    assert good[1] > good[0] + 0.1
    assert aware.requests["preemptions"].sum() == 0 < preemptive.requests["preemptions"].sum()
    own = fast_and_cheap(max_num_seqs=8, scheduler="sjf")
    assert simulate(own, rows, QoEPreemptive(), slo_classes=(reader,)).requests["preemptions"].sum() == 0


def test_the_regret_of_the_bandit_falls():
    rows = [(0.08 * i, 40, 20) for i in range(800)]
    result = simulate(fast_and_cheap(), rows, Bandit(), slo_classes=(RELAXED,))
    wrong = result.requests["pool"] == 0  # the thirsty one; both are in time
    by_quarter = wrong.reshape(4, 200).sum(axis=1)
    assert by_quarter[0] > 0
    assert by_quarter[3] < 0.5 * by_quarter[0]
    assert wrong.sum() < 0.1 * 800
    energy = result.requests["energy_j"].sum()
    assert (
        energy
        < 0.8 * simulate(fast_and_cheap(), rows, LeastOutstanding(), slo_classes=(RELAXED,)).requests["energy_j"].sum()
    )


def test_the_bandit_leaves_a_pool_that_is_late():
    rows = [(0.08 * i, 40, 20) for i in range(800)]
    strict = SLOClass("chat", ttft_s=2.0, tpot_s=0.011)  # too fast for the frugal pool
    result = simulate(fast_and_cheap(), rows, Bandit(), slo_classes=(strict,))
    slow = (result.requests["pool"] == 1).reshape(4, 200).sum(axis=1)
    assert slow[3] <= slow[0]
    assert slow.sum() < 0.1 * 800


def test_a_bandit_that_is_bound_again_knows_nothing():
    router = Bandit()
    first, second = (simulate(fast_and_cheap(), ROWS, router, slo_classes=(RELAXED,)) for _ in range(2))
    assert (first.requests["pool"] == second.requests["pool"]).all()


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Bandit(late=1.5), "router.late"),
        (lambda: Bandit(exploration=-1.0), "router.exploration"),
        (lambda: QoEAware(expected_output=0), "router.expected_output"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key
