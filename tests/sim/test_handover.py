"""Disaggregated pools: times by hand, back-pressure, and nothing lost."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import EngineSettings, InputError, Pool, Result, catalogue, run
from sim.hardware.collectives import Interconnect
from sim.hardware.pipeline import timing_of
from sim.routing.load import LeastOutstanding
from tests.sim.conftest import ListWorkload, fleet_of

LLAMA, H100 = catalogue.model("llama_3_1_8b"), catalogue.xpu("h100_sxm")
FAST, SLOW = Interconnect("fast", 40e9, 1e-5), Interconnect("slow", 1e8, 1e-3)


def pool(prefill: int = 1, replicas: int = 2, link: Interconnect | None = FAST, **engine: Any) -> Pool:
    settings = EngineSettings(**{"max_num_seqs": 64, **engine})
    return Pool("p", LLAMA, H100, replicas=replicas, prefill_replicas=prefill, kv_link=link, engine=settings)


def serve(of: Pool, rows: list[tuple[float, int, int]], **keys: Any) -> Result:
    return run(fleet_of(of), ListWorkload(rows), LeastOutstanding(), **keys)


def mixture(count: int = 120, seed: int = 5) -> list[tuple[float, int, int]]:
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.exponential(0.02, count))
    return [(float(t), int(rng.integers(5, 3000)), int(rng.integers(1, 120))) for t in times]


def test_a_request_alone_by_hand() -> None:
    result = serve(pool(), [(0.0, 1000, 3)])
    timing = timing_of(pool().deployment())
    prompt = timing.step(0, 1000, 1)
    ttft = prompt.fixed_s + timing.rho * 1000 * 1001 / 2
    copy = 1e-5 + 1000 * 131072 / 40e9
    second = timing.step(0, 1, 1).fixed_s + timing.rho * 1001
    third = timing.step(1, 0, 0).fixed_s + timing.step(1, 0, 0).tau * 1002
    row = {name: float(column[0]) for name, column in result.requests.items()}
    assert row["ttft_s"] == pytest.approx(ttft)
    assert row["e2e_s"] == pytest.approx(ttft + copy + second + third)
    assert row["itl_max_s"] == pytest.approx(copy + second)
    (gaps,) = result.gaps.values()
    assert sorted(gaps.value_s) == pytest.approx(sorted([copy + second, third]))
    assert row["replica"] == 1


def test_one_token_never_leaves_the_prefill_side() -> None:
    result = serve(pool(link=SLOW), [(0.0, 1000, 1)])
    assert int(result.requests["replica"][0]) == 0
    assert int(result.requests["output_tokens"][0]) == 1


@pytest.mark.parametrize(("prefill", "replicas", "link"), [(1, 2, FAST), (2, 5, FAST), (1, 3, SLOW)])
@pytest.mark.parametrize("engine", [{}, {"kv_blocks": 300}, {"speculative_tokens": 2, "acceptance_rate": 0.6}])
def test_nothing_is_lost_and_all_is_paid(
    prefill: int, replicas: int, link: Interconnect, engine: dict[str, Any]
) -> None:
    rows = mixture()
    result = serve(pool(prefill, replicas, link, **engine), rows)
    requests, totals = result.requests, result.pools[0]
    assert bool((requests["status"] == 0).all())
    assert requests["output_tokens"].tolist() == [output for _, _, output in rows]
    shares = (requests["energy_provisioned_j"] + requests["energy_wasted_j"]).sum()
    assert float(shares) == pytest.approx(sum(totals.facility_energy_j.values()), rel=1e-9)
    assert float(requests["xpu_s"].sum()) == pytest.approx(totals.busy_s, rel=1e-9)
    many = requests["output_tokens"] > 1
    assert bool((requests["replica"][many] >= prefill).all())
    assert bool((requests["replica"][~many] < prefill).all())
    if not engine.get("speculative_tokens"):
        (gaps,) = result.gaps.values()
        assert int(gaps.count.sum()) == int((requests["output_tokens"] - 1).sum())
        assert float((gaps.value_s * gaps.count).sum()) == pytest.approx(float(requests["decode_s"].sum()))
    assert bool((requests["itl_max_s"][many] <= requests["decode_s"][many] + 1e-12).all())


def test_a_run_that_is_cut_off_accounts_for_what_is_on_its_way() -> None:
    result = serve(pool(link=SLOW), mixture(), horizon_s=1.0, drain=False)
    requests, totals = result.requests, result.pools[0]
    assert int((requests["status"] == 5).sum()) > 0
    shares = (requests["energy_provisioned_j"] + requests["energy_wasted_j"]).sum()
    spent = sum(totals.facility_energy_j.values())
    assert 0.9 * spent < float(shares) <= spent * (1 + 1e-9)  # a step that was cut short belongs to nobody


def test_a_slow_link_holds_the_prefill_side_up() -> None:
    rows = [(0.0, 3000, 20)] * 60
    fast, slow = (serve(pool(link=link, kv_blocks=1000), rows).requests["ttft_s"] for link in (FAST, SLOW))
    # memory for five prompts at a time, and each takes 3.9 s to leave
    assert float(slow.max()) > 20 * float(fast.max())
    assert np.sort(slow)[:3] == pytest.approx(np.sort(fast)[:3])  # until memory is full, nobody notices


def test_decoding_is_not_disturbed_by_prompts() -> None:
    rows = [(0.0, 100, 400), *((0.5 + 0.05 * i, 2000, 2) for i in range(40))]
    apart = serve(pool(replicas=2), rows).requests["itl_max_s"][0]
    together = serve(replace(pool(0, 2, None), balancer="round_robin"), rows).requests["itl_max_s"][0]
    assert float(apart) < float(together)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pool(2, 2), ["pools.p.prefill_replicas=2", "below replicas (2)"]),
        (lambda: pool(-1, 2), ["pools.p.prefill_replicas=-1"]),
        (lambda: pool(1, 2, None), ["pools.p.kv_link", "with prefill_replicas"]),
        (lambda: pool(0, 2, FAST), ["pools.p.kv_link", "with prefill_replicas"]),
        (lambda: pool(detokenize_s=1e-4), ["detokenize_s", "0 with prefill_replicas"]),
        (lambda: pool(batching="static"), ["batching", "chunked with prefill_replicas"]),
    ],
)
def test_what_cannot_be_is_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)
