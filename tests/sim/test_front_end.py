"""The way in: API servers queue as queueing theory says, per replica, and cost nothing where they take no time."""

from __future__ import annotations

import math
from heapq import heappop, heappush
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simpy import Environment

from sim import EngineSettings, InputError, Result
from sim.fleet.front_end import FrontEnd
from sim.request import Request
from sim.results import STATUSES
from sim.rng import Streams
from sim.serving.timer import Timer
from tests.oracles.queueing import interval, waiting_mg1
from tests.sim.conftest import fleet_of, live_pool, pool, simulate

COMPLETED, IN_FLIGHT = STATUSES.index("completed"), STATUSES.index("in_flight")


def through(arrivals: np.ndarray, prompts: np.ndarray, **engine: Any) -> np.ndarray:
    """Send prompts through one replica's front end; when each came out [s]."""
    env = Environment()
    out = np.full(len(arrivals), np.nan)

    def deliver(request: Request, replica: int) -> None:
        out[request.id] = env.now

    front = FrontEnd(env, EngineSettings(**engine), 1, deliver)
    for number, (at, prompt) in enumerate(zip(arrivals.tolist(), prompts.tolist())):
        request = Request(number, at, prompt, 1)
        env.schedule(Timer(env, lambda _event, request=request: front.enter(request, 0)), delay=at)
    env.run()
    return out


def served(rows: list[tuple[float, int, int]], run: dict[str, Any] | None = None, **changes: Any) -> Result:
    return simulate(fleet_of(pool(**changes)), rows, **(run or {}))


@pytest.mark.parametrize("kind", ["constant", "geometric"])
@pytest.mark.parametrize("load", [0.3, 0.8])
def test_one_process_waits_as_in_mg1(kind: str, load: float) -> None:
    """M/D/1 for equal prompts."""
    count = 20_000
    rng = Streams(11).get("lengths")
    prompts = np.full(count, 40) if kind == "constant" else rng.geometric(1 / 40, count)
    service = 2e-3 + 1e-4 * prompts
    rate = load / service.mean()
    arrivals = np.cumsum(Streams(11).get("arrivals").exponential(1.0 / rate, count))
    waits = through(arrivals, prompts, tokenize_s=2e-3, tokenize_s_per_token=1e-4) - arrivals - service
    low, high = interval(waits)
    assert low <= waiting_mg1(rate, service) <= high
    assert waits.min() >= -1e-9


@settings(max_examples=100, deadline=None)
@given(
    st.integers(1, 4),
    st.lists(st.tuples(st.floats(0.0, 0.05), st.integers(1, 200)), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.02]),
)
def test_processes_serve_as_in_a_loop_over_busy_ones(
    workers: int, rows: list[tuple[float, int]], latency_s: float
) -> None:
    arrivals, prompts = np.cumsum([gap for gap, _ in rows]), np.array([prompt for _, prompt in rows])
    settings_ = {"tokenize_s": 0.01, "tokenize_s_per_token": 5e-4, "front_end_s": latency_s}
    out = through(arrivals, prompts, front_end_workers=workers, **settings_)
    busy: list[float] = []  # ends of the services under way
    for arrival, prompt, end in zip(arrivals, prompts, out):
        while busy and busy[0] <= arrival:
            heappop(busy)
        start = arrival if len(busy) < workers else heappop(busy)
        heappush(busy, start + 0.01 + 5e-4 * prompt)
        assert end == pytest.approx(start + 0.01 + 5e-4 * prompt + latency_s, rel=1e-12, abs=1e-12)


def test_a_queue_by_hand() -> None:
    rows = [(0.0, 100, 1), (0.0, 50, 1), (1.0, 10, 1)]
    engine = {"tokenize_s": 0.1, "tokenize_s_per_token": 1e-3, "front_end_s": 0.05}
    one = served(rows, engine=engine).requests["uplink_s"]
    assert one == pytest.approx([0.25, 0.4, 0.16], rel=1e-12)  # the second waits for the first, not for its latency
    two = served(rows, engine=engine | {"front_end_workers": 2}).requests["uplink_s"]
    assert two == pytest.approx([0.25, 0.2, 0.16], rel=1e-12)


