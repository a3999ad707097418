"""Answers that one place begins and another one finishes: times by hand, and what their sources claim."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import Constant, Fleet, InputError, Link, Site, SLOClass
from sim.results import STATUSES
from sim.routing import CloudOnly, EdgeOnly, PrefillDecodeSplit, TokenMigration
from tests.sim.conftest import MODEL, live_pool, pool, simulate, xpu

LONE = [(float(i), 100, 40) for i in range(5)]  # never two at once
READER = SLOClass("reader", expected_ttft_s=0.2, digest_tokens_per_s=100.0)


def two_sites(edge: dict[str, Any] | None = None, cloud: dict[str, Any] | None = None, *links: Link) -> Fleet:
    """The cloud's pool is 3 times as fast as the edge's."""
    sites = (
        Site("edge", "edge", (pool("edge pool", **(edge or {})),), Constant(100.0)),
        Site("cloud", "cloud", (pool("cloud pool", **({"xpu": xpu(3.0)} | (cloud or {}))),), Constant(100.0)),
    )
    return Fleet(sites, links)


# -- prompts in one pool, answers in another ------------------------------------------------------------------------

LINK = Link("between", "edge", "cloud", 0.01, up_bytes_per_s=1e6)


def test_a_split_request_takes_its_parts_one_after_the_other() -> None:
    fleet = two_sites(None, None, LINK)
    result = simulate(fleet, LONE, PrefillDecodeSplit("edge", "cloud"))
    prompt = live_pool(fleet.sites[0].pools[0]).timing
    decode = live_pool(fleet.sites[1].pools[0]).timing
    ttft = prompt.step(0, 100, 1).fixed_s + prompt.rho * 100 * 101 / 2
    kv_bytes = 100 * 2 * MODEL.layers * MODEL.kv_heads * MODEL.head_dim * 2
    step = decode.step(1, 0, 0)
    second = decode.step(0, 1, 1).fixed_s + step.tau * 101  # bound by reading the context, as a decode step
    rest = sum(step.fixed_s + step.tau * (102 + i) for i in range(38))
    requests = result.requests
    assert requests["ttft_s"] == pytest.approx([ttft] * 5)
    assert requests["e2e_s"] == pytest.approx([ttft + 0.01 + kv_bytes / 1e6 + second + rest] * 5)
    assert result.links[0].bytes_up == pytest.approx(5 * kv_bytes)
    assert requests["output_tokens"].tolist() == [40] * 5
    assert (requests["tokens_wasted"] == 0).all()


def test_within_a_site_caches_move_at_no_cost() -> None:
    both = pool("prompts"), pool("answers")
    fleet = Fleet((Site("site", "cloud", both, Constant(100.0)),))
    alone = simulate(Fleet((Site("site", "cloud", both[:1], Constant(100.0)),)), LONE).requests
    requests = simulate(fleet, LONE, PrefillDecodeSplit("prompts", "answers")).requests
    # the second token is a prompt's step of one token instead of a decode step
    assert requests["ttft_s"] == pytest.approx(alone["ttft_s"])
    assert requests["e2e_s"] == pytest.approx(alone["e2e_s"], rel=0.05)


def test_prompts_no_longer_hold_answers_up() -> None:
    """DistServe: decode steps without other requests' prompts in them; on as many xPUs, gaps are shorter."""
    rows = [(0.05 * i, 1000, 60) for i in range(60)]
    room = {"engine": {"kv_blocks": 2000}, "xpu": xpu(bandwidth_bytes_per_s=5e10)}
    apart = Fleet((Site("site", "cloud", (pool("prompts", **room), pool("answers", **room)), Constant(100.0)),))
    together = Fleet((Site("site", "cloud", (pool("both", replicas=2, **room),), Constant(100.0)),))
    split = simulate(apart, rows, PrefillDecodeSplit("prompts", "answers")).requests
    mixed = simulate(together, rows).requests
    assert np.percentile(split["itl_max_s"], 90) < 0.5 * np.percentile(mixed["itl_max_s"], 50)


