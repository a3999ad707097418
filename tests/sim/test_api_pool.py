"""APIs as pools: prices and times by hand, limits, early ends, and books that balance beside pools of one's own."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis import summarize
from sim import Constant, Fleet, InputError, Link, Site
from sim.accounting.api_price import ApiPrice
from sim.fleet.api import ApiPool, EnergyEstimate, OutputRate
from sim.fleet.latency import LogNormal
from sim.results import STATUSES
from sim.routing import CarbonSLO, HedgedRace, MinCostSLO, PrefillDecodeSplit, Spillover
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import CHAT, Case, cases, fleet_of, pool, simulate
from tests.sim.test_journeys import Chaos, _Watch

REL = 1e-9
COMPLETED, FAILED, CANCELLED, IN_FLIGHT = (
    STATUSES.index(name) for name in ("completed", "failed", "cancelled", "in_flight")
)
PRICE = ApiPrice(2.0, 8.0, usd_per_mtok_cached_in=0.5, usd_per_request=1e-3)
GUESS = EnergyEstimate(0.1, 2.0, "test")


def api(name: str = "api", **changes: Any) -> ApiPool:
    """An API whose every time is known: 0.3 s to the first token, 50 tokens/s."""
    fields: dict[str, Any] = {
        "provider": "Test", "model_id": "toy", "price": PRICE, "ttft": LogNormal(0.3, 0.0),
        "tokens_per_s": OutputRate(50.0), "max_tokens": 1000,
    } | changes  # fmt: skip
    return ApiPool(name, **fields)


def spilling(**changes: Any) -> Fleet:
    """A small edge pool, and an API that takes what it cannot."""
    small = pool("small", engine={"max_num_seqs": 1})
    sites = (
        Site("edge", "edge", (small,), Constant(100.0, "lca")),
        Site("far", "cloud", (api(**changes),)),
    )
    return Fleet(sites, (Link("link", "client", "far", 0.05),))


def test_times_and_price_by_hand() -> None:
    result = simulate(fleet_of(api(cached_share=0.25)), [(0.0, 100, 11), (0.1, 40, 1)])
    requests, totals = result.requests, result.pools[0]
    assert requests["ttft_s"] == pytest.approx([0.3, 0.3])
    assert requests["tpot_s"][0] == pytest.approx(0.02)
    assert requests["e2e_s"] == pytest.approx([0.5, 0.3])
    assert requests["itl_max_s"][0] == pytest.approx(0.02)
    assert requests["cached_tokens"].tolist() == [25, 10]
    usd = [1e-3 + (75 * 2.0 + 25 * 0.5 + 11 * 8.0) / 1e6, 1e-3 + (30 * 2.0 + 10 * 0.5 + 8.0) / 1e6]
    assert requests["cost_usd"] == pytest.approx(usd, rel=REL)
    assert totals.cost_usd is not None
    assert sum(totals.cost_usd.values()) == pytest.approx(sum(usd), rel=REL)
    assert totals.cost_usd["active"] == sum(totals.cost_usd.values())
    assert (totals.provider, totals.ownership, totals.replicas, totals.xpus) == ("Test", "bought", 0, 0)
    assert result.gaps[0, 0].count.sum() == 10


def test_unit_costs_of_an_api_are_its_prices() -> None:
    plain = fleet_of(api(price=ApiPrice(2.0, 8.0)))
    total = summarize(simulate(plain, [(0.1 * i, 50 + i, 3 + i) for i in range(9)]))["total"]
    assert (total["usd_per_mtok_in"], total["usd_per_mtok_out"]) == (pytest.approx(2.0), pytest.approx(8.0))


def test_energy_and_carbon_are_unknown_and_never_zero() -> None:
    result = simulate(spilling(), [(0.0, 20, 20), (0.0, 20, 20), (0.01, 20, 5)], Spillover(outstanding_per_replica=1.0))
    bought = result.requests["pool"] == 1
    assert bought.sum() == 2
    for name in ("energy_j", "carbon_operational_g", "carbon_embodied_g"):
        assert np.isnan(result.requests[name][bought]).all()
        assert np.isfinite(result.requests[name][~bought]).all()
    summary = summarize(result)
    for scope in (summary["total"], summary["by_pool"]["api"], summary["by_slo_class"]["chat"]):
        assert (scope["energy_kwh"], scope["carbon_kg"]["total"], scope["water_l"]["total"]) == (None, None, None)
        assert scope["cost_usd"] > 0.0
    assert any("energy of Test is not disclosed" in line for line in summary["total"]["incomplete"])
    assert summary["by_pool"]["small"]["energy_kwh"] > 0.0
    assert summary["resources"]["compute"]["useful work [TFLOP]"]["absolute"] > 0.0  # of one's own
    own = result.timeline["pool"] == 0
    assert np.isfinite(result.timeline["power_w"][own]).all()
    assert np.isnan(result.timeline["power_w"][~own]).any()


def test_an_api_that_nobody_used_leaves_nothing_unknown() -> None:
    result = simulate(spilling(), [(0.0, 20, 5)], Spillover())
    summary = summarize(result)
    assert summary["total"]["energy_kwh"] == summary["by_pool"]["small"]["energy_kwh"] > 0.0
    assert not any(line.startswith("api: e") for line in summary["total"]["incomplete"])
    assert summary["by_pool"]["api"]["cost_usd"] == 0.0


def test_an_estimate_fills_in_energy_and_carbon_but_not_embodied() -> None:
    fleet = fleet_of(api(energy=GUESS), intensity=Constant(360.0, "lca"))
    result = simulate(fleet, [(0.0, 100, 11), (0.1, 40, 1)])
    joules = [100 * 0.1 + 11 * 2.0, 40 * 0.1 + 2.0]
    assert result.requests["energy_j"] == pytest.approx(joules, rel=REL)
    assert result.requests["carbon_operational_g"] == pytest.approx(np.array(joules) * 360.0 / JOULES_PER_KWH, rel=REL)
    assert result.timeline["energy_j"].sum() == pytest.approx(sum(joules), rel=REL)
    assert sum(result.pools[0].facility_energy_j.values()) == pytest.approx(sum(joules), rel=REL)
    total = summarize(result)["total"]
    assert total["energy_kwh"] == pytest.approx(sum(joules) / JOULES_PER_KWH)
    assert total["carbon_kg"]["embodied"] is None


def test_limits_of_the_account_make_a_queue_first_come_first_served() -> None:
    rows = [(0.0, 10, 11), (0.0, 10, 11), (0.0, 10, 11)]
    by_count = simulate(fleet_of(api(max_concurrent=1)), rows).requests
    assert by_count["queue_s"] == pytest.approx([0.0, 0.5, 1.0])
    by_rate = simulate(fleet_of(api(requests_per_minute=600.0)), rows).requests
    assert by_rate["queue_s"] == pytest.approx([0.0, 0.1, 0.2])
    assert by_rate["ttft_s"] == pytest.approx([0.3, 0.4, 0.5])


def test_a_cancelled_stream_pays_for_what_came_and_a_waiting_request_for_nothing() -> None:
    class Leaves:
        balancer = None

        def handle(self, request: Any, fleet: Any) -> Any:
            leg = fleet.serve(fleet.pools[0])
            yield fleet.wait(0.45)
            fleet.cancel(leg)
            yield leg
            return "timed_out"

    result = simulate(fleet_of(api(max_concurrent=1)), [(0.0, 100, 50), (0.0, 100, 50)], Leaves())
    legs, totals = result.legs, result.pools[0]
    assert legs is not None
    assert totals.cost_usd is not None
    assert legs["status"].tolist() == [CANCELLED, CANCELLED]
    assert legs["output_tokens"].tolist() == [1 + 7, 0]  # 0.15 s after the first, at 50 tokens/s
    first = 1e-3 + (100 * 2.0 + 8 * 8.0) / 1e6
    # the second one begins as the first one ends, and ends at once: its prompt was sent
    assert legs["cost_usd"] == pytest.approx([first, 1e-3 + 100 * 2.0 / 1e6], rel=REL)
    assert totals.cost_usd["wasted"] == pytest.approx(legs["cost_usd"].sum(), rel=REL)
    assert totals.cost_usd["active"] == pytest.approx(0.0, abs=1e-15)


def test_an_outage_fails_what_streams_and_others_take_over() -> None:
    sites = (Site("edge", "edge", (pool("own"),)), Site("far", "cloud", (api(outages=((0.4, 9.0),)),)))
    result = simulate(Fleet(sites), [(0.0, 20, 30), (1.0, 20, 5)], Spillover(prefer="cloud"))
    legs = result.legs
    assert legs is not None
    assert legs["status"].tolist() == [FAILED, COMPLETED, COMPLETED]
    assert legs["output_tokens"][0] == 1 + 5
    assert result.requests["status"].tolist() == [COMPLETED, COMPLETED]
    assert legs["pool"].tolist() == [1, 0, 0]


def test_a_horizon_cuts_streams_and_their_price() -> None:
    result = simulate(fleet_of(api()), [(0.0, 100, 50)], horizon_s=0.45, drain=False)
    assert result.requests["status"].tolist() == [IN_FLIGHT]
    assert result.requests["output_tokens"].tolist() == [8]
    assert result.pools[0].cost_usd is not None
    assert sum(result.pools[0].cost_usd.values()) == pytest.approx(1e-3 + (100 * 2.0 + 8 * 8.0) / 1e6, rel=REL)


def test_routers_reckon_with_its_price_and_refuse_what_they_cannot_know() -> None:
    rows = [(float(i), 100, 20) for i in range(5)]
    dear, cheap = (spilling(price=ApiPrice(usd, usd)) for usd in (1e6, 1e-6))
    loose = replace(CHAT, ttft_s=10.0, tpot_s=1.0)
    assert simulate(dear, rows, MinCostSLO(), slo_classes=(loose,)).requests["pool"].tolist() == [0] * 5
    assert simulate(cheap, rows, MinCostSLO(), slo_classes=(loose,)).requests["pool"].tolist() == [1] * 5
    with pytest.raises(InputError, match="cost is known; it is not of: api"):
        simulate(spilling(price=None), rows, MinCostSLO())
    with pytest.raises(InputError, match="KV cache is known; it is not of: api"):
        simulate(spilling(), rows, PrefillDecodeSplit())
    known = Site("far", "cloud", (api(),), Constant(100.0, "lca"))
    fleet = Fleet((Site("edge", "edge", (pool("own"),), Constant(100.0, "lca")), known))
    with pytest.raises(InputError, match="energy is known; it is not of: api"):
        simulate(fleet, rows, CarbonSLO())


def test_a_race_pays_both_until_one_wins() -> None:
    result = simulate(spilling(), [(0.0, 20, 20)], HedgedRace(first="cloud", second="edge", wait_s=0.0))
    legs = result.legs
    assert legs is not None
    assert sorted(legs["status"].tolist()) == [COMPLETED, CANCELLED]
    assert result.requests["cost_usd"][0] == pytest.approx(legs["cost_usd"].sum(), rel=REL)


def test_draws_are_the_pools_own_and_of_the_medians_given() -> None:
    drawn = {"ttft": LogNormal(0.3, 0.5), "tokens_per_s": OutputRate(50.0, 0.3)}
    rows = [(0.01 * i, 10, 20) for i in range(2000)]
    first, again, other = (simulate(fleet_of(api(**drawn)), rows, seed=seed).requests for seed in (1, 1, 2))
    assert first["e2e_s"].tolist() == again["e2e_s"].tolist() != other["e2e_s"].tolist()
    assert np.median(first["ttft_s"]) == pytest.approx(0.3, rel=0.05)
    assert np.log(first["ttft_s"]).std() == pytest.approx(0.5, rel=0.06)
    assert np.median(1.0 / first["tpot_s"]) == pytest.approx(50.0, rel=0.03)
    beside = simulate(fleet_of(api(**drawn), pool("own")), rows, seed=1).requests  # `First` sends nothing there
    assert beside["e2e_s"].tolist() == first["e2e_s"].tolist()


@st.composite
def with_apis(draw: st.DrawFn) -> Case:
    """A random fleet with an API at each site beside its pools."""
    case = draw(cases())
    sites = []
    for site in case.fleet.sites:
        made = api(
            f"api {site.name}",
            ttft=LogNormal(draw(st.sampled_from([0.0, 0.02, 0.3])), draw(st.sampled_from([0.0, 0.6]))),
            tokens_per_s=OutputRate(draw(st.sampled_from([60.0, 900.0])), draw(st.sampled_from([0.0, 0.4]))),
            max_concurrent=draw(st.sampled_from([None, 1, 3])),
            requests_per_minute=draw(st.sampled_from([None, 3000.0])),
            cached_share=draw(st.sampled_from([0.0, 0.4, 1.0])),
            energy=draw(st.sampled_from([None, GUESS])),
            price=draw(st.sampled_from([PRICE, PRICE, None])),
            outages=draw(st.sampled_from([(), (), ((0.02, 0.05),), ((0.0, 0.2), (0.3, 0.9))])),
        )
        sites.append(replace(site, pools=(*site.pools, made)))
    return Case(Fleet(tuple(sites), case.fleet.links), case.rows, case.settings, case.spy)


def check_books(case: Case, result: Any, live: Any) -> None:
    """Every request once; dollars, joules, seconds and tokens of each API as its provider counted them."""
    requests, legs = result.requests, result.requests if result.legs is None else result.legs
    horizon = case.settings["horizon_s"] or np.inf
    assert len(requests["request_id"]) == sum(row[0] < horizon for row in case.rows)
    assert not (case.drained and (requests["status"] == IN_FLIGHT).any())
    for number, totals in enumerate(result.pools):
        if not totals.provider:
            continue
        mine, bill, spec = legs["pool"] == number, live[number].provider.invoice, live[number].api
        assert legs["output_tokens"][mine].sum() == bill.output == totals.output_tokens
        if spec.price is None:
            assert totals.cost_usd is None
        else:
            whole = PRICE.usd(bill.requests, bill.prompt, bill.cached, bill.output)
            assert sum(totals.cost_usd.values()) == pytest.approx(whole, rel=REL)
            assert legs["cost_usd"][mine].sum() == pytest.approx(whole, rel=REL, abs=1e-15)
        if spec.energy is not None:
            joules = legs["energy_j"][mine].sum() + legs["energy_wasted_j"][mine].sum()
            parts = totals.facility_energy_j
            assert joules == pytest.approx(parts["active"] + parts["wasted"], rel=REL, abs=1e-12)
            assert joules == pytest.approx(GUESS.j_per_token_in * bill.prompt + 2.0 * bill.output, rel=REL)
        elif bill.requests:
            assert math.isnan(sum(totals.facility_energy_j.values()))
        if case.drained:
            each = live[number]
            assert each.outstanding == each.outstanding_tokens == each.output_tokens == each.waiting == 0
            assert not each.uploading
            assert not each.provider.running


books = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@books
@given(with_apis())
def test_books_balance_whatever_policies_do(case: Case) -> None:
    watch = _Watch(Chaos())
    check_books(case, simulate(case.fleet, case.rows, watch, **case.settings), watch.live)


@books
@given(with_apis())
def test_books_balance_and_gaps_add_up_under_any_router(case: Case) -> None:
    result, live = case.result, case.spy.pools
    check_books(case, result, live)
    legs = result.requests if result.legs is None else result.legs
    if not case.drained:
        return
    for number, totals in enumerate(result.pools):
        if not totals.provider:
            continue
        mine = legs["pool"] == number
        done = mine & (legs["status"] == COMPLETED)
        sent = legs["prefill_s"][done]
        assert (sent >= 0.0).all()
        parts = [legs[name][done] for name in ("uplink_s", "queue_s", "prefill_s", "decode_s", "downlink_s")]
        assert sum(parts) == pytest.approx(legs["e2e_s"][done], rel=REL, abs=1e-9)
        if live[number].may_fail or (live[number].link and live[number].link.outages):
            continue
        samples = [result.gaps[number, slo_class] for slo_class in (0, 1)]
        whole = sum(float((sample.value_s * sample.count).sum()) for sample in samples)
        assert whole == pytest.approx(float(legs["decode_s"][done].sum()), rel=REL, abs=1e-9)
        timeline = {name: values[result.timeline["pool"] == number] for name, values in result.timeline.items()}
        running = (timeline["running"] * timeline["bin_s"]).sum()
        assert running == pytest.approx(float((sent + legs["decode_s"][done]).sum()), rel=REL, abs=1e-7)
        assert timeline["output_tokens"].sum() == pytest.approx(totals.output_tokens, rel=1e-9, abs=1e-6)
        if live[number].api.energy is not None and live[number].api.ttft.median_s > 0.0:
            joules = totals.facility_energy_j["active"] + totals.facility_energy_j["wasted"]
            assert timeline["energy_j"].sum() == pytest.approx(joules, rel=REL, abs=1e-9)
