"""Speculative decoding: what a step costs, when its tokens come, and what users see of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim import EngineSettings, InputError, Pool, Result, SLOClass, catalogue, qoe
from sim.fleet.replicas import replica_timing
from sim.hardware.deployment import Deployment
from sim.hardware.sizing import check_fit, weight_bytes_per_xpu
from sim.hardware.speculation import PARTS, SpeculativeTiming, mtp_layer, pace, tokens_a_step
from sim.hardware.timing import RooflineTiming
from sim.routing.load import LeastOutstanding
from sim.simulation import run
from tests.sim.conftest import ListWorkload, fleet_of

LLAMA, SMALL, DEEPSEEK = (catalogue.model(name) for name in ("llama_3_1_8b", "llama_3_2_1b", "deepseek_v3"))
H100 = catalogue.xpu("h100_sxm")
HASTY = SLOClass("hasty", expected_ttft_s=0.01, digest_tokens_per_s=2000.0)  #: whoever waits for a step is disturbed


def pool(drafts: int = 1, acceptance: float | None = 0.5, method: str = "ngram", **keys: Any) -> Pool:
    engine = EngineSettings(
        max_num_seqs=32, speculative_tokens=drafts, acceptance_rate=acceptance, speculative_method=method
    )
    return Pool("p", keys.pop("model", LLAMA), H100, engine=keys.pop("engine", engine), **keys)


def serve(of: Pool, rows: list[tuple[float, int, int]]) -> Result:
    workload = ListWorkload(rows, (HASTY,))
    return run(fleet_of(of), workload, LeastOutstanding(), keep_spans=True)


def test_tokens_a_step_by_hand() -> None:
    assert tokens_a_step(0.5, 1) == 1.5
    assert tokens_a_step(0.5, 3) == pytest.approx(1 + 0.5 + 0.25 + 0.125)
    assert (tokens_a_step(0.0, 4), tokens_a_step(1.0, 4)) == (1.0, 5.0)
    assert (pace(0.5, 1), pace(0.0, 3), pace(1.0, 3)) == (24, PARTS, 4 * PARTS)


def test_a_request_alone_gets_its_tokens_by_rounds() -> None:
    result = serve(pool(), [(0.0, 100, 10)])
    spans = result.spans or {}
    decode = spans["decoding"] > 0
    start, k, a, b = (spans[name][decode] for name in ("t0_s", "steps", "a_s", "b_s"))
    ends = [t + i * x + y * (i * (i - 1) / 2) for t, n, x, y in zip(start, k, a, b) for i in range(1, int(n) + 1)]
    assert len(ends) == 6  # nine tokens after the first, three every two steps
    first = float(start[0])
    times = np.array([first, *(ends[i - 1] for i in (1, 2, 2, 3, 4, 4, 5, 6, 6))])
    row = {name: float(values[0]) for name, values in result.requests.items()}
    assert row["e2e_s"] == pytest.approx(times[-1])
    assert row["tpot_s"] == pytest.approx((times[-1] - first) / 9)
    assert row["itl_max_s"] == pytest.approx(np.diff(times).max())
    assert row["token_qoe"] == pytest.approx(qoe.token_qoe_v1_walk(times, 0.01, 2000.0))
    assert row["token_qoe_v2"] == pytest.approx(qoe.token_qoe_v2_walk(times, 0.01, 2000.0))
    (gaps,) = result.gaps.values()
    assert int(gaps.count.sum()) == 9
    assert int(gaps.count[gaps.value_s == 0.0].sum()) == 3
    assert float((gaps.value_s * gaps.count).sum()) == pytest.approx(row["decode_s"])


@pytest.mark.parametrize("acceptance", [0.3, 0.8])
def test_gaps_are_as_many_as_tokens_after_the_first_and_add_up_to_decode_time(acceptance: float) -> None:
    rng = np.random.default_rng(3)
    columns = np.sort(rng.random(80)), rng.integers(5, 900, 80), rng.integers(1, 90, 80)
    rows = [(float(t), int(p), int(n)) for t, p, n in zip(*columns)]
    result = serve(pool(3, acceptance), rows)
    (gaps,) = result.gaps.values()
    assert int(gaps.count.sum()) == int((result.requests["output_tokens"] - 1).sum())
    assert float((gaps.value_s * gaps.count).sum()) == pytest.approx(float(result.requests["decode_s"].sum()))
    totals = result.pools[0]
    shares = result.requests["energy_provisioned_j"] + result.requests["energy_wasted_j"]
    assert float(shares.sum()) == pytest.approx(sum(totals.facility_energy_j.values()))


def test_preempted_requests_have_all_their_tokens_and_no_other_gaps() -> None:
    of = pool(3, 0.7)
    of = replace(of, engine=replace(of.engine, kv_blocks=40))
    result = serve(of, [(0.0, 150, 120), (0.0, 140, 110), (0.0, 130, 100), (0.01, 100, 90)])
    assert int(result.requests["preemptions"].sum()) > 0
    assert bool((result.requests["status"] == 0).all())
    assert bool((result.requests["itl_max_s"] <= result.requests["decode_s"]).all())
    assert bool(((result.requests["token_qoe"] > 0) & (result.requests["token_qoe"] <= 1)).all())


def test_n_grams_that_are_always_right_multiply_the_speed_of_small_batches() -> None:
    plain, right, wrong = (serve(of, [(0.0, 100, 201)]) for of in (pool(0, None), pool(3, 1.0), pool(3, 0.0)))
    seconds = [float(result.requests["decode_s"][0]) for result in (plain, right, wrong)]
    assert 3.6 < seconds[0] / seconds[1] <= 4.0
    assert 0.9 < seconds[0] / seconds[2] < 1.0


def test_a_step_is_that_of_all_its_tokens_and_the_drafts() -> None:
    target, draft = (RooflineTiming(Deployment(model, H100)) for model in (LLAMA, SMALL))
    both = SpeculativeTiming(target, 3, draft)
    step, verify, one = both.step(8, 0, 0), target.step(32, 0, 0), draft.step(8, 0, 0)
    assert step.fixed_s == pytest.approx(verify.fixed_s + 3 * one.fixed_s)
    assert step.fixed_j == pytest.approx(verify.fixed_j + 3 * one.fixed_j)
    assert step.tau == pytest.approx(target.step(8, 0, 0).tau + 3 * one.tau)
    assert both.rho == target.rho + draft.rho
    prompt = both.step(0, 500, 1).fixed_s
    assert prompt == pytest.approx(target.step(0, 500, 1).fixed_s + draft.step(0, 500, 1).fixed_s)


def test_the_mtp_layer_of_deepseek_v3_is_one_of_its_layers() -> None:
    layer = mtp_layer(DEEPSEEK)
    assert layer.layers == layer.moe_layers == 1
    # its report counts 14 B for the module, embedding and head included
    assert (layer.params + DEEPSEEK.embedding_params) / 1e9 == pytest.approx(14.0, rel=0.05)


def test_what_drafts_takes_memory() -> None:
    alone, mtp, draft = pool(0, None), pool(method="mtp"), pool(method="draft_model", draft=SMALL)
    free = [check_fit(each) for each in (alone, mtp, draft)]
    assert free[0] == check_fit(pool(method="ngram")) > free[1] > free[2]
    budget = 0.9 * H100.memory_bytes - H100.memory_reserved_bytes
    weights = sum(weight_bytes_per_xpu(model, 1, "bf16") for model in (LLAMA, SMALL))
    assert free[2] == int((budget - weights) / (16 * (131072 + 32768)))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: pool(2, None), ["engine.acceptance_rate", "no default"]),
        (lambda: pool(2, 1.5), ["engine.acceptance_rate=1.5", "[0, 1]"]),
        (lambda: pool(-1, 0.5), ["engine.speculative_tokens=-1"]),
        (lambda: pool(1, 0.5, "guess"), ["engine.speculative_method='guess'", "ngram | mtp | draft_model"]),
        (lambda: pool(1, 0.5, "draft_model"), ["pools.p.draft"]),
        (lambda: pool(0, None, draft=SMALL), ["pools.p.draft"]),
        (lambda: pool(1, 0.5, pp=2), ["pools.p.pp=2"]),
        (
            lambda: EngineSettings(64, 128, speculative_tokens=2, acceptance_rate=0.5),
            ["max_num_batched_tokens=128", "192"],
        ),
    ],
)
def test_what_cannot_be_is_refused(make: Any, words: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert all(word in str(caught.value) for word in words)


def test_a_draft_with_another_window_is_refused() -> None:
    gemma = catalogue.model("gemma_3_4b")
    with pytest.raises(InputError, match="window"):
        replica_timing(pool(method="draft_model", draft=gemma))
