"""Prefixes and adapters: the index knows what replicas hold, and routers that follow it compute and load less."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Fleet, InputError, Site, SLOClass, run
from sim.fleet.balancers import ADAPTER_SLACK, BALANCERS
from sim.request import Request, Traits
from sim.routing import AdapterAffinity, LeastOutstanding, PrefixAffinity, RoundRobin
from sim.serving.adapters import AdapterSlots
from sim.serving.prefix_cache import PrefixCache
from sim.workload import Fixed, Independent, LogNormal, Poisson, SessionWorkload, SyntheticWorkload
from tests.sim.conftest import Spy, live_pool, pool, xpu

RELAXED = SLOClass("chat", ttft_s=0.3, tpot_s=0.1)


def conversations(rate: float, limit: int) -> SessionWorkload:
    lengths = Independent(LogNormal(median=40, mean=60), LogNormal(median=20, mean=30))
    return SessionWorkload(
        Poisson(rate), lengths, {"mean": 4}, {"median_s": 2.0, "sigma": 1.0}, limit=limit, slo_classes=(RELAXED,),
        prefix={"tokens": 128, "groups": 4, "unit": 16}, max_context_tokens=2000,
    )  # fmt: skip


def caching(sites: int, replicas: int) -> Fleet:
    engine = {"prefix_caching": True, "kv_blocks": 600, "max_num_seqs": 16}
    slow = xpu(timing={"compute_eff": 0.05})  # at prompts: 0.2 ms a token
    pools = [pool(f"pool {i}", xpu=slow, replicas=replicas, engine=engine) for i in range(sites)]
    return Fleet([Site(f"site {i}", "cloud", [each]) for i, each in enumerate(pools)])


def hits(result) -> float:
    requests, done = result.requests, result.requests["status"] == 0
    return float(requests["cached_tokens"][done].sum() / requests["prompt_tokens"][done].sum())


def test_prefix_affinity_finds_more_and_answers_sooner():
    turns, least, affine = (
        run(caching(3, 3), conversations(10.0, 1500), router, seed=1)
        for router in (RoundRobin(), LeastOutstanding(), PrefixAffinity(reject=False))
    )
    assert hits(affine) > 1.2 * max(hits(turns), hits(least))
    assert affine.requests["ttft_s"].mean() < 0.9 * turns.requests["ttft_s"].mean()


def test_early_rejection_keeps_what_is_served_in_time():
    fleet, load = caching(1, 1), SyntheticWorkload(Poisson(25.0), Fixed(200, 40), limit=600, slo_classes=(RELAXED,))
    all_, early = (run(fleet, load, PrefixAffinity(reject=each), seed=1) for each in (False, True))
    on_time = [np.sum(result.requests["ttft_s"] <= RELAXED.ttft_s) for result in (all_, early)]
    assert on_time[1] > 2 * on_time[0]
    served = early.requests["status"] == 0
    assert 60 < served.sum() < 600
    assert np.mean(early.requests["ttft_s"][served] <= RELAXED.ttft_s) > 0.8


@pytest.mark.parametrize("offload", [0.0, 2e4])
def test_the_index_of_prefixes_agrees_with_every_replica(offload):
    spec = pool(replicas=3, engine={"prefix_caching": True, "kv_blocks": 120, "offload_bytes": offload})
    asked = []

    class Asking(LeastOutstanding):
        def choose(self, request, fleet):
            (live,) = fleet.pools
            known = [
                len(engine.prefix.hits(type("Seq", (), {"request": request}))) * 16 for engine in live.engines
            ]  # fmt: skip
            tokens, holders = live.prefix_holders(request)
            assert tokens == max(known)
            if tokens:
                assert sorted(holders) == [i for i, each in enumerate(known) if each == tokens]
            asked.append(tokens)
            return super().choose(request, fleet)

    result = run(Fleet([Site("site", "cloud", [spec])]), conversations(5.0, 400), Asking(), seed=2)
    assert len(asked) == len(result) == 400
    assert sum(each > 0 for each in asked) > 100
    assert 0 in asked


def test_a_pool_without_a_prefix_cache_knows_nothing():
    live = live_pool(pool())
    request = Request(0, 0.0, 100, 10, cached=30, hashes=(1, 2, 3))
    assert live.prefix_holders(request) == (0, {})
    assert live.prefix_tokens(request) == 30  # what the trace says


def adapted(number: int, adapter: int) -> Request:
    return Request(number, 0.0, 20, 5, traits=Traits(adapter=adapter))


def test_the_balancer_keeps_adapters_together_until_a_replica_is_overloaded():
    live = live_pool(pool(replicas=3, engine={"adapter_slots": 1, "max_num_seqs": 64}), "adapter_affinity")
    assert not live.adapter_holders(7)
    for number in range(ADAPTER_SLACK + 1):
        live.send(adapted(number, 7))
        assert list(live.adapter_holders(7)) == [0]
    assert live.loads == [ADAPTER_SLACK + 1, 0, 0]
    live.send(adapted(10, 7))
    assert live.loads[1] == 1
    assert sorted(live.adapter_holders(7)) == [0, 1]


def test_the_balancer_leaves_the_replica_with_the_prefix_where_its_queue_costs_more():
    live = live_pool(
        pool(replicas=2, engine={"prefix_caching": True, "kv_blocks": 400}), "prefix_affinity", prefix_unit=16
    )
    pick, names = BALANCERS["prefix_affinity"], tuple(range(1, 11))
    live.engines[0].prefix.register(
        type("Seq", (), {"request": Request(0, 0.0, 160, 1, hashes=names), "units": []}), 160
    )
    request = Request(1, 0.0, 165, 5, hashes=names)
    assert live.prefix_holders(request) == (160, {0: 1})
    live._change_load(0, 160)
    assert pick(live, request) == 0
    live._change_load(0, 1)
    assert pick(live, request) == 1


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans()), max_size=40))
def test_the_watch_of_adapters_counts_what_is_loaded(steps):
    slots, loaded, users = AdapterSlots(2), {}, []

    def watch(items, by):
        for item in items:
            loaded[item] = loaded.get(item, 0) + by

    slots.watch = watch
    for adapter, release in steps:
        if release and users:
            slots.release(users.pop())
        elif slots.has_room(adapter):
            slots.acquire(adapter)
            users.append(adapter)
        assert sorted(item for item, count in loaded.items() if count) == sorted(slots.held())
        assert set(loaded.values()) <= {0, 1}


def test_adapter_affinity_loads_less_and_answers_sooner():
    engine = {"adapter_slots": 4, "adapter_load_s": 0.1, "max_num_seqs": 32, "kv_blocks": 600}
    fleet = Fleet([Site(f"site {i}", "cloud", [pool(f"pool {i}", replicas=3, engine=engine)]) for i in range(2)])
    lengths = Independent(LogNormal(median=40, mean=60), LogNormal(median=20, mean=30))
    loads, ttft = [], []
    for router in (RoundRobin(), LeastOutstanding(), AdapterAffinity()):
        adapters = {"count": 20, "popularity": "zipf", "exponent": 1.0}
        load = SyntheticWorkload(Poisson(20.0), lengths, limit=1200, adapters=adapters, slo_classes=(RELAXED,))
        spy = Spy(router)
        ttft.append(run(fleet, load, spy, seed=1).requests["ttft_s"].mean())
        loads.append(sum(engine.adapters.loads for live in spy.pools for engine in live.engines))
    assert loads[2] < 0.6 * min(loads[:2])
    assert ttft[2] < 0.8 * min(ttft[:2])


def test_requests_for_adapters_go_where_there_are_slots():
    plain, slotted = pool("plain"), pool("slotted", engine={"adapter_slots": 1})
    fleet = Fleet([Site("site", "cloud", [plain, slotted])])
    load = SyntheticWorkload(
        Poisson(50.0), Fixed(20, 5), limit=200, adapters={"count": 2, "base_share": 0.5}, slo_classes=(RELAXED,)
    )
    spy = Spy(AdapterAffinity())
    seen = []
    choose = spy.choose
    spy.choose = lambda request, fleet: seen.append(request.traits.adapter) or choose(request, fleet)
    at = run(fleet, load, spy, seed=1).requests["pool"].astype(int)
    adapter = np.array(seen)
    assert (at[adapter > 0] == 1).all()
    assert (at[adapter == 0] == 0).sum() > 50
    with pytest.raises(
        InputError, match=r"router='adapter_affinity' .* engine\.adapter_slots; there are none in: plain"
    ):
        run(Fleet([Site("site", "cloud", [plain])]), load, AdapterAffinity())


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: PrefixAffinity(reject="no"), "router.reject"),
        (lambda: PrefixAffinity(margin=-1), "router.margin"),
        (lambda: AdapterAffinity(slack=-1), "router.slack"),
    ],
)
def test_bad_settings_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key


def test_caches_that_nobody_watches_keep_no_index():
    assert PrefixCache(16, 16).watch is None
    assert AdapterSlots(2).watch is None
