"""A model's first layers near the client, the others in the cloud: parts, tokens by hand, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sim import Constant, Fleet, InputError, Link, Site
from sim.hardware import catalogue
from sim.hardware.layers import layers_of
from sim.results import STATUSES
from sim.routing import CloudOnly, EdgeOnly, LayerSplit
from tests.sim.conftest import MODEL, WINDOWED, live_pool, pool, simulate, xpu

LONE = [(10.0 * i, 100, 20) for i in range(4)]  # never two at once
TIED = replace(MODEL, id="tied", embedding_params=0.0)


def split(way_s: float = 0.0, at: int = 1, edge: dict[str, Any] | None = None, **cloud: Any) -> Fleet:
    """The toy model, its first `at` of 4 layers at the edge; `way_s` and 1 MB/s up from there."""
    near = pool("edge pool", **({"model": layers_of(MODEL, [0, at])} | (edge or {})))
    far = pool("cloud pool", **({"model": layers_of(MODEL, [at, 4]), "xpu": xpu(3.0)} | cloud))
    sites = Site("edge", "edge", (near,), Constant(100.0)), Site("cloud", "cloud", (far,), Constant(100.0))
    links = (
        Link("near", "client", "edge", 0.001, energy_j_per_byte=1e-3),
        Link("far", "client", "cloud", way_s, energy_j_per_byte=1e-3),
        Link("between", "edge", "cloud", way_s, up_bytes_per_s=1e6, energy_j_per_byte=1e-3),
    )
    return Fleet(sites, links)


@pytest.mark.parametrize("model", [MODEL, TIED, catalogue.model("llama_3_1_8b"), catalogue.model("llama_3_2_3b")])
def test_parts_make_the_whole(model: Any) -> None:
    one, other = layers_of(model, [0, 1]), layers_of(model, (1, model.layers))
    table = 0.0 if model.embedding_params else model.head_params  # a shared one is at both ends
    assert one.params + other.params == pytest.approx(model.params + table + model.hidden)
    assert one.kv_bytes_per_token() + other.kv_bytes_per_token() == model.kv_bytes_per_token()
    work = one.gemm_flops_per_token() + other.gemm_flops_per_token()
    assert work == pytest.approx(model.gemm_flops_per_token() + 2.0 * model.hidden)
    pairs = one.attention_flops_per_pair() + other.attention_flops_per_pair()
    assert pairs == pytest.approx(model.attention_flops_per_pair())
    assert one.weight_bytes() + other.weight_bytes() == pytest.approx(model.weight_bytes() + 2 * (table + model.hidden))
    assert one.weight_bytes() > 2.0 * model.vocab * model.hidden  # its table, though it is only looked up
    middle = layers_of(model, [1, 2])
    assert middle.params == pytest.approx(
        (model.params - model.embedding_params - model.head_params) / model.layers, rel=0.01
    )


@pytest.mark.parametrize("layers", [[0, 4], [2, 2], [3, 2], [-1, 2], [0, 5], [0], "0:2", [0.0, 2], 2])
def test_layers_that_are_not_there_are_refused(layers: Any) -> None:
    with pytest.raises(InputError, match=r"\[first, end\]"):
        layers_of(MODEL, layers)
    with pytest.raises(InputError, match="alike"):
        layers_of(WINDOWED, [0, 2])


def test_tokens_by_hand() -> None:
    fleet = split(0.01)
    result = simulate(fleet, LONE[:1], LayerSplit())
    requests = result.requests
    parts = [live_pool(site.pools[0]).timing for site in fleet.sites]
    prompt_s = sum(each.step(0, 100, 1).fixed_s + each.rho * 100 * 101 / 2 for each in parts)
    ttft = 0.001 + prompt_s + 0.01 + 100 * 64 * 2 / 1e6 + 0.01 + 0.001
    assert requests["ttft_s"][0] == pytest.approx(ttft)
    rest = 0.0
    for context in range(101, 120):
        rest += sum(each.step(0, 1, 1).fixed_s + each.step(1, 0, 0).tau * context for each in parts)
        rest += 0.01 + 64 * 2 / 1e6 + 0.01
    assert requests["e2e_s"][0] == pytest.approx(ttft + rest)
    assert result.links[2].bytes_up == 119 * 128.0
    assert result.links[2].bytes_down == 20 * 200.0
    assert (result.links[0].bytes_up, result.links[0].bytes_down) == (400.0, 20 * 200.0)
    assert result.links[1].bytes_up == result.links[1].bytes_down == 0.0  # no text goes to the cloud
    assert requests["output_tokens"][0] == 20
    assert requests["tokens_wasted"][0] == 0
    assert requests["energy_wasted_j"][0] == 0.0
    assert requests["energy_network_j"][0] == pytest.approx(sum(link.energy_j or 0.0 for link in result.links))


def test_a_token_takes_a_round_trip_and_network_that_text_does_not() -> None:
    """Activations are larger than text, by hidden x 2 bytes to 4, and no token begins before the last is back."""
    for way_s in (0.0, 0.02, 0.1):
        requests = simulate(split(way_s), LONE, LayerSplit())
        assert (requests.requests["tpot_s"] > 2 * way_s).all()
    whole = Fleet(
        tuple(replace(site, pools=(replace(site.pools[0], model=MODEL),)) for site in split(0.1).sites),
        split(0.1).links,
    )
    cloud = simulate(whole, LONE, CloudOnly())
    assert cloud.requests["tpot_s"].mean() < 0.1 * requests.requests["tpot_s"].mean()
    up = [sum(link.bytes_up for link in result.links) for result in (requests, cloud)]
    assert up[0] > 30 * up[1]


def test_an_edge_that_cannot_hold_the_model_can_hold_part_of_it() -> None:
    """EdgeShard: models beyond the memory of one place; weights of 2 MB and KV on a chip with 1.5 MB."""
    small = xpu(memory_bytes=1.5e6)
    whole = pool("edge pool", xpu=small, engine={"kv_blocks": None})
    with pytest.raises(InputError, match="a model that fits"):
        simulate(Fleet((Site("edge", "edge", (whole,), Constant(100.0)),)), LONE, EdgeOnly())
    requests = simulate(split(0.0, 1, {"xpu": small, "engine": {"kv_blocks": None}}), LONE, LayerSplit()).requests
    assert (requests["status"] == 0).all()


def test_more_layers_near_by_are_more_of_the_work_there() -> None:
    busy = [[pool.busy_s for pool in simulate(split(0.0, at), LONE, LayerSplit()).pools] for at in (1, 2, 3)]
    assert busy[0][0] < busy[1][0] < busy[2][0]
    assert busy[0][1] > busy[1][1] > busy[2][1]


def test_requests_share_steps_of_both_parts() -> None:
    apart = simulate(split(0.01), LONE, LayerSplit())
    together = simulate(split(0.01), [(0.0, 100, 20)] * 4, LayerSplit())
    assert together.pools[0].busy_s < apart.pools[0].busy_s
    assert together.end_s < 0.5 * apart.end_s


def test_an_outage_fails_requests() -> None:
    result = simulate(split(0.01, outages=((5.0, 12.0),)), LONE, LayerSplit())
    assert [STATUSES[int(code)] for code in result.requests["status"]] == [
        "completed",
        "rejected",
        "completed",
        "completed",
    ]


@pytest.mark.parametrize(
    ("fleet", "router", "message"),
    [
        (split(), CloudOnly(), "router=layer_split"),
        (split(edge={"model": MODEL}), LayerSplit(), "layers of a model"),
        (split(edge={"model": layers_of(TIED, [0, 1])}), LayerSplit(), "layers of a model"),
        (split(at=2, edge={"model": layers_of(MODEL, [0, 1])}), LayerSplit(), r"\[1, 4\]"),
        (split(edge={"model": layers_of(MODEL, [1, 4])}), LayerSplit(), "layers of a model"),
        (Fleet(split().sites, split().links[:2]), LayerSplit(), "a link that joins"),
    ],
)
def test_what_makes_no_model_is_refused(fleet: Fleet, router: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        simulate(fleet, LONE, router)
