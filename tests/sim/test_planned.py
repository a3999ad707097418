"""Replicas by a plan: who takes requests when, what drains, what boots, and books that hold the time provisioned."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import Constant, Fleet, InputError, Owned, Rent, Site
from sim.accounting.ledger import rates_of
from sim.accounting.provision import planned_spans
from sim.fleet.plan import ClockPlan, LoadPlan, StepPlan
from sim.results import STATUSES
from sim.routing import LeastOutstanding, RoundRobin, Spillover
from tests.sim.conftest import Case, Spy, cases, fleet_of, owned, pool, simulate
from tests.sim.test_journeys import Chaos, _Watch

REL = 1e-9
COMPLETED, IN_FLIGHT, REJECTED = (STATUSES.index(name) for name in ("completed", "in_flight", "rejected"))
IDLE_W, HOST_W = 40.0, 30.0
FLEET: dict[str, Any] = {"intensity": Constant(100.0, "lca")}


def planned(steps: list[list[float]], replicas: int = 3, **changes: Any) -> Any:
    return pool(replicas=replicas, plan=StepPlan(steps), **changes)


def test_only_scheduled_replicas_take_requests() -> None:
    rows = [(0.2 * i, 10, 4) for i in range(60)]  # never two at once
    for balancer in ("round_robin", "random", "power_of_two", "least_outstanding", "least_tokens"):
        spec = planned([[0, 1], [4, 3], [8, 2]], balancer=balancer)
        requests = simulate(fleet_of(spec, **FLEET), rows).requests
        at, replica = requests["arrival_s"], requests["replica"]
        assert set(replica[at < 4.0]) == {0}
        assert max(replica) == 2 or balancer not in ("round_robin", "random", "power_of_two")
        assert set(replica[at >= 8.0]) <= {0, 1}
        assert (requests["status"] == COMPLETED).all()
    spec = planned([[0, 1], [4, 3], [8, 2]], balancer="round_robin")
    replica = simulate(fleet_of(spec, **FLEET), rows).requests["replica"]
    assert replica[20:26].tolist() == [1, 2, 0, 1, 2, 0]


def test_what_is_scheduled_no_longer_ends_what_it_has_and_is_paid_until_then() -> None:
    spec = planned([[0, 2], [0.5, 1]], replicas=2, cost=Rent(3600.0), boot_s=0.0)
    result = simulate(fleet_of(spec, **FLEET), [(0.0, 10, 300), (0.0, 10, 300), (1.0, 10, 2)])
    requests, totals = result.requests, result.pools[0]
    assert requests["replica"].tolist() == [0, 1, 0]
    drained = float(requests["e2e_s"][1])
    assert drained > 0.5
    there = result.end_s + drained  # both replicas
    assert totals.provisioned_s == pytest.approx(there, rel=REL)
    assert totals.cost_usd is not None
    assert sum(totals.cost_usd.values()) == pytest.approx(there, rel=REL)  # one USD a second
    assert totals.idle_s == pytest.approx(there - totals.busy_s, rel=REL)
    assert totals.facility_energy_j["idle"] == pytest.approx((IDLE_W + HOST_W) * totals.idle_s, rel=REL)


def test_rented_pays_the_plan_and_owned_always() -> None:
    rows = [(0.0, 10, 2), (99.0, 10, 2)]
    results = {
        name: simulate(fleet_of(planned([[0, 1], [40, 3], [60, 1]], cost=cost), **FLEET), rows, horizon_s=100.0)
        for name, cost in (("rent", Rent(3600.0)), ("hourly", Rent(3600.0, billing_unit_s=50.0)), ("owned", owned()))
    }
    totals = {name: result.pools[0] for name, result in results.items()}
    assert totals["rent"].provisioned_s == totals["rent"].billed_s == pytest.approx(100.0 + 2 * 20.0)
    assert sum((totals["rent"].cost_usd or {}).values()) == pytest.approx(140.0)
    assert totals["hourly"].billed_s == pytest.approx(100.0 + 2 * 50.0)  # started units
    own = totals["owned"]
    rates = owned().rates()
    drawn_j = sum(own.facility_energy_j.values())
    assert own.billed_s == pytest.approx(300.0)
    usd = rates.usd_per_xpu_s * 300.0 + rates.usd_per_facility_j * drawn_j
    assert sum((own.cost_usd or {}).values()) == pytest.approx(usd, rel=REL)
    # switched off, it draws nothing; owned hardware ages all the same
    assert own.facility_energy_j == totals["rent"].facility_energy_j
    per_s = 140e3 / 1e6
    assert sum((own.carbon_embodied_g or {}).values()) == pytest.approx(per_s * 300.0, rel=REL)
    assert sum((totals["rent"].carbon_embodied_g or {}).values()) == pytest.approx(per_s * 140.0, rel=REL)
    spread = results["owned"].requests["cost_provisioned_usd"].sum()
    assert spread == pytest.approx(usd, rel=REL)


def test_a_replica_boots_before_it_takes_requests_unless_none_does() -> None:
    spec = planned([[0, 1], [5, 2]], replicas=2, boot_s=2.0, balancer="round_robin")
    rows = [(0.5 * i, 10, 2) for i in range(20)]
    result = simulate(fleet_of(spec, **FLEET), rows)
    requests, totals = result.requests, result.pools[0]
    assert requests["queue_s"][0] == pytest.approx(2.0)  # the first one has nowhere else to go
    assert requests["replica"][requests["arrival_s"] < 7.0].max() == 0
    assert requests["replica"][requests["arrival_s"] >= 7.0].tolist() == [1, 0, 1, 0, 1, 0]
    assert totals.boot_s == pytest.approx(4.0)
    assert totals.facility_energy_j["boot"] == pytest.approx((80.0 + HOST_W) * 4.0)


def test_a_pool_without_replicas_is_out_of_service_and_others_take_over() -> None:
    edge = pool("edge", replicas=1, plan=StepPlan([[0, 0], [2, 1], [4, 0]]))
    sites = (Site("edge", "edge", (edge,)), Site("cloud", "cloud", (pool("cloud"),)))
    rows = [(float(i), 10, 2) for i in range(6)]
    result = simulate(Fleet(sites), rows, Spillover())
    assert result.requests["pool"].tolist() == [1, 1, 0, 0, 1, 1]
    alone = simulate(fleet_of(edge), rows, LeastOutstanding())
    assert alone.requests["status"].tolist() == [REJECTED, REJECTED, COMPLETED, COMPLETED, REJECTED, REJECTED]


def test_a_policy_that_goes_back_to_a_replica_that_has_gone_finds_another() -> None:
    class Returns:
        balancer = None

        def handle(self, request: Any, fleet: Any) -> Any:
            first = yield fleet.serve(fleet.pools[0], replica=1, role="draft")
            yield fleet.wait(5.0)
            return (yield fleet.serve(fleet.pools[0], replica=first.replica))

    result = simulate(fleet_of(planned([[0, 2], [3, 1]]), **FLEET), [(0.0, 10, 2)], Returns())
    assert result.legs is not None
    assert result.legs["replica"].tolist() == [1, 0]
    assert result.pools[0].provisioned_s == pytest.approx(result.end_s + 3.0)


def test_routers_see_the_replicas_that_take_requests() -> None:
    sites = (Site("edge", "edge", (planned([[0, 1], [30, 3]]),)), Site("cloud", "cloud", (pool("cloud"),)))
    requests = simulate(Fleet(sites), [(float(i), 10, 2) for i in range(70)], RoundRobin()).requests
    early = requests["arrival_s"] < 30.0
    assert (requests["pool"][early] == 0).mean() == pytest.approx(1 / 2)
    assert (requests["pool"][~early] == 0).mean() == pytest.approx(3 / 4)


def test_the_clock_and_its_weekends() -> None:
    plan = ClockPlan([1] * 8 + [4] * 12 + [1] * 4, "Europe/Berlin", "2024-06-07T00:00", [2] * 24)  # a Friday
    assert (plan.least, plan.most) == (1, 4)
    assert [plan.at(3600.0 * hour) for hour in (5, 6, 17, 18, 22, 70)] == [1, 4, 4, 1, 2, 1]
    spec = pool(replicas=4, plan=plan)
    result = simulate(fleet_of(spec, **FLEET), [(0.0, 10, 2), (23 * 3600.0, 10, 2)], horizon_s=86400.0)
    hours = [6 * 1, 12 * 4, 4 * 1, 2 * 2]
    assert result.pools[0].provisioned_s == pytest.approx(3600.0 * sum(hours), rel=REL)
    assert result.end_s == 86400.0


def test_a_plan_of_every_day_does_not_keep_a_run_going() -> None:
    spec = pool(replicas=2, plan=ClockPlan([1, 2] * 12, "UTC", "2024-01-01T00:00"))
    result = simulate(fleet_of(spec, replace(spec, name="other")), [(0.0, 10, 2), (7000.0, 10, 2)])
    assert result.end_s < 7001.0
    assert result.pools[0].provisioned_s == pytest.approx(result.end_s + (result.end_s - 3600.0))


def test_replicas_follow_the_load_up_at_once_and_down_after_a_while() -> None:
    spec = pool(replicas=3, plan=LoadPlan(2.0, every_s=1.0, down_after_s=3.0), cost=Rent(3600.0))
    # one until 1 s, when four more are there: five for two each are three replicas; all have ended before 2 s
    rows = [(0.0, 10, 2), *[(0.9, 10, 40)] * 5, (9.5, 10, 2)]
    result = simulate(fleet_of(spec, **FLEET), rows, horizon_s=12.0, timeline_bin_s=1.0)
    ends = result.requests["arrival_s"] + result.requests["e2e_s"]
    assert 1.0 < ends[1:6].max() < 2.0
    # wanted at 0, 1, 2, ...: 1, 3, 1, 1, 1, ...; the 3 of 1 s counts up to the look at 4 s
    assert result.timeline["replicas"].tolist() == [1.0] + [3.0] * 4 + [1.0] * 7
    assert result.pools[0].provisioned_s == pytest.approx(12.0 + 2 * 4.0)
    assert sum((result.pools[0].cost_usd or {}).values()) == pytest.approx(20.0)


def test_a_plan_by_load_begins_anew_in_every_run_and_gets_no_more_than_there_is() -> None:
    spec = pool(replicas=2, plan=LoadPlan(0.5, every_s=0.05, down_after_s=100.0), boot_s=0.2)
    rows = [(0.01 * i, 10, 60) for i in range(40)]
    first, second = (simulate(fleet_of(spec, **FLEET), rows, horizon_s=5.0) for _ in range(2))
    assert first.pools[0].provisioned_s == second.pools[0].provisioned_s == pytest.approx(5.0 + 4.95)
    assert first.pools[0].boot_s == pytest.approx(0.4)
    assert (first.requests["e2e_s"] == second.requests["e2e_s"]).all()


def test_following_the_load_lies_between_one_replica_and_all() -> None:
    rows = [(2.0 * i + 0.02 * j, 50, 30) for i in range(20) for j in range(30 * (i % 5 == 0) + 1)]
    plans = {"one": StepPlan([[0, 1]]), "load": LoadPlan(4.0, every_s=0.1, down_after_s=1.0), "all": None}
    runs = {
        name: simulate(fleet_of(pool(replicas=4, plan=plan), **FLEET), rows, horizon_s=40.0)
        for name, plan in plans.items()
    }
    hours = [runs[name].pools[0].provisioned_s for name in plans]
    waits = [runs[name].requests["e2e_s"].mean() for name in plans]
    assert hours[0] < hours[1] < 0.5 * hours[2]
    assert waits[0] > waits[1] >= waits[2]


def test_the_timeline_has_the_replicas_and_their_power() -> None:
    spec = planned([[0, 1], [40, 3], [60, 1]], boot_s=1.0)
    result = simulate(fleet_of(spec, **FLEET), [(0.0, 10, 2), (99.0, 10, 2)], horizon_s=100.0, timeline_bin_s=10.0)
    line = result.timeline
    assert line["replicas"].tolist() == [1.0] * 4 + [3.0] * 2 + [1.0] * 4
    assert line["energy_j"].sum() == pytest.approx(sum(result.pools[0].facility_energy_j.values()), rel=REL)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: StepPlan([]), "plan="),
        (lambda: StepPlan([[1, 2]]), "plan[0]=[1, 2]"),
        (lambda: StepPlan([[0, 2], [0, 3]]), "plan[1]=[0, 3]"),
        (lambda: StepPlan([[0, 1.5]]), "plan[0]=1.5"),
        (lambda: StepPlan([[0, -1]]), "plan[0]=-1"),
        (lambda: ClockPlan([1] * 23, "UTC", "2024-01-01"), "plan.hours"),
        (lambda: ClockPlan([1] * 24, "Mars", "2024-01-01"), "plan.zone='Mars'"),
        (lambda: ClockPlan([1] * 24, "UTC", None), "plan.start_utc"),
        (lambda: LoadPlan(0), "plan.outstanding_per_replica=0"),
        (lambda: LoadPlan("8"), "plan.outstanding_per_replica='8'"),
        (lambda: LoadPlan(8, least=0), "plan.least=0"),
        (lambda: LoadPlan(8, every_s=0), "plan.every_s=0"),
        (lambda: LoadPlan(8, down_after_s=-1), "plan.down_after_s=-1"),
        (lambda: pool(replicas=2, plan=LoadPlan(8, least=3)), "pools.pool.plan=3"),
        (lambda: planned([[0, 4]]), "pools.pool.plan=4"),
        (lambda: planned([[0, 0]]), "pools.pool.plan=0"),
        (lambda: planned([[0, 1]], outages=((1.0, 2.0),)), "pools.pool.outages"),
        (lambda: pool(plan=3), "pools.pool.plan=3"),
    ],
)
def test_plans_that_cannot_be_are_refused(make: Any, key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert key in str(error.value)


@st.composite
def with_plans(draw: st.DrawFn) -> Case:
    """A random fleet whose pools have plans."""
    case = draw(cases())
    sites = []
    for site in case.fleet.sites:
        pools = []
        for spec in site.pools:
            times = draw(st.lists(st.sampled_from([0.01, 0.03, 0.08, 0.2, 0.5, 2.0]), unique=True, max_size=4))
            least = draw(st.sampled_from([1, 1, 0]))
            counts = [draw(st.integers(least, spec.replicas)) for _ in range(len(times) + 1)]
            counts[-1] = max(counts[-1], 1)
            plan: Any = StepPlan([[t, n] for t, n in zip([0.0, *sorted(times)], counts)])
            if draw(st.booleans()):
                target, after_s = draw(st.sampled_from([0.5, 2.0])), draw(st.sampled_from([0.0, 0.1]))
                plan = LoadPlan(target, every_s=draw(st.sampled_from([0.01, 0.3])), down_after_s=after_s)
            pools.append(replace(spec, plan=plan, boot_s=draw(st.sampled_from([0.0, 0.0, 0.05]))))
        sites.append(replace(site, pools=tuple(pools)))
    return Case(Fleet(tuple(sites), case.fleet.links), case.rows, case.settings, Spy(case.spy.router))


def check_books(result: Any, live: Any) -> None:
    legs = result.requests if result.legs is None else result.legs
    for number, (each, totals) in enumerate(zip(live, result.pools)):
        spans, boots = planned_spans(each, result.end_s)
        there, booted = (sum(end - start for start, end in some) for some in (spans, boots))
        mine, rates, tp = legs["pool"] == number, rates_of(each), each.spec.tp
        assert totals.provisioned_s == pytest.approx(tp * there, rel=REL)
        assert totals.boot_s == pytest.approx(booted, rel=REL, abs=1e-12)
        assert totals.idle_s >= -1e-9
        assert totals.busy_s + totals.idle_s + totals.boot_s == pytest.approx(there, rel=REL)
        idle = rates.pue * rates.idle_w * totals.idle_s
        assert totals.facility_energy_j["idle"] == pytest.approx(idle, rel=REL, abs=1e-9)
        drawn = sum(totals.facility_energy_j.values()) - totals.facility_energy_j["network"]
        timeline = result.timeline["energy_j"][result.timeline["pool"] == number]
        assert timeline.sum() == pytest.approx(drawn, rel=1e-7, abs=1e-9)
        if isinstance(each.spec.cost, Rent | Owned) and totals.cost_usd is not None:
            kept = there if isinstance(each.spec.cost, Rent) else len(each.engines) * result.end_s
            cost = each.spec.cost.rates()
            whole = cost.usd_per_xpu_s * tp * kept + cost.usd_per_facility_j * drawn
            assert sum(totals.cost_usd.values()) == pytest.approx(whole, rel=REL)
            if totals.busy_s and not (legs["status"][mine] == IN_FLIGHT).any():
                assert legs["cost_provisioned_usd"][mine].sum() == pytest.approx(whole, rel=1e-7)


books = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@books
@given(with_plans(), st.booleans())
def test_books_balance_and_nobody_is_lost(case: Case, chaos: bool) -> None:
    watch = _Watch(Chaos())
    result = simulate(case.fleet, case.rows, watch, **case.settings) if chaos else case.result
    live = watch.live if chaos else case.spy.pools
    horizon = case.settings["horizon_s"] or np.inf
    assert len(result) == sum(row[0] < horizon for row in case.rows)
    assert not (case.drained and (result.requests["status"] == IN_FLIGHT).any())
    check_books(result, live)
    if case.drained:
        for each in live:
            assert each.outstanding == each.waiting == 0
            assert [load % (1 << 40) for load in each.loads] == [0] * len(each.engines)
