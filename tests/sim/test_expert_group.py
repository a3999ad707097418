"""Data-parallel ranks that share experts: memory, transfers and steps worked out by hand, and the books of a fleet."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simpy import Environment

from sim import Constant, EngineSettings, Fleet, InputError, Pool, Rent, Site, act_of, catalogue, run
from sim.fleet.spec import Host
from sim.hardware.collectives import Interconnect, all_to_all_s
from sim.hardware.deployment import Deployment
from sim.hardware.expert_group import ExpertGroupTiming, others_visited
from sim.hardware.pipeline import timing_of
from sim.hardware.sizing import kv_blocks, weight_bytes_per_xpu
from sim.hardware.timing import RooflineTiming, StepCost
from sim.request import Request
from sim.results import Result
from sim.routing.load import LeastOutstanding
from sim.serving.lockstep import LockStep, Rank
from sim.serving.sequence import Sequence
from tests.sim.conftest import ListWorkload, StepSignal

MOE, H100 = catalogue.model("qwen3_30b_a3b"), catalogue.xpu("h100_sxm")
LINK, SLOW = Interconnect("fast", 1e9, 1e-5), Interconnect("slow", 1e8, 1e-4)


def test_weights_of_a_rank_by_hand() -> None:
    experts = 48 * 128 * 4_718_592 * 2.0  # layers, experts, parameters, bytes: 58.0 of 61.1 GB
    own = 30_532_110_336 * 2.0 - experts
    assert weight_bytes_per_xpu(MOE, 1, "bf16", dp=8) == pytest.approx(own + experts / 8)
    assert weight_bytes_per_xpu(MOE, 2, "bf16", dp=4) == pytest.approx(own / 2 + experts / 8)
    assert weight_bytes_per_xpu(MOE, 1, "bf16", dp=3) == pytest.approx(own + experts * 43 / 128)  # the fullest
    free = 0.9 * H100.memory_bytes - H100.memory_reserved_bytes - (own + experts / 8)
    assert kv_blocks(MOE, H100, dp=8) == math.floor(free / (16 * 48 * 2 * 4 * 128 * 2))


def test_all_to_all_by_hand() -> None:
    assert all_to_all_s(8e6, 8, 8, LINK, SLOW) == pytest.approx(1e-5 + 8e-3)
    near, far = 1e-5 + 8e6 * 3 / 7 / 1e9, 1e-4 + 8e6 * 4 / 7 / 1e8
    assert all_to_all_s(8e6, 8, 4, LINK, SLOW) == pytest.approx(max(near, far)) == pytest.approx(far)
    assert all_to_all_s(8e6, 8, 4, SLOW, replace(LINK, bytes_per_s=1e12)) == pytest.approx(1e-4 + 8e6 * 3 / 7 / 1e8)
    missed = math.comb(128 - 16, 8) / math.comb(128, 8)  # none of a token's eight experts is among an xPU's sixteen
    assert others_visited(128, 8, 8) == pytest.approx(7 * (1 - missed))
    assert others_visited(4, 4, 4) == 3.0


def test_a_step_is_the_ranks_own_part_and_the_groups() -> None:
    group = Deployment(MOE, H100, 1, dp=8, expert_parallel=True)
    timing, alone = timing_of(group), RooflineTiming(Deployment(MOE, H100, 1))
    whole = RooflineTiming(Deployment(MOE, H100, 8, expert_parallel=True))
    assert isinstance(timing, ExpertGroupTiming)
    common = timing.common(8 * 64, 64)
    visits = others_visited(128, 8, 8)
    moved = 2 * 48 * (H100.timing.link_latency_s + 64 * visits * 2048 * 2.0 / (H100.timing.link_bytes_per_s or 0.0))
    seconds, joules = whole.experts(8 * 64)
    busiest = timing.all_to_all_s(1.0)
    assert busiest > 0.0
    overhead = 48 * H100.timing.moe_overhead_s
    assert common.real >= seconds + overhead + moved
    assert common.real == pytest.approx(seconds + overhead + moved, rel=0.05)  # the busiest xPU gets a little more
    assert common.imag == pytest.approx(joules / 8 + H100.power.active_w * (common.real - seconds))
    # eight times the tokens read the experts of eight xPUs: less than each by itself, though with transfers
    assert timing.step(64, 0, 0).fixed_s + common.real < alone.step(64, 0, 0).fixed_s
    assert timing.step(64, 0, 0).tau == alone.step(64, 0, 0).tau
    uneven = timing.common(8 * 64, 400)
    assert uneven.real > common.real  # as many tokens, most of them on one rank


class Plain:
    """10 ms a decode step, 30 of several, and 1 ms a context token; 5 ms besides, and 1 ms a token of the group."""

    static_w, idle_w, headroom_w, window, skewed = 100.0, 50.0, 1e9, 0, False
    rho = rho_j = rho_w = rho_w_j = 0.0
    wait_w = 20.0

    def step(self, decoding: int, prefill_tokens: int, prefills: int) -> StepCost:
        fixed = 0.1 if prefills else 0.01 * (1 if decoding == 1 else 3)
        return StepCost(fixed, 1.0, 1e-3, 0.0, 0.0, 0.0, 0.0, True)

    def common(self, tokens: int, most: int) -> complex:
        return complex(0.005 + 0.001 * tokens, 0.5)


def test_two_ranks_by_hand_the_slower_one_changes() -> None:
    """Rank 0 decodes one sequence from context 21, rank 1 two from 2: 31 ms against 34; then a dummy waits."""
    env, timing, done = Environment(), Plain(), {}
    group = LockStep(env, timing)
    ranks = [Rank(group, env, timing, 100, 16, 4, 64, Constant(1.0)) for _ in range(2)]
    for rank, number, prompt, output in ((0, 0, 20, 5), (1, 1, 1, 2), (1, 2, 1, 2)):
        request = Request(number, 0.0, prompt, output, 0)
        ranks[rank].submit(Sequence(request, 0.0, lambda seq: done.setdefault(seq.request.id, seq)), 0.0)
    env.run()
    # both prefill: 20 + 2 tokens; then 3 tokens in the group, then one and a dummy, 3 times
    prefill = 0.1 + 0.005 + 0.022
    first = max(0.01 + 0.021, 0.03 + 2 * 0.002) + 0.008
    rest = [0.01 + 0.001 * context + 0.007 for context in (22, 23, 24)]
    assert done[1].last_s == pytest.approx(prefill + first)
    assert done[0].last_s == pytest.approx(prefill + first + sum(rest))
    assert ranks[0].waited_s == pytest.approx(0.034 - 0.031)
    assert (ranks[0].dummy_s, ranks[1].dummy_s) == (0.0, pytest.approx(sum(rest)))
    assert ranks[0].busy.real == ranks[1].busy.real == pytest.approx(prefill + first + sum(rest))
    # what a dummy draws: 1.5 J of its own a step, and 20 W while it waits for the longer one
    assert ranks[1].busy.imag == pytest.approx(2 * 1.5 + sum(1.5 + 20.0 * (step - 0.017) for step in rest))
    shares = sum((seq.prefill + seq.decode for seq in done.values()), 0j)
    assert shares == pytest.approx(ranks[0].busy + ranks[1].busy)
    assert done[1].decode == pytest.approx(done[2].decode)
    # one of three tokens of the first step; 21 ms of its attention are its own, 2 ms of each of the others'
    part = (2 * first - 0.021 - 0.004) / 3
    assert done[1].decode.real == pytest.approx(part + 0.002)


def _pool(**keys: Any) -> Pool:
    engine = EngineSettings(**({"max_num_batched_tokens": 2048, "max_num_seqs": 64} | keys.pop("engine", {})))
    keys = {"expert_parallel": True, "dp": 4} | keys
    return Pool("p", keys.pop("model", MOE), H100, engine=engine, **keys)


def _serve(pool: Pool, rows: list[tuple[Any, ...]], **settings: Any) -> Result:
    site = Site("s", "cloud", (pool,), settings.pop("signal", Constant(100.0)), pue=1.2)
    return run(Fleet((site,)), ListWorkload(rows), LeastOutstanding(), **settings)


@pytest.mark.parametrize(
    ("keys", "settings"),
    [
        ({}, {}),
        ({"tp": 2, "dp": 2, "replicas": 2, "boot_s": 0.3}, {"signal": StepSignal(0.4, [100.0, 0.0, 350.0])}),
        ({"balancer": "round_robin"}, {"horizon_s": 1.0, "drain": False}),
        ({"outages": ((0.6, 0.9),)}, {}),
    ],
)
def test_books_of_a_group_balance(keys: dict[str, Any], settings: dict[str, Any]) -> None:
    host, cost = Host(30.0, act_of(H100)), Rent(2.5)
    rows = [(0.05 * i, 200 + 37 * i % 900, 1 + 53 * i % 200) for i in range(40)]
    result = _serve(_pool(host=host, cost=cost, embodied=act_of(H100), **keys), rows, **settings)
    (totals,), columns = result.pools, result.requests
    engines = totals.xpus // keys.get("tp", 1)
    assert totals.busy_s + totals.idle_s + totals.boot_s == pytest.approx(engines * result.end_s, rel=1e-9)
    assert totals.provisioned_s == pytest.approx(totals.xpus * result.end_s)
    assert 0.0 < totals.dummy_s + totals.waited_s < totals.busy_s
    for parts, shared, wasted in (
        (totals.facility_energy_j, columns["energy_provisioned_j"], columns["energy_wasted_j"]),
        (totals.carbon_operational_g, columns["carbon_operational_provisioned_g"], None),
        (totals.carbon_embodied_g, columns["carbon_embodied_provisioned_g"], None),
        (totals.cost_usd, columns["cost_provisioned_usd"], None),
    ):
        assert parts is not None
        shares = shared.sum() + (wasted.sum() if wasted is not None else 0.0)
        whole = sum(parts.values())
        if "outages" in keys or "drain" in settings:  # the step that was cut belongs to nobody
            assert shares < whole
        else:
            assert shares == pytest.approx(whole, rel=1e-9)
    assert result.timeline["energy_j"].sum() == pytest.approx(sum(totals.facility_energy_j.values()), rel=1e-9)
    assert totals.cost_usd is not None
    assert sum(totals.cost_usd.values()) == pytest.approx(2.5 / 3600 * totals.xpus * result.end_s, rel=1e-9)


def test_ranks_have_their_own_requests_and_end_together() -> None:
    result = _serve(_pool(), [(0.0, 500, 50)] * 8)
    assert sorted(result.requests["replica"].tolist()) == [0, 0, 1, 1, 2, 2, 3, 3]
    (totals,) = result.pools
    assert (totals.replicas, totals.xpus) == (1, 4)
    assert (totals.dummy_s, totals.waited_s) == (0.0, pytest.approx(0.0, abs=1e-9))
    assert len(set(np.round(result.requests["e2e_s"], 9))) == 1
    lone = _serve(_pool(), [(0.0, 500, 50)])
    assert lone.pools[0].dummy_s == pytest.approx(3 * lone.end_s)  # three ranks keep it company
    assert lone.timeline["replicas"][0] == 1.0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"dp": 0}, ["pools.p.dp=0", "at least 1"]),
        ({"expert_parallel": False}, ["pools.p.dp=4", "are replicas"]),
        ({"pp": 2}, ["pools.p.dp=4", "1 with pp"]),
        ({"dp": 256}, ["pools.p.dp=256", "at most the 128 experts"]),
        ({"node_xpus": 3}, ["node_xpus=3", "divisor of dp * tp (4)"]),
        ({"engine": {"speculative_tokens": 2, "acceptance_rate": 0.5}}, ["pools.p.dp=4", "speculative_tokens"]),
        ({"replicas": 2, "prefill_replicas": 1, "kv_link": LINK}, ["pools.p.dp=4", "1 with prefill_replicas"]),
        ({"model": catalogue.model("llama_3_1_8b")}, ["expert_parallel", "has no experts"]),
        ({"timing": lambda deployment: Plain.__mro__[1]()}, ["timing", "RooflineTiming with dp"]),
    ],
)
def test_groups_that_cannot_be_are_refused(keys: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        _serve(_pool(**keys), [(0.0, 10, 2)])
    assert all(word in str(caught.value) for word in words)
