"""The same seed gives the same bytes, another seed other ones, and how often clocks are folded changes nothing."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, Link, Result, Site, observer, run
from sim.rng import Streams
from sim.routing import LeastOutstanding, PowerOfTwo, Random, Spillover
from sim.workload import Independent, LogNormal, Poisson, SyntheticWorkload
from tests.sim.conftest import CHAT, VOICE, StepSignal, pool, simulate, xpu

GOLDEN = [539, 436, 840, 7]  # first draws of the stream `arrivals` of seed 0


def hybrid(extra: int = 0) -> Fleet:
    """Everything that draws: link latencies, two balancers; short of memory, so that sequences are preempted."""
    engine = {"block_size": 4, "kv_blocks": 60, "max_num_seqs": 8, "max_num_batched_tokens": 32}
    edge = pool("edge", replicas=2, engine=engine, xpu=xpu(0.5), balancer="random")
    more = [pool(f"more {i}", engine=engine) for i in range(extra)]
    cloud = [pool("cloud", replicas=3, engine=engine, balancer="power_of_two", boot_s=0.2), *more]
    return Fleet(
        (
            Site("edge", "edge", (edge,), StepSignal(0.9, [100.0, 300.0])),
            Site("cloud", "cloud", cloud, Constant(200.0)),
        ),
        (
            Link("wifi", "client", "edge", 0.01, latency_sigma=0.5, up_bytes_per_s=1e5, shared=True),
            Link("internet", "client", "cloud", 0.04, latency_sigma=0.3),
        ),
    )


def workload(limit: int = 300) -> SyntheticWorkload:
    lengths = Independent(LogNormal(mean=40.0, sigma=0.8, maximum=150), LogNormal(mean=25.0, sigma=0.8, maximum=80))
    return SyntheticWorkload(Poisson(60.0), lengths, limit=limit, slo_classes=(CHAT, VOICE), slo_mix=(2.0, 1.0))


def tables(result: Result) -> dict[str, Any]:
    """Every number of a result but the wall time, as bytes."""
    parts = {"requests": result.requests, "timeline": result.timeline, "spans": result.spans}
    columns = {f"{name}.{key}": values.tobytes() for name, part in parts.items() for key, values in part.items()}
    gaps = {str(key): (each.value_s.tobytes(), each.count.tobytes()) for key, each in result.gaps.items()}
    return columns | gaps | {"pools": repr(result.pools), "end_s": result.end_s}


@pytest.mark.parametrize("router", [Random, PowerOfTwo, Spillover, LeastOutstanding])
def test_same_seed_same_bytes(router: type) -> None:
    once, again = (run(hybrid(), workload(), router(), seed=5, keep_spans=True) for _ in range(2))
    assert tables(once) == tables(again)
    assert once.pools[0].preemptions + once.pools[1].preemptions > 0


def test_a_router_and_a_workload_may_be_used_again() -> None:
    router, requests, fleet = Random(), workload(), hybrid()
    once, again = (run(fleet, requests, router, seed=5, keep_spans=True) for _ in range(2))
    assert tables(once) == tables(again)


def test_another_seed_draws_everything_anew() -> None:
    one, two = (run(hybrid(), workload(), Random(), seed=seed).requests for seed in (1, 2))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "slo_class", "pool", "replica", "uplink_s", "ttft_s"):
        assert not np.array_equal(one[name], two[name]), name


def test_another_seed_moves_a_fixed_trace_only_where_the_fleet_draws() -> None:
    rows = [(0.05 * i, 30, 10) for i in range(80)]
    one, two = (simulate(hybrid(), rows, Random(), seed=seed).requests for seed in (1, 2))
    assert np.array_equal(one["arrival_s"], two["arrival_s"])
    assert not np.array_equal(one["pool"], two["pool"])
    assert not np.array_equal(one["uplink_s"], two["uplink_s"])


def test_another_pool_moves_no_arrival() -> None:
    small, large = (run(hybrid(extra), workload(), Random(), seed=3).requests for extra in (0, 1))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "slo_class"):
        assert np.array_equal(small[name], large[name]), name
    assert not np.array_equal(small["pool"], large["pool"])


def test_another_router_moves_no_arrival() -> None:
    one, two = (run(hybrid(), workload(), router(), seed=3).requests for router in (Random, LeastOutstanding))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "slo_class"):
        assert np.array_equal(one[name], two[name]), name


def test_every_subsystem_has_a_stream_of_its_own() -> None:
    names = ["arrivals", "lengths", "routing", "link wifi", "balancer edge"]
    draws = [Streams(4).get(name).integers(1 << 62, size=4).tolist() for name in names]
    assert len({tuple(each) for each in draws}) == len(names)
    assert Streams(4).get("routing").integers(1 << 62, size=4).tolist() == draws[2]
    assert Streams(5).get("routing").integers(1 << 62, size=4).tolist() != draws[2]
    # the same on every machine and in every process, whatever Python's hash seed
    assert Streams(0).get("arrivals").integers(1000, size=4).tolist() == GOLDEN


def test_drawing_in_one_subsystem_moves_no_other() -> None:
    plain = hybrid()
    steady = tuple(replace(link, latency_sigma=0.0) for link in plain.links)
    one, two = (run(fleet, workload(), Random(), seed=3).requests for fleet in (plain, Fleet(plain.sites, steady)))
    for name in ("arrival_s", "prompt_tokens", "output_tokens", "slo_class", "pool"):
        assert np.array_equal(one[name], two[name]), name
    assert not np.array_equal(one["uplink_s"], two["uplink_s"])


@pytest.mark.parametrize(("rows", "check"), [(0, 1), (0, 7), (40, 3)])
@pytest.mark.parametrize("settings", [{}, {"horizon_s": 3.0, "drain": False}])
def test_folding_often_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, rows: int, check: int, settings: dict[str, Any]
) -> None:
    whole = run(hybrid(), workload(), Random(), seed=5, keep_spans=True, **settings)
    folds: list[int] = []
    fold = observer.Observer.fold

    def counted(self: observer.Observer) -> None:
        fold(self)
        folds.append(sum(engine.first_row for pool in self.pools for engine in pool.engines))

    monkeypatch.setattr(observer.Observer, "fold", counted)
    monkeypatch.setattr(observer, "FOLD_ROWS", rows)
    monkeypatch.setattr(observer, "FOLD_CHECK", check)
    parts = run(hybrid(), workload(), Random(), seed=5, keep_spans=True, **settings)
    assert len(folds) >= 10
    assert folds[-2] > 0  # rows were dropped on the way
    assert sum(each.preemptions for each in whole.pools) > 0
    for name, values in whole.requests.items():
        assert parts.requests[name] == pytest.approx(values, rel=1e-9, abs=1e-12, nan_ok=True), name
    for name, values in whole.timeline.items():
        assert parts.timeline[name] == pytest.approx(values, rel=1e-9, abs=1e-7), name
    for key, sample in whole.gaps.items():
        assert parts.gaps[key].value_s == pytest.approx(sample.value_s, rel=1e-12)
        assert parts.gaps[key].count.sum() == sample.count.sum()
    assert [each.steps for each in parts.pools] == [each.steps for each in whole.pools]
    assert [each.facility_energy_j for each in parts.pools] == [each.facility_energy_j for each in whole.pools]
    order = [np.lexsort((each.spans["t0_s"], each.spans["replica"], each.spans["pool"])) for each in (whole, parts)]
    for name, values in whole.spans.items():
        assert (parts.spans[name][order[1]] == values[order[0]]).all(), name
