"""Collectives, pipeline parallelism and expert parallelism against numbers worked out by hand, and their limits."""

from __future__ import annotations

import random
from dataclasses import replace
from statistics import fmean

import pytest

from sim import Constant, EngineSettings, Fleet, InputError, Pool, Site, catalogue, run
from sim.hardware.collectives import (
    Interconnect,
    all_gather_s,
    all_reduce_s,
    grouped_all_reduce_s,
    most_loaded,
    send_s,
)
from sim.hardware.deployment import Deployment
from sim.hardware.pipeline import timing_of
from sim.hardware.sizing import kv_blocks, weight_bytes_per_xpu
from sim.hardware.timing import RooflineTiming
from sim.routing.load import LeastOutstanding
from tests.sim.conftest import ListWorkload

LINK, SLOW = Interconnect("fast", 1e9, 1e-5), Interconnect("slow", 1e8, 1e-4)
LLAMA, LARGE, MOE = (catalogue.model(name) for name in ("llama_3_1_8b", "llama_3_1_70b", "qwen3_30b_a3b"))
H100 = catalogue.xpu("h100_sxm")


def test_collectives_by_hand() -> None:
    assert all_reduce_s(8e6, 1, LINK) == 0.0
    assert all_reduce_s(8.0, 4, LINK) == pytest.approx(1e-5 + 3 * 8e-9)  # one shot
    assert all_reduce_s(8e6, 4, LINK) == pytest.approx(2e-5 + 2 * 0.75 * 8e-3)  # two shots
    assert all_gather_s(8e6, 4, LINK) == pytest.approx(1e-5 + 0.75 * 8e-3)
    assert send_s(8e6, SLOW) == pytest.approx(1e-4 + 0.08)


def test_an_all_reduce_over_nodes_reduces_within_each_first() -> None:
    by_hand = 2 * (1e-5 + 0.75 * 8e-3) + 1e-4 + 2e6 / 1e8  # within four, then two nodes exchange a quarter in one shot
    assert grouped_all_reduce_s(8e6, 8, 4, LINK, SLOW) == pytest.approx(by_hand)
    assert grouped_all_reduce_s(8e6, 4, 4, LINK, SLOW) == all_reduce_s(8e6, 4, LINK)


@pytest.mark.parametrize(("visits", "ranks"), [(64, 4), (512, 8), (4096, 8), (1024, 16)])
def test_most_loaded_rank_agrees_with_a_simulation(visits: int, ranks: int) -> None:
    draw = random.Random(7)
    most = []
    for _ in range(400):
        load = [0] * ranks
        for _ in range(visits):
            load[draw.randrange(ranks)] += 1
        most.append(max(load))
    expected = most_loaded(visits / ranks, visits / ranks, ranks)
    assert expected == pytest.approx(fmean(most) * ranks / visits, rel=0.03)


def test_one_stage_is_no_pipeline() -> None:
    assert isinstance(timing_of(Deployment(LLAMA, H100)), RooflineTiming)


def test_a_lone_sequence_gains_nothing_but_the_hops() -> None:
    one, four = timing_of(Deployment(LLAMA, H100)), timing_of(Deployment(LLAMA, H100, pp=4, interconnect=LINK))
    lone, piped = one.step(1, 0, 0), four.step(1, 0, 0)
    assert piped.fixed_s == pytest.approx(lone.fixed_s + 3 * send_s(2.0 * LLAMA.hidden, LINK))
    assert (piped.tau, piped.eps, piped.fixed_j) == (lone.tau, lone.eps, lone.fixed_j)
    assert (four.static_w, four.idle_w, four.headroom_w) == (4 * one.static_w, 4 * one.idle_w, 4 * one.headroom_w)


def test_a_full_pipeline_runs_micro_batches_of_a_share_of_the_sequences() -> None:
    one, four = timing_of(Deployment(LLAMA, H100)), timing_of(Deployment(LLAMA, H100, pp=4, interconnect=LINK))
    share, cycle = one.step(64, 0, 0), four.step(256, 0, 0)
    assert cycle.fixed_s == pytest.approx(share.fixed_s + 3 * send_s(64 * 2.0 * LLAMA.hidden, LINK))
    assert cycle.tau == share.tau / 4
    assert cycle.fixed_j == 4 * share.fixed_j  # each micro-batch streams the weights
    assert cycle.eps == share.eps  # every context is read once


def test_prompts_that_fill_all_micro_batches_pass_as_fast_as_one() -> None:
    one = timing_of(Deployment(LLAMA, H100))
    four = timing_of(Deployment(LLAMA, H100, pp=4, interconnect=Interconnect("none", 1e30, 0.0), budget=1024))
    full, single = four.step(0, 4096, 4), four.step(0, 1024, 1)
    assert full.fixed_s == pytest.approx(one.step(0, 1024, 1).fixed_s) == single.fixed_s
    assert (full.spread, single.spread) == (0.25, 1.0)
    assert full.fixed_j == pytest.approx(4 * one.step(0, 1024, 1).fixed_j)


