"""Routers on tiny fleets of fake pools: each sends a request where its rule says, and nowhere it does not fit."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

import sim.routing
from scenarios.targets import instantiate
from sim.errors import InputError
from sim.request import Request
from sim.routing import (
    CloudOnly,
    DeviceOnly,
    EdgeOnly,
    LeastOutstanding,
    LeastTokens,
    LengthThreshold,
    MinPredictedLatency,
    PowerOfTwo,
    Random,
    RoundRobin,
    Spillover,
)


@dataclass
class FakePool:
    name: str
    site_kind: str = "cloud"
    replicas: int = 1
    outstanding: int = 0
    outstanding_tokens: int = 0
    waiting: int = 0
    kv_use: float = 0.0
    max_tokens: int = 10_000
    latency_s: float = 1.0
    s_per_output_token: float = 0.0
    site_name: str = "site"
    model_id: str = "model"
    xpu_id: str = "xpu"

    def kv_exceeds(self, share: float) -> bool:
        return self.kv_use > share

    def predicted_latency_s(self, prompt: int, output: int) -> float:
        return self.latency_s + self.s_per_output_token * output


@dataclass
class FakeFleet:
    pools: list[FakePool]
    rng: random.Random = field(default_factory=lambda: random.Random(1))
    now: float = 0.0


def ask(prompt=100, output=50):
    return Request(0, 0.0, prompt, output)


def pick(router, *pools, request=None):
    """Bind `router` to a fleet of `pools` and return the name of the one it chooses."""
    fleet = FakeFleet(list(pools))
    router.bind(fleet)
    pool = router.choose(request or ask(), fleet)
    return pool.name if pool is not None else None


def counts(router, fleet, n):
    router.bind(fleet)
    return Counter(router.choose(ask(), fleet).name for _ in range(n))


EDGE, CLOUD = FakePool("edge", "edge"), FakePool("cloud", "cloud")
EVERY_ROUTER = [
    CloudOnly(),
    LeastOutstanding(),
    LeastTokens(),
    LengthThreshold(500),
    MinPredictedLatency(),
    PowerOfTwo(),
    Random(),
    RoundRobin(),
    Spillover(),
]


@pytest.mark.parametrize(("router", "kind"), [(CloudOnly(), "cloud"), (EdgeOnly(), "edge"), (DeviceOnly(), "device")])
def test_one_kind_only_whatever_the_load(router, kind):
    pools = [FakePool(name, name) for name in ("device", "edge", "cloud")]
    next(pool for pool in pools if pool.name == kind).outstanding = 1000
    assert pick(router, *pools) == kind


def test_cloud_only_takes_the_less_loaded_cloud_pool():
    assert pick(CloudOnly(), EDGE, FakePool("a", outstanding=3), FakePool("b", outstanding=2)) == "b"


@pytest.mark.parametrize(
    ("router", "message"),
    [
        (CloudOnly(), "router='cloud_only' is not valid; accepted: a fleet with a cloud site; this one has: edge"),
        (DeviceOnly(), "router='device_only' is not valid; accepted: a fleet with a device site; this one has: edge"),
        (Spillover(), "router='spillover' .* a site besides edge"),
        (Spillover(prefer="cloud"), "router='spillover' .* a fleet with a cloud site"),
        (LengthThreshold(10), "router='length_threshold' .* a fleet with a cloud site"),
    ],
)
def test_a_fleet_that_lacks_what_a_router_needs(router, message):
    with pytest.raises(InputError, match=message):
        router.bind(FakeFleet([EDGE]))


@pytest.mark.parametrize("router", EVERY_ROUTER, ids=lambda router: type(router).__name__)
def test_nothing_goes_where_it_does_not_fit(router):
    small = FakePool("small", "edge", max_tokens=149)
    large = FakePool("large", "cloud", max_tokens=150, outstanding=9, outstanding_tokens=900, latency_s=9.0, waiting=9)
    assert pick(router, small, large) == "large"
    assert pick(router, small, FakePool("large", "cloud", max_tokens=149)) is None


def test_round_robin_is_smooth_and_weighted_by_replicas():
    fleet, router = FakeFleet([FakePool("a", replicas=2), FakePool("b")]), RoundRobin()
    router.bind(fleet)
    order = "".join(router.choose(ask(), fleet).name for _ in range(9))
    assert order == "abaabaaba"


def test_round_robin_starts_again_when_bound_again():
    fleet, router = FakeFleet([FakePool("a"), FakePool("b")]), RoundRobin()
    for _ in range(2):
        router.bind(fleet)
        assert router.choose(ask(), fleet).name == "a"


def test_random_is_weighted_by_replicas():
    shares = counts(Random(), FakeFleet([FakePool("a", replicas=3), FakePool("b")]), 4000)
    assert shares["a"] == pytest.approx(3000, abs=4 * (4000 * 0.75 * 0.25) ** 0.5)


def test_load_is_compared_per_replica():
    pools = FakePool("a", replicas=4, outstanding=6, outstanding_tokens=100), FakePool("b", outstanding=2)
    pools[1].outstanding_tokens = 24
    assert pick(LeastOutstanding(), *pools) == "a"
    assert pick(LeastTokens(), *pools) == "b"
    pools[1].outstanding_tokens = 26
    assert pick(LeastTokens(), *pools) == "a"


def test_equal_load_goes_to_the_first():
    assert pick(LeastOutstanding(), FakePool("a"), FakePool("b")) == "a"
    assert pick(LeastTokens(), FakePool("a"), FakePool("b")) == "a"


def test_power_of_two_avoids_the_busiest_of_three():
    idle, middle, busy = FakePool("idle"), FakePool("middle", outstanding=1), FakePool("busy", outstanding=2)
    shares = counts(PowerOfTwo(), FakeFleet([busy, middle, idle]), 3000)
    # Of the three equally likely pairs, two hold the idle pool and one only the other two.
    assert shares["busy"] == 0
    assert shares["idle"] == pytest.approx(2000, abs=4 * (3000 * 2 / 9) ** 0.5)


def test_power_of_two_draws_replicas_not_pools():
    many, one = FakePool("many", replicas=9, outstanding=9), FakePool("one", outstanding=0)
    shares = counts(PowerOfTwo(), FakeFleet([many, one]), 5000)
    assert shares["one"] == pytest.approx(1000, abs=4 * (5000 * 0.2 * 0.8) ** 0.5)


def test_min_predicted_latency_uses_the_expected_output_if_given():
    near = FakePool("near", latency_s=0.1, s_per_output_token=0.1)
    fast = FakePool("fast", latency_s=1.0, s_per_output_token=0.01)
    assert pick(MinPredictedLatency(), near, fast, request=ask(output=5)) == "near"
    assert pick(MinPredictedLatency(), near, fast, request=ask(output=50)) == "fast"
    assert pick(MinPredictedLatency(expected_output=5), near, fast, request=ask(output=50)) == "near"


@pytest.mark.parametrize(
    ("edge", "chosen"),
    [
        (FakePool("edge", "edge", 2, outstanding=50, waiting=4, kv_use=0.8), "edge"),
        (FakePool("edge", "edge", 2, outstanding=50, waiting=5, kv_use=0.8), "cloud"),
        (FakePool("edge", "edge", 2, outstanding=50, waiting=4, kv_use=0.81), "cloud"),
        (FakePool("edge", "edge", 2, outstanding=63, waiting=0, kv_use=0.0), "edge"),
        (FakePool("edge", "edge", 2, outstanding=64, waiting=0, kv_use=0.0), "cloud"),
    ],
)
def test_spillover_at_each_limit(edge, chosen):
    router = Spillover(waiting_per_replica=2, kv_watermark=0.8, outstanding_per_replica=32)
    assert pick(router, FakePool("cloud", outstanding=99), edge) == chosen


def test_spillover_tries_every_preferred_pool_and_returns_to_a_full_one_if_nothing_else_holds_the_request():
    full, free = FakePool("full", "edge", kv_use=0.95), FakePool("free", "edge", outstanding=9)
    assert pick(Spillover(), full, free, CLOUD) == "free"
    assert pick(Spillover(), full, FakePool("cloud", max_tokens=100)) == "full"
    assert pick(Spillover(prefer="cloud"), EDGE, CLOUD) == "cloud"


@pytest.mark.parametrize(
    ("prompt", "output", "side"), [(500, 100, "edge"), (501, 100, "cloud"), (500, 101, "cloud"), (1, 1, "edge")]
)
def test_length_threshold(prompt, output, side):
    assert pick(LengthThreshold(500, 100), EDGE, CLOUD, request=ask(prompt, output)) == side


def test_length_threshold_falls_back_to_the_side_that_can_hold_the_request():
    assert pick(LengthThreshold(500), EDGE, FakePool("cloud", max_tokens=100), request=ask(600)) == "edge"
    assert pick(LengthThreshold(500, short="cloud", long="edge"), EDGE, CLOUD, request=ask(600)) == "edge"


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Spillover(prefer="moon"), "router.prefer"),
        (lambda: Spillover(waiting_per_replica=-1), "router.waiting_per_replica"),
        (lambda: Spillover(waiting_per_replica="two"), "router.waiting_per_replica"),
        (lambda: Spillover(kv_watermark=1.1), "router.kv_watermark"),
        (lambda: Spillover(kv_watermark=float("nan")), "router.kv_watermark"),
        (lambda: Spillover(outstanding_per_replica=0), "router.outstanding_per_replica"),
        (lambda: LengthThreshold(None), "router.prompt_tokens"),
        (lambda: LengthThreshold(-1), "router.prompt_tokens"),
        (lambda: LengthThreshold(1, output_tokens=True), "router.output_tokens"),
        (lambda: LengthThreshold(1, short="edge", long="edge"), "router.long"),
        (lambda: LengthThreshold(1, long=3), "router.long"),
        (lambda: MinPredictedLatency(expected_output=0), "router.expected_output"),
        (lambda: MinPredictedLatency(expected_output=2.5), "router.expected_output"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key


def test_every_router_file_builds_its_router_and_says_what_it_is():
    files = sorted((Path(__file__).parents[2] / "conf" / "router").glob("*.yaml"))
    built = set()
    for file in files:
        settings = yaml.safe_load(file.read_text())
        assert settings.pop("about")["description"], file
        router = instantiate(settings, "router")
        assert isinstance(getattr(router, "balancer", "none of its own"), str)
        built.add(type(router).__name__)
    assert built == set(sim.routing.__all__) - {"FleetView", "Outcome", "Policy", "PoolView", "Router"}
