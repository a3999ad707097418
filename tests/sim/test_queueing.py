"""Queueing theory: with simple timing an engine is a textbook queue, and has its waiting times."""

from __future__ import annotations

import numpy as np
import pytest
from simpy import Environment

from sim.accounting.signal import Constant
from sim.hardware.timing import StepCost
from sim.request import Request
from sim.rng import Streams
from sim.serving.engine import Engine
from sim.serving.sequence import Sequence
from sim.serving.timer import Timer
from tests.oracles.queueing import FloatArray, interval, response_ps, waiting_mg1, waiting_mmc
from tests.sim.conftest import fleet_of, pool, simulate
from tests.sim.test_quality import Alternate

STEP_S = 0.01
REQUESTS = 20_000


class Metronome:
    """A step takes `fixed_s` and `each_s` for every sequence in it, whatever the contexts."""

    static_w, idle_w, headroom_w = 100.0, 50.0, 1e9
    rho = rho_j = rho_w = rho_w_j = 0.0
    window, skewed = 0, False

    def __init__(self, fixed_s: float, each_s: float) -> None:
        self.fixed_s, self.each_s = fixed_s, each_s

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        seconds = self.fixed_s + self.each_s * (decoding + prefills)
        return StepCost(seconds, seconds, 0.0, 0.0, 0.0, 0.0, 0.0, True)


def serve(
    rate: float, outputs: np.ndarray, timing: Metronome, max_seqs: int
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Serve Poisson arrivals of one-token prompts; arrival, first scheduled and end of each request [s]."""
    arrivals = np.cumsum(Streams(7).get("arrivals").exponential(1.0 / rate, len(outputs)))
    env = Environment()
    engine = Engine(env, timing, 10**7, 16, max_seqs, 10**6, Constant(0.0))
    times = np.zeros((3, len(outputs)))

    def done(seq: Sequence) -> None:
        times[:, seq.request.id] = seq.queued_s, seq.scheduled_s, seq.last_s

    def arrive(number: int) -> None:
        request = Request(number, arrivals[number], 1, int(outputs[number]))
        engine.submit(Sequence(request, arrivals[number], done), arrivals[number])

    for number, at in enumerate(arrivals):
        env.schedule(Timer(env, lambda _event, number=number: arrive(number)), delay=at)
    env.run()
    return times[0], times[1], times[2]


def lengths(kind: str, mean: int) -> np.ndarray:
    rng = Streams(7).get("lengths")
    return np.full(REQUESTS, mean) if kind == "constant" else rng.geometric(1.0 / mean, REQUESTS)


@pytest.mark.parametrize("kind", ["constant", "geometric"])
@pytest.mark.parametrize("load", [0.3, 0.7])
def test_one_sequence_at_a_time_waits_as_in_mg1(kind: str, load: float) -> None:
    """M/D/1, and M/M/1 by the moments of its integer lengths."""
    outputs = lengths(kind, 20)
    service = outputs * STEP_S
    rate = load / service.mean()
    queued, scheduled, _ = serve(rate, outputs, Metronome(STEP_S, 0.0), max_seqs=1)
    low, high = interval(scheduled - queued)
    assert low <= waiting_mg1(rate, service) <= high


@pytest.mark.parametrize("kind", ["constant", "geometric"])
def test_steps_that_do_not_depend_on_n_serve_as_in_mginf(kind: str) -> None:
    """Nobody waits for more than the rest of a step, so time in the system is that of the tokens."""
    outputs = lengths(kind, 50)
    queued, scheduled, end = serve(20.0, outputs, Metronome(STEP_S, 0.0), max_seqs=10_000)
    assert (scheduled - queued).max() <= STEP_S + 1e-9
    assert end - scheduled == pytest.approx(outputs * STEP_S, rel=1e-9)


@pytest.mark.parametrize("kind", ["constant", "geometric"])
def test_steps_proportional_to_n_share_the_processor(kind: str) -> None:
    """With a step of `each_s` a sequence the engine is M/G/1-PS, but for steps that are not infinitely short."""
    outputs = lengths(kind, 200)
    each_s = 1e-3
    service = outputs * each_s
    rate = 0.6 / service.mean()
    queued, _, end = serve(rate, outputs, Metronome(0.0, each_s), max_seqs=10_000)
    low, high = interval(end - queued)
    theory, grain = response_ps(rate, service), 3.0 * each_s / (1.0 - 0.6)  # a join waits for the rest of a step
    assert low - grain <= theory <= high + grain


@pytest.mark.parametrize(("servers", "load"), [(2, 0.7), (8, 0.8)])
def test_a_few_seats_wait_as_in_mmc(servers: int, load: float) -> None:
    """Steps that do not depend on n make every seat a server, and geometric lengths are nearly exponential."""
    outputs = lengths("geometric", 60)
    service_s = float(outputs.mean()) * STEP_S
    rate = load * servers / service_s
    queued, scheduled, _ = serve(rate, outputs, Metronome(STEP_S, 0.0), max_seqs=servers)
    low, high = interval(scheduled - queued)
    assert low - STEP_S <= waiting_mmc(rate, service_s, servers) <= high  # a free seat is taken at the next step only


def test_erlang_c_by_hand() -> None:
    assert waiting_mmc(0.5, 1.0, 1) == pytest.approx(1.0)  # M/M/1: rho / (mu - lambda)
    assert waiting_mmc(1.0, 1.0, 2) == pytest.approx(1.0 / 3.0)  # P(wait) = 1/3, over c mu - lambda = 1


def test_littles_law_holds_in_every_pool() -> None:
    """Mean number in the system times time is the sum of the times in it, on every path that ends empty."""
    rng = Streams(3).get("rows")
    times_s = np.cumsum(rng.exponential(0.05, 300))
    rows = [(float(at), int(rng.integers(5, 400)), int(rng.integers(1, 60))) for at in times_s]
    result = simulate(fleet_of(pool("a"), pool("b", replicas=2)), rows, Alternate())
    columns, timeline = result.requests, result.timeline
    for index in (0, 1):
        mine, bins = columns["pool"] == index, timeline["pool"] == index
        inside = (timeline["queue"][bins] + timeline["running"][bins]) * timeline["bin_s"][bins]
        times = sum(columns[name][mine] for name in ("queue_s", "prefill_s", "decode_s"))
        assert float(inside.sum()) == pytest.approx(float(np.sum(times)), rel=1e-9)
        assert int(mine.sum()) == int(timeline["arrivals"][bins].sum())
