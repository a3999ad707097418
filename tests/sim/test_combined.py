"""Routers inside routers: private requests stay where they may be, and old news makes routers herd."""

from __future__ import annotations

import numpy as np
import pytest

from sim import Fleet, InputError, Site, SLOClass, run
from sim.rng import Streams
from sim.routing import (
    Bandit,
    CarbonSLO,
    CloudOnly,
    LeastOutstanding,
    MinPredictedLatency,
    PrivacyPin,
    Random,
    RoundRobin,
    Spillover,
    Stale,
)
from sim.workload import Fixed, Poisson, SyntheticWorkload
from tests.sim.conftest import Spy, StepSignal, pool, simulate

RELAXED = SLOClass("chat", ttft_s=2.0, tpot_s=0.2)


def three_kinds(**changes: object) -> Fleet:
    return Fleet(
        [
            Site(kind, kind, [pool(kind, **changes)], StepSignal(1.0, [100.0, 300.0]))
            for kind in ("device", "edge", "cloud")
        ]
    )


def partly_private(share: float, limit: int = 300) -> SyntheticWorkload:
    return SyntheticWorkload(
        Poisson(40.0), Fixed(40, 10), limit=limit, privacy={"share": share}, slo_classes=(RELAXED,)
    )


def served(fleet, workload, router):
    """Where requests went, and which were private."""
    spy, private = Spy(router), []
    choose = spy.choose
    spy.choose = lambda request, fleet: private.append(request.traits.private) or choose(request, fleet)
    result = run(fleet, workload, spy, seed=1)
    return result.requests["pool"].astype(int), np.array(private) > 0, result


@pytest.mark.parametrize(
    "inner",
    [
        LeastOutstanding(),
        RoundRobin(),
        Random(),
        MinPredictedLatency(),
        CarbonSLO(),
        Bandit(),
        Stale(LeastOutstanding()),
    ],
    ids=lambda router: type(router).__name__,
)
def test_private_requests_stay_whatever_the_router(inner):
    at, private, _ = served(three_kinds(), partly_private(0.3), PrivacyPin(inner, RoundRobin()))
    assert private.mean() == pytest.approx(0.3, abs=4 * (0.21 / 300) ** 0.5)
    assert set(at[private]) <= {0, 1}
    assert np.bincount(at[~private]).tolist() == pytest.approx([len(at[~private]) / 3] * 3, abs=1)


def test_others_are_routed_as_if_nobody_were_private():
    at, private, _ = served(three_kinds(), partly_private(0.0), PrivacyPin(RoundRobin(), LeastOutstanding()))
    alone, _, _ = served(three_kinds(), partly_private(0.0), LeastOutstanding())
    assert not private.any()
    assert (at == alone).all()


def test_privacy_costs_latency_where_the_edge_is_small():
    fleet = Fleet(
        [Site("edge", "edge", [pool("edge", engine={"max_num_seqs": 2})]), Site("cloud", "cloud", [pool("cloud")])]
    )
    means = []
    for share in (0.0, 0.4, 0.9):
        router = PrivacyPin(LeastOutstanding(), Spillover())
        means.append(served(fleet, partly_private(share), router)[2].requests["e2e_s"].mean())
    assert means[0] < means[1] < means[2]


def test_a_private_request_that_no_allowed_pool_holds_is_rejected():
    edge, cloud = pool("edge", engine={"kv_blocks": 3}), pool("cloud")
    fleet = Fleet([Site("edge", "edge", [edge]), Site("cloud", "cloud", [cloud])])
    at, private, result = served(fleet, partly_private(0.5), PrivacyPin(LeastOutstanding(), CloudOnly(), ["edge"]))
    assert (at[private] == -1).all()
    assert (at[~private] == 1).all()
    assert (result.requests["status"][private] == 1).all()


def test_combinations_nest():
    inner = PrivacyPin(RoundRobin(), LeastOutstanding(), ["edge"])
    router = Stale(PrivacyPin(Stale(inner, 0.1), Stale(Bandit()), ["device", "edge"]), 0.05)
    at, private, result = served(three_kinds(), partly_private(0.5), router)
    assert (at[private] == 1).all()
    assert len(set(at[~private])) == 3
    assert (result.requests["status"] == 0).all()


def test_a_router_inside_learns_as_it_would_alone():
    alone, _, _ = served(three_kinds(), partly_private(0.0), Bandit())
    inside, _, _ = served(three_kinds(), partly_private(0.0), PrivacyPin(RoundRobin(), Bandit()))
    assert (inside == alone).all()


def test_privacy_is_a_stream_of_its_own():
    batches = [next(partly_private(share).batches(Streams(3))) for share in (0.1, 0.6)]
    assert (batches[0].arrival_s == batches[1].arrival_s).all()
    few, many = (np.array([row.private for row in batch.traits]) for batch in batches)
    assert (many >= few).all()
    assert few.sum() < many.sum()


def test_news_without_delay_changes_nothing():
    rows = [(0.004 * i, 40, 20) for i in range(200)]
    for make in (LeastOutstanding, MinPredictedLatency, Spillover):
        one, two = (
            simulate(three_kinds(), rows, router, slo_classes=(RELAXED,)) for router in (make(), Stale(make(), 0.0))
        )
        assert (one.requests["pool"] == two.requests["pool"]).all()


def test_old_news_makes_a_router_herd():
    fleet = Fleet([Site(f"site {i}", "cloud", [pool(f"pool {i}", engine={"max_num_seqs": 8})]) for i in range(6)])
    rows, means = [(0.006 * i, 40, 20) for i in range(1200)], []
    for staleness_s in (0.0, 0.5, 2.0):
        result = simulate(fleet, rows, Stale(LeastOutstanding(), staleness_s), slo_classes=(RELAXED,))
        means.append(result.requests["e2e_s"].mean())
    blind = simulate(fleet, rows, RoundRobin(), slo_classes=(RELAXED,)).requests["e2e_s"].mean()
    assert means[0] < means[1] < means[2]
    assert means[2] > 2 * blind  # worse than not to look at all


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: PrivacyPin(3, RoundRobin()), "router.private"),
        (lambda: PrivacyPin(RoundRobin(), {"weights": 1}), "router.other"),
        (lambda: PrivacyPin(RoundRobin(), RoundRobin), "router.other"),
        (lambda: PrivacyPin(RoundRobin(), RoundRobin(), ["moon"]), "router.kinds"),
        (lambda: PrivacyPin(RoundRobin(), RoundRobin(), "edge"), "router.kinds"),
        (lambda: Stale(None), "router.router"),
        (lambda: Stale(RoundRobin(), -1.0), "router.staleness_s"),
        (lambda: Stale(RoundRobin(), 1.0, -1.0), "router.every_s"),
        (lambda: partly_private(1.5), "workload.privacy.share"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key


def test_a_fleet_without_a_private_place_is_refused():
    fleet = Fleet([Site("cloud", "cloud", [pool()])])
    with pytest.raises(InputError, match=r"router='privacy_pin' .* kind device or edge; this one has: cloud"):
        simulate(fleet, [(0.0, 1, 1)], PrivacyPin(RoundRobin(), RoundRobin()))
    with pytest.raises(InputError, match=r"router='cloud_only' .* a fleet with a cloud site; this one has: edge"):
        simulate(three_kinds(), [(0.0, 1, 1)], PrivacyPin(CloudOnly(), RoundRobin(), ["edge"]))
