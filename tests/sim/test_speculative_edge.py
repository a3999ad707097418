"""Drafting near the client and verifying in the cloud: rounds by hand, and what SpecEdge claims of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Link, Site
from sim.hardware.speculation import tokens_a_step
from sim.quality import QualityModel
from sim.results import STATUSES, Result
from sim.routing import CloudOnly, EdgeOnly, SpeculativeEdgeDraft
from tests.sim.conftest import MODEL, live_pool, pool, simulate, xpu

SMALL = replace(MODEL, id="small", layers=1, params=1e5, params_active=1e5)
LONE = [(20.0 * i, 30, 61) for i in range(5)]  # never two at once


def hybrid(way_s: float = 0.0, edge: dict[str, Any] | None = None, **cloud: Any) -> Fleet:
    """A small model at the edge and a large one in the cloud, `way_s` apart; a step of the latter takes long."""
    slow = xpu(timing={"step_overhead_s": 0.02})
    near, far = {"model": SMALL, "xpu": xpu(5.0)} | (edge or {}), {"xpu": slow} | cloud
    sites = (
        Site("edge", "edge", (pool("edge pool", **near),), Constant(100.0)),
        Site("cloud", "cloud", (pool("cloud pool", **far),), Constant(100.0)),
    )
    return Fleet(
        sites,
        (
            Link("near", "client", "edge", 0.001, energy_j_per_byte=1e-3),
            Link("far", "client", "cloud", way_s, energy_j_per_byte=1e-3),
            Link("between", "edge", "cloud", way_s, energy_j_per_byte=1e-3),
        ),
    )


def test_rounds_by_hand() -> None:
    """All drafts are taken: 61 tokens are 1 + 12 rounds of 4 + 1."""
    fleet = hybrid(0.005)
    result = simulate(fleet, LONE[:1], SpeculativeEdgeDraft(acceptance=1.0))
    requests, legs = result.requests, result.legs
    assert legs is not None
    edge, cloud = (live_pool(site.pools[0]).timing for site in fleet.sites)
    prompt_s = cloud.step(0, 30, 1).fixed_s + cloud.rho * 30 * 31 / 2
    assert requests["ttft_s"][0] == pytest.approx(0.005 + prompt_s + 0.005 + 0.001)
    takes_s, text = 0.0, 31
    for turn in range(12):
        fresh = 1 if turn == 0 else 2  # the last draft has not been computed by who drafted it, nor the verifier's own
        first, step = edge.step(0, fresh, 1), edge.step(1, 0, 0)
        takes_s += first.fixed_s + max(step.tau * text, edge.rho * (fresh * text - fresh * (fresh - 1) / 2))
        takes_s += sum(step.fixed_s + step.tau * (text + i) for i in (1, 2, 3))
        pairs = sum(text + i for i in range(5))
        takes_s += cloud.step(0, 5, 1).fixed_s + max(cloud.step(1, 0, 0).tau * (text + 4), cloud.rho * pairs)
        text += 5
    assert requests["e2e_s"][0] - requests["ttft_s"][0] == pytest.approx(takes_s + 12 * 2 * 0.005)
    assert requests["output_tokens"][0] == 61
    assert requests["tokens_wasted"][0] == 0
    assert requests["energy_wasted_j"][0] == 0.0
    assert (legs["output_tokens"][legs["role"] == "draft"]).tolist() == [4] * 12
    near, far, between = result.links
    assert (near.bytes_up, near.bytes_down) == (120.0, 61 * 200.0)
    assert (far.bytes_up, far.bytes_down) == (120.0, 0.0)
    assert (between.bytes_up, between.bytes_down) == (12 * 16.0, 13 * 200.0)
    assert requests["energy_network_j"][0] == pytest.approx(sum(link.energy_j or 0.0 for link in result.links))


@pytest.mark.parametrize("tokens", [1, 4, 8])
def test_tokens_of_a_round_are_as_many_as_the_formula_says(tokens: int) -> None:
    rows = [(30.0 * i, 20, 400) for i in range(10)]
    room = {"engine": {"kv_blocks": 2000}}
    result = simulate(hybrid(0.0, room, **room), rows, SpeculativeEdgeDraft(tokens=tokens, acceptance=0.7))
    legs = result.legs
    assert legs is not None
    rounds = (legs["role"] == "verify").sum() - 10
    assert (399 * 10) / rounds == pytest.approx(tokens_a_step(0.7, tokens), rel=0.05)
    drafted = legs["output_tokens"][legs["role"] == "draft"].sum()
    taken = 399 * 10 - rounds
    assert result.requests["tokens_wasted"].sum() == drafted - taken
    assert result.requests["energy_wasted_j"].sum() == pytest.approx(legs["energy_wasted_j"].sum())
    drafting = legs["role"] == "draft"
    lost = legs["energy_wasted_j"][drafting].sum()
    assert lost / (lost + legs["energy_j"][drafting].sum()) == pytest.approx(1.0 - taken / drafted, rel=0.05)


def busy_s(result: Result, number: int = 1) -> float:
    return result.pools[number].busy_s


def test_the_cloud_works_less_and_distance_and_bad_drafts_undo_it() -> None:
    """SpecEdge: cheaper tokens near by, the other way round as the round trip grows; and with drafts that fail."""
    plain = simulate(hybrid(0.001), LONE, CloudOnly())
    good = {way: simulate(hybrid(way), LONE, SpeculativeEdgeDraft(acceptance=0.8)) for way in (0.001, 0.02, 0.2)}
    bad = simulate(hybrid(0.001), LONE, SpeculativeEdgeDraft(acceptance=0.1))
    never = simulate(hybrid(0.001), LONE, SpeculativeEdgeDraft(acceptance=0.0))
    assert busy_s(good[0.001]) < 0.5 * busy_s(plain)
    assert busy_s(good[0.2]) == pytest.approx(busy_s(good[0.001]))  # the same rounds, however far
    tpot = [float(result.requests["tpot_s"].mean()) for result in (*good.values(), plain)]
    assert tpot[0] < tpot[-1] < tpot[2]
    assert tpot[0] < tpot[1] < tpot[2]
    assert busy_s(good[0.001]) < busy_s(bad) < busy_s(never)
    assert busy_s(never) > busy_s(plain)
    assert never.requests["tokens_wasted"].mean() > 3 * 59
    assert never.requests["tpot_s"].mean() > plain.requests["tpot_s"].mean()
    wasted = [result.requests["energy_wasted_j"].sum() for result in (good[0.001], bad, never)]
    assert wasted == sorted(wasted)


def test_answers_are_the_verifiers() -> None:
    fleet = hybrid(0.0, {"quality": {"mmlu": 0.2}}, quality={"mmlu": 0.9})
    sure = QualityModel("mmlu")
    runs = [
        simulate(fleet, LONE, router, quality=sure).requests["quality"]
        for router in (SpeculativeEdgeDraft(acceptance=0.5), CloudOnly(), EdgeOnly())
    ]
    assert (runs[0] == runs[1]).all()
    assert runs[1].mean() > runs[2].mean()


def test_memory_is_set_aside_from_the_first_round_to_the_last() -> None:
    """200 blocks of 16 tokens hold two requests of 1,500 tokens; a third waits for one of them to end."""
    rows = [(0.0, 1400, 100)] * 5
    requests = simulate(hybrid(0.01), rows, SpeculativeEdgeDraft(acceptance=0.8)).requests
    assert (requests["status"] == 0).all()
    end, first = np.sort(requests["e2e_s"]), np.sort(requests["ttft_s"])
    assert (first[:2] < end[0]).all()
    assert (first[2:] > end[0]).all()
    assert first[4] > end[2]


def test_the_client_may_be_where_the_drafter_is() -> None:
    sites = list(hybrid().sites)
    sites[0] = replace(sites[0], name="phone", kind="device")
    fleet = Fleet(sites, (Link("far", "client", "cloud", 0.02),))
    requests = simulate(fleet, LONE, SpeculativeEdgeDraft("device", acceptance=1.0)).requests
    assert (requests["tpot_s"] * 60 > 12 * 0.04).all()


def test_an_outage_of_either_side_fails_requests_and_others_go_on() -> None:
    rows = [(0.5 * i, 30, 20) for i in range(10)]
    for side in (0, 1):
        down: list[dict[str, Any]] = [{}, {}]
        down[side] = {"outages": ((1.45, 2.6),), "boot_s": 0.0}
        result = simulate(hybrid(0.01, down[0], **down[1]), rows, SpeculativeEdgeDraft(acceptance=0.5))
        names = [STATUSES[int(code)] for code in result.requests["status"]]
        assert names[:2] == ["completed"] * 2
        assert set(names[3:6]) == {"rejected"}
        assert names[6:] == ["completed"] * 4


def test_what_is_too_long_is_rejected() -> None:
    requests = simulate(
        hybrid(), [(0.0, 4000, 10), (1.0, 30, 1)], SpeculativeEdgeDraft(acceptance=0.5), oversize="reject"
    )
    assert [STATUSES[int(code)] for code in requests.requests["status"]] == ["rejected", "completed"]


@pytest.mark.parametrize(
    ("fleet", "router", "message"),
    [
        (Fleet(hybrid().sites, hybrid().links[:2]), {"acceptance": 0.5}, "a link that joins edge and cloud"),
        (hybrid(), {}, "router.acceptance"),
        (hybrid(), {"acceptance": 1.1}, "router.acceptance"),
        (hybrid(), {"acceptance": 0.5, "tokens": 0}, "router.tokens"),
        (hybrid(), {"acceptance": 0.5, "draft": "cloud"}, "router.verify"),
        (hybrid(), {"acceptance": 0.5, "draft": "moon"}, "router.draft"),
        (hybrid(engine={"tokenize_s": 0.1}), {"acceptance": 0.5}, "tokenize_s"),
    ],
)
def test_what_cannot_work_is_refused(fleet: Fleet, router: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(fleet, LONE, SpeculativeEdgeDraft(**router))