def test_memory_of_the_fullest_stage() -> None:
    whole, layers = LARGE.weight_bytes("bf16"), 80
    tables = 2 * 2.0 * LARGE.head_params
    assert weight_bytes_per_xpu(LARGE, 2, "bf16", 3) == pytest.approx(((whole - tables) * 27 / layers + tables / 2) / 2)
    assert kv_blocks(LARGE, H100, tp=2, pp=4) > 4 * kv_blocks(LARGE, H100, tp=2)
    assert kv_blocks(LARGE, H100, tp=1) == 0 < kv_blocks(LARGE, H100, tp=1, pp=4)


def _pool(**keys: object) -> Pool:
    engine = EngineSettings(max_num_batched_tokens=2048, max_num_seqs=64)
    return Pool("p", keys.pop("model", LLAMA), H100, engine=engine, **keys)  # type: ignore[arg-type]


def _serve(pool: Pool, prompt: int, output: int, count: int) -> dict[str, object]:
    result = run(
        Fleet((Site("s", "cloud", (pool,), Constant(100.0)),)),
        ListWorkload([(0.0, prompt, output)] * count),
        LeastOutstanding(),
    )
    (totals,) = result.pools
    columns = result.requests
    parts = sum(totals.facility_energy_j.values())
    shares = columns["energy_provisioned_j"].sum() + columns["energy_wasted_j"].sum()
    assert shares == pytest.approx(parts - totals.facility_energy_j["network"], rel=1e-9)
    return {"xpus": totals.xpus, "end_s": result.end_s, "ttft_s": float(columns["ttft_s"].mean()), "j": parts}


def test_a_fleet_with_a_pipeline_serves_more_prompts_a_second() -> None:
    one, four = _serve(_pool(), 2048, 1, 64), _serve(_pool(pp=4), 2048, 1, 64)
    assert (one["xpus"], four["xpus"]) == (1, 4)
    assert 3.3 < one["end_s"] / four["end_s"] <= 4.0  # type: ignore[operator]
    lone = _serve(_pool(), 2048, 1, 1), _serve(_pool(pp=4), 2048, 1, 1)
    assert 1.0 < lone[1]["ttft_s"] / lone[0]["ttft_s"] < 1.1  # type: ignore[operator]


def test_one_host_prepares_all_micro_batches() -> None:
    slow = replace(H100, timing=replace(H100.timing, seq_overhead_s=1e-3))
    cycle = timing_of(Deployment(LLAMA, slow, pp=4)).step(64, 0, 0)
    assert cycle.fixed_s == pytest.approx(4 * (slow.timing.step_overhead_s + 16e-3))
    hidden = timing_of(Deployment(LLAMA, H100, pp=4)).step(64, 0, 0).fixed_s  # V1's host is done before the xPUs are
    assert hidden > 4 * (H100.timing.step_overhead_s + 16 * H100.timing.seq_overhead_s)


def test_tensor_parallelism_over_ethernet_pays_for_every_layer() -> None:
    ethernet = Interconnect("ethernet", 1e9, 5e-5)
    nvlink, wire = (timing_of(Deployment(LARGE, H100, 4, interconnect=each)) for each in (None, ethernet))
    extra = wire.step(8, 0, 0).fixed_s - nvlink.step(8, 0, 0).fixed_s
    nbytes = 8 * LARGE.hidden * 2.0
    own = Interconnect("own", H100.timing.link_bytes_per_s or 0.0, H100.timing.link_latency_s)
    assert extra == pytest.approx(2 * 80 * (all_reduce_s(nbytes, 4, ethernet) - all_reduce_s(nbytes, 4, own)))
    apart = timing_of(Deployment(LARGE, H100, 4, node_xpus=2, internode=ethernet)).step(8, 0, 0).fixed_s
    assert nvlink.step(8, 0, 0).fixed_s < apart < wire.step(8, 0, 0).fixed_s


def test_whole_experts_on_each_xpu_wait_for_the_busiest() -> None:
    shared, whole = (timing_of(Deployment(MOE, H100, 4, expert_parallel=each)) for each in (False, True))
    few = whole.step(16, 0, 0).fixed_s / shared.step(16, 0, 0).fixed_s
    many = whole.step(0, 8192, 4).fixed_s / shared.step(0, 8192, 4).fixed_s
    assert 1.0 < many < few < 1.6
    assert whole.step(16, 0, 0).fixed_j >= shared.step(16, 0, 0).fixed_j


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"pp": 0}, ["pools.p.pp=0", "at least 1"]),
        ({"pp": 33}, ["pools.p.pp=33", "32 layers"]),
        ({"expert_parallel": True, "tp": 2}, ["expert_parallel", "has no experts"]),
        ({"tp": 4, "node_xpus": 3}, ["node_xpus=3", "divisor of tp"]),
        ({"node_xpus": 0}, ["node_xpus=0", "at least 1"]),
        ({"interconnect": "pcie"}, ["interconnect", "Interconnect"]),
    ],
)
def test_splits_that_cannot_be_are_refused(keys: dict[str, object], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        _serve(_pool(**keys), 10, 2, 1)
    assert all(word in str(caught.value) for word in words)


def test_a_chip_without_a_link_needs_an_interconnect_named() -> None:
    phone = replace(_pool(pp=2), xpu=replace(H100, timing=replace(H100.timing, link_bytes_per_s=None)))
    with pytest.raises(InputError, match="name an interconnect"):
        _serve(phone, 10, 2, 1)
    assert _serve(replace(phone, interconnect=SLOW), 10, 2, 1)["xpus"] == 2
