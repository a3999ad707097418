"""Journeys: whatever a policy does, whatever fails, the books balance and nobody is lost; and times by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim import Constant, Fleet, InputError, Link, Site
from sim.hardware.collectives import Interconnect
from sim.quality import QualityModel
from sim.results import STATUSES
from sim.routing import Cascade, CloudOnly, EdgeAnswerCloudValidate, EdgeOnly, HedgedRace, LeastOutstanding
from tests.sim.conftest import MODEL, Case, Spy, cases, fleet_of, pool, simulate, xpu

REL = 1e-9
COMPLETED, FAILED, CANCELLED, REJECTED, IN_FLIGHT = (
    STATUSES.index(name) for name in ("completed", "failed", "cancelled", "rejected", "in_flight")
)


class Chaos:
    """Serves, races, waits, cancels and joins as dice say."""

    balancer = None

    def bind(self, fleet: Any) -> None:
        self.pools = fleet.pools

    def handle(self, request: Any, fleet: Any) -> Any:
        rng, legs = fleet.rng, []
        for _ in range(rng.randint(1, 4)):
            pool = rng.choice(fleet.pools)
            if request.prompt + request.output + 3 > pool.max_tokens:
                continue
            can_join = pool.spec.engine.detokenize_s == 0.0
            source = rng.choice(["client", "client", *(each.site_name for each in fleet.pools)])
            role = rng.choice(["answer", "answer", "draft"])
            more = rng.choice([0, 3])
            leg = fleet.serve(
                pool, source=source, role=role, keep=can_join, prompt=request.prompt + more,
                cached=rng.choice([0, request.prompt - 1]),
            )  # fmt: skip
            legs.append(leg)
            what = rng.randint(0, 4)
            if what == 0:
                yield leg
            elif what == 1:
                yield fleet.race(leg, fleet.wait(rng.random() * 0.05))
                assert 0 <= leg.emitted() <= leg.request.output
            elif what == 2:
                yield leg.first
                fleet.cancel(leg)
                yield leg
                assert leg.status in (COMPLETED, FAILED, CANCELLED)
            elif what == 3:
                fleet.cancel(leg)
            else:
                yield fleet.gather(*legs)
        done = [leg for leg in legs if leg.ok and leg.role == "answer"]
        if not done:
            return rng.choice([None, "timed_out", "rejected", "cancelled"])
        last = done[-1]
        how = rng.randint(0, 2)
        if how == 0:
            return last
        if how == 1 or not all(leg.keep for leg in done):
            return fleet.show(last)
        parts = [fleet.stream(leg, 0, 1) for leg in done[:-1]]
        return fleet.answer(*parts, fleet.stream(last))


@st.composite
def chaotic(draw: st.DrawFn) -> Case:
    case = draw(cases())
    sites = []
    for site in case.fleet.sites:
        pools = []
        for spec in site.pools:
            fails = draw(st.sampled_from([(), (), ((0.02, 0.05),), ((0.0, 0.2), (0.3, 0.9))]))
            splits = spec.replicas > 1 and spec.engine.batching == "chunked" and not spec.engine.detokenize_s
            link = Interconnect("link", 1e6, 1e-4)
            more = {"prefill_replicas": 1, "kv_link": link} if splits and draw(st.booleans()) else {}
            pools.append(replace(spec, outages=fails, **more))
        sites.append(replace(site, pools=tuple(pools)))
    return Case(Fleet(tuple(sites), case.fleet.links), case.rows, case.settings, Spy(Chaos()))


class _Watch:
    """Chaos, with the live pools for the test."""

    balancer = None

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def bind(self, fleet: Any) -> None:
        self.live = fleet.pools
        self.inner.bind(fleet)

    def handle(self, request: Any, fleet: Any) -> Any:
        return self.inner.handle(request, fleet)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(chaotic())
def test_books_balance_whatever_policies_do_and_pools_fail(case: Case) -> None:
    watch = _Watch(Chaos())
    result = simulate(case.fleet, case.rows, watch, **case.settings)
    requests, legs = result.requests, result.legs
    assert legs is not None
    coming = [row for row in case.rows if row[0] < (case.settings["horizon_s"] or np.inf)]
    assert requests["request_id"].tolist() == list(range(len(coming)))
    assert requests["prompt_tokens"].tolist() == [row[1] for row in coming]
    done = requests["status"] == COMPLETED
    assert not (case.drained and (requests["status"] == IN_FLIGHT).any())
    # component times are there, not negative, and add up
    parts = [requests[name][done] for name in ("uplink_s", "queue_s", "prefill_s", "decode_s", "downlink_s")]
    for part in parts:
        assert (part >= -1e-9).all()
    assert sum(parts) == pytest.approx(requests["e2e_s"][done], rel=REL, abs=1e-9)
    tpot = np.nan_to_num(requests["tpot_s"][done])
    whole = requests["ttft_s"][done] + (requests["output_tokens"][done] - 1) * tpot
    assert whole == pytest.approx(requests["e2e_s"][done], rel=REL, abs=1e-9)
    assert ((requests["token_qoe"] >= 0.0) & (requests["token_qoe"] <= 1.0 + 1e-9)).all()
    # requests' energy, cost and carbon are the pools'
    for name, lost in (("energy_j", "energy_wasted_j"),):
        for number, totals in enumerate(result.pools):
            mine = legs["pool"] == number
            cut_j = totals.pue * sum(
                (pool.timing.static_w + pool.host_w) * engine.lost.real + engine.lost.imag
                for pool in watch.live[number : number + 1]
                for engine in pool.engines
            )
            meter = totals.facility_energy_j["active"] + totals.facility_energy_j["wasted"]
            assert legs[name][mine].sum() + legs[lost][mine].sum() + cut_j == pytest.approx(meter, rel=REL, abs=1e-9)
    for name in ("energy_j", "energy_wasted_j", "cost_usd", "carbon_operational_g", "xpu_s", "preemptions"):
        assert requests[name].sum() == pytest.approx(legs[name].sum(), rel=REL, abs=1e-12, nan_ok=True)
    if all(link.energy_j is not None for link in result.links):
        carried = sum(link.energy_j or 0.0 for link in result.links)
        assert requests["energy_network_j"].sum() == pytest.approx(carried, rel=REL, abs=1e-9)
    for row in np.flatnonzero(~done):
        assert requests["energy_j"][row] == 0.0
    if case.drained:
        for live in watch.live:
            assert live.outstanding == live.outstanding_tokens == live.output_tokens == live.waiting == 0
            assert not any(live.loads)
            assert not live.uploading
            for engine in live.engines:
                assert not any((engine.running, engine.waiting, engine.n, engine.context, engine.pinned))
                assert engine.used_blocks() == 0


# -- by hand --------------------------------------------------------------------------------------------------------

WEAK = replace(MODEL, id="weak")
SURE = QualityModel("mmlu", 0.0, 0.99, 0.9999)  # a verifier that is hardly ever wrong


def hybrid(edge: dict[str, Any] | None = None, cloud: dict[str, Any] | None = None, *links: Link) -> Fleet:
    """A weak model at the edge, a strong one in the cloud."""
    weak = pool("weak pool", model=WEAK, quality={"mmlu": 0.5}, **(edge or {}))
    strong = pool("strong pool", xpu=xpu(3.0), quality={"mmlu": 0.95}, **(cloud or {}))
    return Fleet(
        (Site("edge", "edge", (weak,), Constant(100.0)), Site("cloud", "cloud", (strong,), Constant(100.0))), links
    )


FAR = [(float(i), 20, 10) for i in range(60)]  # never two at once


def test_a_cascade_pays_the_edge_the_verifier_the_way_and_the_cloud_one_after_the_other() -> None:
    links = (
        Link("near", "client", "edge", 0.01),
        Link("far", "client", "cloud", 0.1),
        Link("up", "edge", "cloud", 0.04),
    )
    fleet = hybrid(None, None, *links)
    alone = {
        name: simulate(fleet, FAR, router).requests["e2e_s"][0]
        for name, router in (("edge", EdgeOnly()), ("cloud", CloudOnly()))
    }
    result = simulate(fleet, FAR, Cascade([EdgeOnly(), CloudOnly()], 0.5, verify_s=0.02), quality=SURE)
    requests = result.requests
    up = requests["escalations"] == 1
    assert 10 < up.sum() < 50
    assert requests["e2e_s"][~up] == pytest.approx(alone["edge"] + 0.02)
    assert requests["ttft_s"][~up] == pytest.approx(requests["e2e_s"][~up])  # held back, then shown at once
    # the edge's answer stays there (no way down: 0.01), and goes up over 0.04 instead of the client's 0.1
    assert requests["e2e_s"][up] == pytest.approx(alone["edge"] - 0.01 + 0.02 + alone["cloud"] - 0.1 + 0.04)
    assert requests["tokens_wasted"].tolist() == [10 * each for each in up]
    assert (requests["energy_wasted_j"][up] > 0.0).all()
    assert (requests["energy_wasted_j"][~up] == 0.0).all()


def test_validated_answers_stream_at_once_and_are_as_good_as_the_judge_can_make_them() -> None:
    fleet = hybrid()
    plain = simulate(fleet, FAR, EdgeOnly(), quality=SURE).requests
    result = simulate(fleet, FAR, EdgeAnswerCloudValidate(), quality=SURE)
    requests, legs = result.requests, result.legs
    assert legs is not None
    up = requests["escalations"] == 1
    assert requests["ttft_s"] == pytest.approx(plain["ttft_s"])
    assert requests["e2e_s"][~up] == pytest.approx(plain["e2e_s"][~up])
    assert (requests["e2e_s"][up] > plain["e2e_s"][up]).all()
    assert (legs["prompt_tokens"][legs["role"] == "validate"] == 30).all()  # question and answer
    assert (legs["output_tokens"][legs["role"] == "validate"] == 1).all()
    assert requests["output_tokens"].tolist() == [10] * 60
    assert requests["legs"].tolist() == [2 + each for each in up]


def test_the_loser_of_a_race_stops_at_its_next_step_and_is_paid_for() -> None:
    """The cloud is asked first, the edge 5 ms later; the cloud is 3 times as fast."""
    fleet = hybrid()
    cloud = simulate(fleet, FAR, CloudOnly()).requests
    first = float(cloud["ttft_s"][0])
    result = simulate(fleet, FAR, HedgedRace(wait_s=0.5 * first))
    requests, legs = result.requests, result.legs
    assert legs is not None
    assert requests["ttft_s"] == pytest.approx(cloud["ttft_s"])
    assert requests["e2e_s"] == pytest.approx(cloud["e2e_s"])
    lost = legs["status"] == CANCELLED
    assert lost.sum() == 60
    assert (legs["pool"][lost] == 0).all()
    # it has its first step under way when the cloud's token comes, and ends with it: one token, or none
    assert set(legs["output_tokens"][lost].tolist()) <= {0, 1}
    assert requests["energy_wasted_j"].sum() == pytest.approx(legs["energy_wasted_j"][lost].sum())
    assert (requests["energy_wasted_j"] > 0.0).all()


def test_what_an_outage_kills_goes_elsewhere_or_has_failed() -> None:
    rows = [(0.01 * i, 20, 30) for i in range(100)]
    down = ((0.3, 0.6),)
    two = fleet_of(pool("a", outages=down), pool("b"))
    requests = simulate(two, rows, LeastOutstanding()).requests
    assert (requests["status"] == COMPLETED).all()
    assert requests["legs"].max() == 2  # some had begun when the pool failed
    assert (requests["energy_wasted_j"] > 0.0).any()
    one = simulate(fleet_of(pool("a", outages=down)), rows, LeastOutstanding()).requests
    failed = one["status"] == FAILED
    assert failed.any()
    during = (one["arrival_s"] > 0.3) & (one["arrival_s"] < 0.6)
    assert (one["status"][during] == REJECTED).all()  # the router finds no pool in service
    assert set(one["status"].tolist()) == {COMPLETED, FAILED, REJECTED}
    assert (one["arrival_s"][failed] < 0.3).all()


def test_a_race_survives_the_failure_of_its_leader() -> None:
    fleet = hybrid(None, {"outages": ((0.0, 1000.0),)})
    requests = simulate(fleet, FAR, HedgedRace(wait_s=0.001)).requests
    assert (requests["status"] == COMPLETED).all()
    assert (requests["pool"] == 0).all()


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Cascade([EdgeOnly()]), "router.stages"),
        (lambda: Cascade([EdgeOnly, CloudOnly()]), "router.stages[0]"),
        (lambda: Cascade([EdgeOnly(), CloudOnly()], threshold=1.5), "router.threshold"),
        (lambda: HedgedRace("cloud", "cloud"), "router.second"),
        (lambda: HedgedRace(wait_s=-1.0), "router.wait_s"),
        (lambda: EdgeAnswerCloudValidate(validate="moon"), "router.validate"),
        (lambda: EdgeAnswerCloudValidate(verdict_tokens=0), "router.verdict_tokens"),
    ],
)
def test_bad_settings_name_their_key(make: Any, key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key


def test_a_cascade_without_an_edge_is_refused_at_the_start() -> None:
    with pytest.raises(InputError, match="edge"):
        simulate(fleet_of(pool()), FAR, Cascade([EdgeOnly(), CloudOnly()]))
    stage = EdgeOnly()
    with pytest.raises(InputError, match="circle"):
        Cascade([stage, stage])


def test_a_policy_that_yields_nonsense_is_told() -> None:
    class Nonsense:
        def handle(self, request: Any, fleet: Any) -> Any:
            yield 3

    with pytest.raises(InputError, match="yield"):
        simulate(fleet_of(pool()), FAR, Nonsense())
