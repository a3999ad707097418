"""Balancers spread as they promise, loads come back to zero, and predictions order pools as anyone would."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim import InputError, Link
from sim.fleet.balancers import BALANCERS, BY_TOKENS, balancer_of
from sim.fleet.network import LiveLink
from sim.fleet.replicas import KV_AGE_S, KV_ASKED, ReplicaPool
from sim.request import Request
from sim.rng import Streams
from tests.sim.conftest import First, live_pool, pool, xpu


def request(number: int, prompt: int = 20, output: int = 5, arrival_s: float = 0.0) -> Request:
    return Request(number, arrival_s, prompt, output)


def spread(live: ReplicaPool, count: int) -> Counter[int]:
    """Send requests and count, by replica, those that its engine got."""
    for number in range(count):
        live.send(request(number))
    return Counter({i: len(engine.running) + len(engine.waiting) for i, engine in enumerate(live.engines)})


def test_round_robin_takes_turns() -> None:
    live = live_pool(pool(replicas=4), "round_robin")
    assert spread(live, 10) == {0: 3, 1: 3, 2: 2, 3: 2}


def test_least_outstanding_levels_out() -> None:
    live = live_pool(pool(replicas=4), "least_outstanding")
    assert spread(live, 10) == {0: 3, 1: 3, 2: 2, 3: 2}


def test_random_is_uniform() -> None:
    counts = spread(live_pool(pool(replicas=4), "random"), 4000)
    # chi-squared with 3 degrees of freedom is above 16.3 once in a thousand; the seed is fixed
    assert sum((counts[i] - 1000) ** 2 / 1000 for i in range(4)) < 16.3
    assert counts[0] != 1000


def test_power_of_two_beats_random() -> None:
    replicas, count = 50, 1000
    two = spread(live_pool(pool(replicas=replicas), "power_of_two"), count)
    one = spread(live_pool(pool(replicas=replicas), "random"), count)
    # the fullest of n replicas is ln ln n above the mean with two choices, several sqrt(mean) with one
    assert max(two.values()) <= count // replicas + 4 < max(one.values())


def test_power_of_two_takes_the_less_loaded_of_its_draws() -> None:
    live = live_pool(pool(replicas=5), "power_of_two")
    rng, twin = random.Random(9), random.Random(9)
    live.rng = rng
    for number in range(200):
        first, second = int(twin.random() * 5), int(twin.random() * 5)
        expected = second if live.loads[second] < live.loads[first] else first
        before = list(live.loads)
        live.send(request(number))
        assert [after - b for after, b in zip(live.loads, before)] == [int(i == expected) for i in range(5)]


def test_least_tokens_weighs_requests() -> None:
    live = live_pool(pool(replicas=2), "least_tokens")
    for number, prompt in enumerate([100, 10, 10, 10, 95]):
        live.send(request(number, prompt, 1))
    assert live.loads == [101, 11 + 11 + 11 + 96]


@pytest.mark.parametrize("name", ["least_outstanding", "least_tokens"])
def test_least_loaded_of_a_thousand_equals_a_scan(name: str) -> None:
    live, rng = live_pool(pool(replicas=1000, engine={"kv_blocks": 8}), name), random.Random(4)
    held: list[tuple[int, int]] = []
    pick = BALANCERS[name]
    for _ in range(12_000):
        if held and rng.random() < 0.45:
            replica, load = held.pop(rng.randrange(len(held)))
            live._change_load(replica, -load)
        else:
            replica = pick(live, request(0))
            assert replica == min(range(1000), key=lambda i: (live.loads[i], i))
            load = rng.randint(1, 50) if name == "least_tokens" else 1
            live._change_load(replica, load)
            held.append((replica, load))
    assert len(live.order) <= 4 * 1000 + 64


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(sorted(BALANCERS)),
    st.integers(1, 5),
    st.lists(st.tuples(st.floats(0.0, 0.05), st.integers(1, 60), st.integers(1, 20)), min_size=1, max_size=30),
)
def test_loads_return_to_zero(name: str, replicas: int, rows: list[tuple[float, int, int]]) -> None:
    env = Environment()
    live = live_pool(pool(replicas=replicas, engine={"kv_blocks": 12, "max_num_seqs": 4}), name, env)

    def clients():
        for number, (pause, prompt, output) in enumerate(rows):
            yield env.timeout(pause)
            live.send(request(number, prompt, output, env.now))
            if replicas > 1:  # nobody asks a lone replica for its load
                load = live.outstanding_tokens if name in BY_TOKENS else live.outstanding
                assert sum(live.loads) == load
            assert live.outstanding <= number + 1
            assert live.waiting == sum(len(engine.waiting) for engine in live.engines)

    env.process(clients())
    env.run()
    assert live.outstanding == live.outstanding_tokens == live.output_tokens == live.waiting == 0
    assert live.loads == [0] * replicas
    assert live.kv_use == 0.0


def test_use_of_memory_and_queue_show_at_once() -> None:
    live = live_pool(pool(engine={"kv_blocks": 11, "max_num_seqs": 4}))
    live.send(request(0, 33))  # three of ten usable blocks of 16
    assert live.blocks == 10
    assert live.kv_use == 0.3
    assert live.waiting == 0
    live.send(request(1, 100))  # seven are enough now, too
    live.send(request(2, 1))
    assert live.waiting == 1
    assert live.kv_use == 1.0
    assert (live.outstanding, live.outstanding_tokens) == (3, 38 + 105 + 6)


def test_a_large_pool_is_asked_for_its_memory_now_and_then() -> None:
    env = Environment()
    small, large = (live_pool(pool(replicas=n, engine={"kv_blocks": 11}), env=env) for n in (KV_ASKED, KV_ASKED + 1))
    for live in (small, large):
        assert live.kv_use == 0.0
        live.send(request(0, 33, 200))
    assert small.kv_use == pytest.approx(3 / (10 * KV_ASKED))
    assert large.kv_use == 0.0
    env.run(until=KV_AGE_S)
    assert large.kv_use == sum(engine.used_blocks() for engine in large.engines) / (10 * large.replicas) > 0.0


def test_what_a_pool_can_hold() -> None:
    # the last token is never read back, so it needs no KV
    assert live_pool(pool(engine={"kv_blocks": 11, "block_size": 4})).max_tokens == 41
    assert live_pool(pool(engine={"kv_blocks": 11, "block_size": 4, "max_model_len": 30})).max_tokens == 30


def test_an_idle_fast_pool_is_predicted_before_a_loaded_slow_one() -> None:
    fast, slow = live_pool(pool(xpu=xpu(2.0))), live_pool(pool(xpu=xpu(0.5)))
    assert fast.predicted_latency_s(50, 50) < slow.predicted_latency_s(50, 50)
    idle = slow.predicted_latency_s(50, 50)
    for number in range(20):
        slow.send(request(number, 50, 50))
    assert slow.predicted_latency_s(50, 50) > idle
    assert fast.predicted_latency_s(50, 50) < slow.predicted_latency_s(50, 50)


def test_prediction_of_an_idle_pool_is_close_to_what_happens() -> None:
    env = Environment()
    live = live_pool(pool(), env=env)
    predicted = live.predicted_latency_s(60, 40)
    live.send(request(0, 60, 40))
    env.run()
    assert predicted == pytest.approx(live.engines[0].end_s, rel=0.05)


def test_prediction_grows_with_length_load_and_distance() -> None:
    live = live_pool(pool(engine={"max_num_seqs": 4}))
    assert live.predicted_latency_s(60, 40) < live.predicted_latency_s(120, 40) < live.predicted_latency_s(120, 41)
    steps = []
    for number in range(30):
        steps.append(live.predicted_latency_s(60, 40))
        live.send(request(number, 60, 40))
    assert steps == sorted(steps)
    assert steps[-1] > 4 * steps[0]  # 30 requests through 4 seats
    link = LiveLink(Environment(), Link("l", "client", "site", 0.1), Streams(0).get("l"))
    far = live_pool(pool(engine={"max_num_seqs": 4}), link=link)
    assert far.predicted_latency_s(60, 40) == pytest.approx(steps[0] + 0.2, rel=1e-12)


def test_who_names_the_balancer() -> None:
    assert balancer_of(pool(balancer="random"), First("round_robin")) == "random"
    assert balancer_of(pool(), First("round_robin")) == "round_robin"
    assert balancer_of(pool(), object()) == "least_outstanding"
    with pytest.raises(InputError, match=r"pools\.pool\.balancer='magic'.*round_robin"):
        balancer_of(pool(balancer="magic"), First())