@pytest.mark.parametrize(
    ("fleet", "message"),
    [
        (two_sites(), "edge and cloud"),
        (two_sites({"model": replace(MODEL, id="other")}, None, LINK), "one model"),
        (two_sites({"kv_precision": "fp8"}, None, LINK), "KV in fp8"),
    ],
)
def test_what_cannot_take_over_is_refused(fleet: Fleet, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(fleet, LONE, PrefillDecodeSplit())


def test_an_outage_of_the_decode_side_fails_requests() -> None:
    fleet = two_sites(None, {"outages": ((2.0, 4.0),)}, LINK)
    status = simulate(fleet, [(0.5 * i, 100, 40) for i in range(10)], PrefillDecodeSplit()).requests["status"]
    names = [STATUSES[int(code)] for code in status]
    assert names == ["completed"] * 4 + ["rejected"] * 4 + ["completed"] * 2


# -- token migration ------------------------------------------------------------------------------------------------


def migrated(fleet: Fleet, router: Any, rows: list[tuple[Any, ...]] = LONE) -> Any:
    return simulate(fleet, rows, router, slo_classes=(READER,))


def test_the_cheap_place_takes_over_behind_the_buffer() -> None:
    """Fewer tokens of the dear place, and a reader who does not notice (DiSCo)."""
    fleet = two_sites(None, None, Link("far", "client", "cloud", 0.02), Link("near", "client", "edge", 0.005))
    rows = [(float(i), 100, 150) for i in range(5)]
    plain, moved = migrated(fleet, CloudOnly(), rows), migrated(fleet, TokenMigration(), rows)
    legs = moved.legs
    assert legs is not None
    assert moved.requests["output_tokens"].tolist() == [150] * 5
    assert moved.requests["legs"].tolist() == [2] * 5
    dear = legs["output_tokens"][legs["pool"] == 1]
    assert (dear < 75).all()
    assert moved.requests["token_qoe"] == pytest.approx(plain.requests["token_qoe"], abs=1e-9)
    # the buffer: what was read by then, and what is read while the edge gets and computes prompt and tokens so far
    edge = live_pool(fleet.sites[0].pools[0]).timing
    step = live_pool(fleet.sites[1].pools[0]).timing.step(1, 0, 0)
    for out in dear.tolist():
        gap_s = step.fixed_s + step.tau * (101 + out / 2)
        takes_s = 0.005 + edge.step(0, 100 + out, 1).fixed_s + edge.rho * (100 + out) * (101 + out) / 2
        ahead = (out - 1) - READER.digest_tokens_per_s * (out - 1) * gap_s
        assert ahead == pytest.approx(READER.digest_tokens_per_s * takes_s, abs=1.5)


def test_a_change_without_a_buffer_is_noticed() -> None:
    fleet = two_sites({"xpu": xpu(1.0, timing={"step_overhead_s": 5e-3})})
    reader = replace(READER, expected_ttft_s=0.0)
    runs = {
        margin: simulate(fleet, [(0.0, 2000, 100)], TokenMigration(margin=margin), slo_classes=(reader,))
        for margin in (0.0, 1.0)
    }
    assert runs[0.0].requests["token_qoe"][0] < runs[1.0].requests["token_qoe"][0]
    dear = {margin: each.legs["output_tokens"][0] for margin, each in runs.items() if each.legs is not None}
    assert dear[0.0] < dear[1.0]


def test_the_winner_of_a_race_begins() -> None:
    slow_cloud = two_sites({"xpu": xpu(3.0)}, {"xpu": xpu(1.0)})
    alone = migrated(slow_cloud, EdgeOnly())
    raced = migrated(slow_cloud, TokenMigration(race_s=0.0))
    assert raced.requests["e2e_s"] == pytest.approx(alone.requests["e2e_s"])
    fast_cloud = two_sites()
    raced = migrated(fast_cloud, TokenMigration(race_s=0.0))
    assert raced.requests["ttft_s"] == pytest.approx(migrated(fast_cloud, CloudOnly()).requests["ttft_s"])
    assert raced.requests["legs"].tolist() == [3] * 5  # the edge's lost race, and its second beginning
    assert raced.requests["output_tokens"].tolist() == [40] * 5


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: PrefillDecodeSplit("edge", "edge"), "router.decode"),
        (lambda: TokenMigration("edge", "edge"), "router.cheap"),
        (lambda: TokenMigration(margin=-1.0), "router.margin"),
        (lambda: TokenMigration(race_s=-1.0), "router.race_s"),
        (lambda: TokenMigration(least_left=0), "router.least_left"),
    ],
)
def test_bad_settings_name_their_key(make: Any, key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
