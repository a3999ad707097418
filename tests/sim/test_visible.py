"""Reasoning models: hidden tokens, the first visible one, and what users are taken to have read."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analysis.metrics import summarize
from analysis.table import rows as table_rows
from sim import Fleet, InputError, QualityModel, Result, Site, SLOClass, run
from sim.hardware.collectives import Interconnect
from sim.qoe import token_qoe_v1_walk
from sim.request import Traits
from sim.rng import Streams
from sim.routing import Cascade, CloudOnly, EdgeOnly
from sim.workload import ConstantRate, Fixed, FixedLength, SessionWorkload, SyntheticWorkload, TraceWorkload
from sim.workload.base import RequestBatch
from sim.workload.traits import TraitColumns
from tests.sim.conftest import CHAT, MODEL, First, ListWorkload, fleet_of, pool

ROWS = [(0.004 * i, 20 + 7 * (i % 5), 1 + (13 * i) % 37) for i in range(60)]
SLOW = {"max_num_seqs": 4}


@dataclass
class Thinking(ListWorkload):
    """A `ListWorkload` of which request i hides `hidden[i]` tokens."""

    hidden: Sequence[int] = ()

    def batches(self, streams: Streams) -> Iterator[RequestBatch]:
        at = 0
        for batch in ListWorkload.batches(self, streams):
            batch.traits = [Traits(reasoning_tokens=tokens) for tokens in self.hidden[at : at + len(batch)]]
            at += len(batch)
            yield batch


def ran(hidden: Sequence[int], fleet: Fleet | None = None, slo: SLOClass = CHAT, **settings: Any) -> Result:
    return run(fleet or fleet_of(pool()), Thinking(ROWS, (slo,), 7, hidden), First(), **settings)


def fleets() -> dict[str, Fleet]:
    return {
        "plain": fleet_of(pool()),
        "queued": fleet_of(pool(engine=SLOW)),
        "preempted": fleet_of(pool(engine={"kv_blocks": 14, "block_size": 16})),
        "detokenized": fleet_of(pool(engine={"detokenize_s": 1e-3})),
        "drafted": fleet_of(pool(engine={"speculative_tokens": 3, "acceptance_rate": 0.6})),
        "replicas": fleet_of(pool(replicas=3, engine=SLOW)),
        "handed over": fleet_of(pool(replicas=3, prefill_replicas=1, kv_link=Interconnect("link", 1e8, 1e-4, "test"))),
    }


@pytest.mark.parametrize("name", fleets())
def test_all_but_the_last_token_hidden_is_e2e_and_nothing_hidden_is_ttft(name: str) -> None:
    fleet = fleets()[name]
    output = [row[2] for row in ROWS]
    plain = ran([0] * len(ROWS), fleet).requests
    last = ran([tokens - 1 for tokens in output], fleet).requests
    some = ran([tokens // 2 for tokens in output], fleet).requests
    if name == "preempted":
        assert plain["preemptions"].sum() > 0
    np.testing.assert_array_equal(plain["ttfv_s"], plain["ttft_s"])
    np.testing.assert_allclose(last["ttfv_s"], last["e2e_s"], rtol=0, atol=1e-9)
    for key in ("ttft_s", "e2e_s", "tpot_s"):
        np.testing.assert_array_equal(last[key], plain[key])
    assert (some["ttfv_s"] >= some["ttft_s"]).all()
    assert (some["ttfv_s"] <= some["e2e_s"] + 1e-12).all()
    assert (some["ttfv_s"][some["reasoning_tokens"] > 0] > some["ttft_s"][some["reasoning_tokens"] > 0]).all()
    assert some["reasoning_tokens"].tolist() == [tokens // 2 for tokens in output]


def test_the_first_visible_token_is_found_step_by_step() -> None:
    hidden = [(5 * i) % 20 for i in range(len(ROWS))]
    result = ran(hidden, fleet_of(pool(engine={"kv_blocks": 2000})), keep_spans=True)
    assert result.spans is not None
    ends: list[float] = []
    for t, steps, a, b in zip(*(result.spans[key].tolist() for key in ("t0_s", "steps", "a_s", "b_s"))):
        for i in range(int(steps)):
            t += a + b * i
            ends.append(t)
    column = result.requests
    assert column["preemptions"].sum() == 0
    for i, (arrival, _, output) in enumerate(ROWS):
        tokens = min(hidden[i], output - 1)
        assert column["reasoning_tokens"][i] == tokens
        first = arrival + column["ttft_s"][i]
        following = [end for end in ends if end > first + 1e-9]
        expected = following[tokens - 1] if tokens else first
        assert column["ttfv_s"][i] == pytest.approx(expected - arrival, abs=1e-9)


def test_qoe_is_of_the_visible_text() -> None:
    slo = replace(CHAT, digest_tokens_per_s=1e4, expected_ttft_s=0.01)  # every token is a stall: walked one by one
    walked = ran([row[2] // 2 for row in ROWS], slo=slo).requests
    assert (walked["token_qoe"] <= ran([0] * len(ROWS), slo=slo).requests["token_qoe"] + 1e-12).mean() > 0.5
    only_last = ran([row[2] - 1 for row in ROWS], slo=slo).requests
    for i in range(len(ROWS)):
        one = np.array([only_last["e2e_s"][i]])
        assert only_last["token_qoe"][i] == pytest.approx(token_qoe_v1_walk(one, 0.01, 1e4), abs=1e-9)
    slow = replace(CHAT, digest_tokens_per_s=0.5, expected_ttft_s=0.0)  # never a stall: closed form
    smooth = ran([row[2] - 1 for row in ROWS], slo=slow).requests
    for i in range(len(ROWS)):
        one = np.array([smooth["e2e_s"][i]])
        assert smooth["token_qoe"][i] == pytest.approx(token_qoe_v1_walk(one, 0.0, 0.5), abs=1e-9)


def test_a_bound_on_the_first_visible_token() -> None:
    hidden = [row[2] // 2 for row in ROWS]
    free = ran(hidden, slo=SLOClass("free")).requests
    bound = float(np.median(free["ttfv_s"]))
    bounded = ran(hidden, slo=SLOClass("bounded", ttfv_s=bound)).requests
    assert free["slo_met"].all()
    assert (bounded["slo_met"] == (free["ttfv_s"] <= bound)).all()
    with pytest.raises(InputError, match=r"slo\.x\.ttfv_s"):
        SLOClass("x", ttfv_s=0.0)


def test_unfinished_requests_have_no_visible_token() -> None:
    result = ran([row[2] // 2 for row in ROWS], horizon_s=0.1, drain=False)
    assert len(result) > 0
    undone = result.requests["status"] != 0
    assert undone.any()
    assert np.isnan(result.requests["ttfv_s"][undone]).all()


def test_summary_and_table_show_it_where_there_is_any() -> None:
    result = ran([row[2] // 2 for row in ROWS])
    total = summarize(result)["total"]
    assert total["reasoning_tokens"] == sum(row[2] // 2 for row in ROWS)
    assert total["ttfv_s"]["p50"] == pytest.approx(np.percentile(result.requests["ttfv_s"], 50))
    assert any("first visible" in row.label for row in table_rows(summarize(result)))
    assert not any("first visible" in row.label for row in table_rows(summarize(ran([0] * len(ROWS)))))


# -- workloads ---------------------------------------------------------------------------------------------------------


def traits(workload: Any) -> tuple[list[int], list[int]]:
    batches = list(workload.batches(Streams(0)))
    hidden = [row.reasoning_tokens for batch in batches for row in batch.traits or ()]
    return hidden, [tokens for batch in batches for tokens in batch.output_tokens.tolist()]


def synthetic(**reasoning: Any) -> SyntheticWorkload:
    return SyntheticWorkload(ConstantRate(1.0), Fixed(10, 40), limit=2000, reasoning=reasoning)


def test_thinking_comes_on_top_of_the_answer_or_is_part_of_it() -> None:
    hidden, output = traits(synthetic(tokens=100, share=0.3))
    assert np.mean(np.array(hidden) == 100) == pytest.approx(0.3, abs=0.04)
    assert all(tokens == 40 + each for each, tokens in zip(hidden, output))
    assert traits(synthetic(tokens=FixedLength(30), added=False)) == ([30] * 2000, [40] * 2000)
    assert traits(synthetic(tokens=100, added=False)) == ([39] * 2000, [40] * 2000), "one token is seen"


def test_a_trace_may_tell_how_much_is_hidden(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text("arrived_at,num_prefill_tokens,num_decode_tokens,thought\n0,10,20,15\n1,10,20,\n2,10,20,50\n")
    columns = {"reasoning_tokens": "thought"}
    assert traits(TraceWorkload(path, columns=columns)) == ([15, 0, 19], [20] * 3)
    with pytest.raises(InputError, match=r"workload\.reasoning.*columns\.reasoning_tokens"):
        TraceWorkload(path, columns=columns, reasoning={"tokens": 5})


@pytest.mark.parametrize("reasoning", [{}, {"tokens": 0}, {"tokens": 5, "share": 2}, {"tokens": 5, "added": 1}])
def test_thinking_that_cannot_be_is_refused(reasoning: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=r"workload\.reasoning"):
        synthetic(**reasoning)


def test_conversations_do_not_think() -> None:
    with pytest.raises(InputError, match=r"workload\.reasoning"):
        SessionWorkload(ConstantRate(1.0), Fixed(10, 10), {"mean": 2}, {"median_s": 1.0, "sigma": 0.1}, limit=1,
                        reasoning={"tokens": 3})  # fmt: skip


def test_traits_and_their_columns_have_the_same_names() -> None:
    assert tuple(TraitColumns.__dataclass_fields__) == Traits._fields
    assert math.isinf(Traits().deadline_s)


def test_answers_of_a_cascade_tell_their_first_visible_token() -> None:
    small = pool("small", quality={"mmlu": 0.4})
    large = pool("large", model=replace(MODEL, id="large"), quality={"mmlu": 0.9})
    fleet = Fleet((Site("edge", "edge", (small,)), Site("cloud", "cloud", (large,))))
    hidden = [row[2] - 1 for row in ROWS]

    def cascade(hidden: Sequence[int]) -> Any:
        router = Cascade([EdgeOnly(), CloudOnly()])
        return run(fleet, Thinking(ROWS, (CHAT,), 7, hidden), router, quality=QualityModel("mmlu", 0.5)).requests

    plain, last = cascade([0] * len(ROWS)), cascade(hidden)
    assert 0 < plain["escalations"].sum() < len(ROWS)
    np.testing.assert_array_equal(plain["ttfv_s"], plain["ttft_s"])
    np.testing.assert_allclose(last["ttfv_s"], last["e2e_s"], rtol=0, atol=1e-9)