def test_a_latency_occupies_nothing() -> None:
    result = served([(0.0, 100, 1)] * 5, engine={"front_end_s": 0.05})
    assert result.requests["uplink_s"] == pytest.approx([0.05] * 5, rel=1e-12)


def test_each_replica_has_its_own() -> None:
    result = served([(0.0, 10, 1)] * 6, engine={"tokenize_s": 0.2}, replicas=3, balancer="round_robin")
    assert result.requests["replica"].tolist() == [0, 1, 2] * 2
    assert result.requests["uplink_s"] == pytest.approx([0.2] * 3 + [0.4] * 3, rel=1e-12)


def test_a_short_prompt_overtakes_on_another_process() -> None:
    engine = {"tokenize_s_per_token": 1e-2, "front_end_workers": 2, "max_num_seqs": 1}
    requests = served([(0.0, 100, 1), (0.0, 10, 1)], engine=engine).requests
    assert requests["uplink_s"] == pytest.approx([1.0, 0.1], rel=1e-12)
    assert requests["queue_s"].tolist() == [0.0, 0.0]


def test_saturation_grows_without_bound() -> None:
    rows = [(0.01 * i, 10, 1) for i in range(400)]
    uplink = served(rows, engine={"tokenize_s": 0.02}).requests["uplink_s"]
    assert uplink == pytest.approx([0.02 + 0.01 * i for i in range(400)], rel=1e-9)


def test_who_is_in_the_front_end_at_the_horizon_is_in_flight() -> None:
    rows = [(0.1 * i, 10, 1) for i in range(10)]
    result = served(rows, {"horizon_s": 1.05, "drain": False}, engine={"tokenize_s": 0.3})
    status, requests = result.requests["status"], result.requests
    assert status.tolist() == [COMPLETED] * 3 + [IN_FLIGHT] * 7  # out at 0.3, 0.6, 0.9
    assert np.isnan(requests["uplink_s"][3:]).all()
    assert requests["replica"].tolist() == [0] * 3 + [-1] * 7
    assert (requests["output_tokens"][3:] == 0).all()
    assert (requests["energy_j"][3:] == 0.0).all()


def test_no_time_means_no_front_end_and_no_event() -> None:
    env = Environment()
    live = live_pool(pool(engine={"front_end_workers": 4}), env=env)
    assert live.front_end is None
    live.send(Request(0, 0.0, 10, 1))
    assert len(env._queue) == 1  # the engine's own wake-up
    assert not live.uploading


def test_prediction_counts_the_front_end() -> None:
    env = Environment()
    engine = {"tokenize_s": 0.1, "tokenize_s_per_token": 1e-3, "front_end_s": 0.05}
    plain, live = live_pool(pool()), live_pool(pool(engine=engine), env=env)
    assert live.predicted_latency_s(50, 5) - plain.predicted_latency_s(50, 5) == pytest.approx(0.2, rel=1e-9)
    front = live.front_end
    assert front is not None
    for number in range(3):
        front.enter(Request(number, 0.0, 100, 1), 0)
    live.uploading = {number: Request(number, 0.0, 100, 1) for number in range(3)}
    assert front.predicted_s(50) == pytest.approx(0.6 + 0.2, rel=1e-12)
    env.run(until=0.25)
    assert front.predicted_s(50) == pytest.approx(0.35 + 0.2, rel=1e-12)


@pytest.mark.parametrize("key", ["front_end_s", "tokenize_s", "tokenize_s_per_token", "detokenize_s"])
@pytest.mark.parametrize("value", ["a", None, True, -1.0, math.nan, math.inf])
def test_times_are_checked(key: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"engine\.{key}=.*a time >= 0 s"):
        EngineSettings(**{key: value})


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "2", None])
def test_workers_are_checked(value: Any) -> None:
    with pytest.raises(InputError, match=r"engine\.front_end_workers=.*whole number of at least 1"):
        EngineSettings(front_end_workers=value)
