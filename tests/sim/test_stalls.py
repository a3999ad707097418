"""Streams that an outage interrupts: token times by hand, and against a loop over tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import observer, qoe, run
from sim.fleet.link import Link
from sim.fleet.outages import Outages
from sim.fleet.spec import Fleet
from sim.results import Result
from sim.routing import Random
from sim.serving.step_clock import Gaps
from tests.sim.conftest import CHAT, fleet_of, pool, simulate, xpu
from tests.sim.test_determinism import hybrid, workload

STEP_S = 0.01


def served(outages: Any, **engine: Any) -> Result:
    """One request of 101 tokens on a replica whose every step takes 10 ms, 20 ms from its client."""
    zero = {
        "step_overhead_s": STEP_S, "layer_overhead_s": 0.0, "seq_overhead_s": 0.0, "compute_eff": 1e9,
        "weight_eff": 1e9, "kv_eff": 1e9, "attn_eff": 1e9,
    }  # fmt: skip
    fleet = fleet_of(pool(xpu=xpu(timing=zero), engine=engine))
    return simulate(Fleet(fleet.sites, (Link("l", "client", "site", 0.02, outages=outages),)), [(0.0, 10, 101)])


def test_an_outage_by_hand() -> None:
    """Token i leaves at 0.03 + 0.01 i. Down from 0.505 to 0.905: two are on their way, 48 to 87 wait."""
    sent = 0.03 + STEP_S * np.arange(101)
    times = sent + 0.02
    times[46:48] += 0.4
    times[48:88] = 0.905 + 0.02
    result = served([[0.505, 0.905]])
    requests = result.requests
    assert requests["ttft_s"][0] == pytest.approx(0.05, rel=1e-6)
    assert requests["e2e_s"][0] == pytest.approx(1.05, rel=1e-6)
    assert requests["itl_max_s"][0] == pytest.approx(0.41, rel=1e-6)
    for name, walk in (("token_qoe", qoe.token_qoe_v1_walk), ("token_qoe_v2", qoe.token_qoe_v2_walk)):
        want = walk(times, CHAT.expected_ttft_s, CHAT.digest_tokens_per_s)
        assert requests[name][0] == pytest.approx(want, rel=1e-6)
    gaps = result.gaps[0, 0]
    assert np.repeat(gaps.value_s, gaps.count) == pytest.approx(np.sort(np.diff(times)), abs=1e-7)


def test_an_outage_at_either_end_by_hand() -> None:
    requests = served([[0.045, 0.1]]).requests  # the first token is on its way for 15 of 20 ms
    assert requests["ttft_s"][0] == pytest.approx(0.105, rel=1e-6)
    assert requests["e2e_s"][0] == pytest.approx(1.05, rel=1e-6)
    requests = served([[0.9, 2.0]]).requests  # the last token leaves at 1.03
    assert requests["ttft_s"][0] == pytest.approx(0.05, rel=1e-6)
    assert requests["e2e_s"][0] == pytest.approx(2.02, rel=1e-6)
    assert requests["tpot_s"][0] == pytest.approx((2.02 - 0.05) / 100, rel=1e-6)
    assert requests["decode_s"][0] == pytest.approx(1.0, rel=1e-6)
    requests = served([[0.01, 3.0]]).requests  # the upload has 10 of its 20 ms to go
    assert requests["uplink_s"][0] == pytest.approx(3.01, rel=1e-6)
    assert requests["e2e_s"][0] == pytest.approx(4.04, rel=1e-6)


def with_outages(outages: Any, **changes: Any) -> Fleet:
    fleet = hybrid()
    pools = (replace(p, engine=replace(p.engine, **changes)) for site in fleet.sites for p in site.pools)
    sites = tuple(replace(site, pools=tuple(next(pools) for _ in site.pools)) for site in fleet.sites)
    return Fleet(sites, tuple(replace(link, outages=outages) for link in fleet.links))


def test_an_outage_of_nobody_changes_nothing() -> None:
    plain, idle = (run(with_outages(outages), workload(), Random(), seed=5) for outages in ((), ((1e6, 2e6),)))
    for name, values in plain.requests.items():
        assert np.array_equal(values, idle.requests[name], equal_nan=values.dtype.kind == "f"), name


CUTS = ((1.0, 1.5), (2.0, 2.4))


@pytest.mark.parametrize("changes", [{}, {"detokenize_s": 1e-3}])
@pytest.mark.parametrize(("rows", "check"), [(0, 1), (320, 3)])
def test_folding_often_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, rows: int, check: int, changes: dict[str, Any]
) -> None:
    """With preemptions, and outages in which many requests stream."""
    whole = run(with_outages(CUTS, **changes), workload(), Random(), seed=5)
    assert np.count_nonzero(whole.requests["itl_max_s"] > 0.4) > 10
    monkeypatch.setattr(observer, "FOLD_ROWS", rows)
    monkeypatch.setattr(observer, "FOLD_CHECK", check)
    parts = run(with_outages(CUTS, **changes), workload(), Random(), seed=5)
    for name, values in whole.requests.items():
        assert parts.requests[name] == pytest.approx(values, rel=1e-9, abs=1e-11, nan_ok=True), name
    for key, sample in whole.gaps.items():
        assert np.repeat(parts.gaps[key].value_s, parts.gaps[key].count) == pytest.approx(
            np.repeat(sample.value_s, sample.count), abs=1e-10
        )


SPANS = st.lists(st.floats(0.01, 2.0), min_size=2, max_size=8).map(
    lambda gaps: list(zip(np.cumsum(gaps)[::2].tolist(), np.cumsum(gaps)[1::2].tolist()))
)


@settings(max_examples=100, deadline=None)
@given(SPANS, st.lists(st.tuples(st.floats(0.0, 9.0), st.floats(0.0, 3.0)), min_size=1, max_size=20))
def test_many_at_once_are_as_one_by_one(spans: list[tuple[float, float]], moments: list[tuple[float, float]]) -> None:
    outages = Outages(spans)
    begin, work = np.array(moments).T
    late = [outages.later(t, d) for t, d in moments]
    assert begin + work + outages.stalls(begin, work) == pytest.approx(late, abs=1e-9)
    touched = [any(start <= t + d and t < end for start, end in spans) for t, d in moments]
    assert outages.touch(begin, begin + work).tolist() == touched
    assert not outages.stalls(begin, work)[~outages.touch(begin, begin + work)].any()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([0.01, 0.02, 0.02 + 1e-13, 0.5, 1.0]), min_size=1, max_size=30), st.data())
def test_gaps_that_are_replaced(values: list[float], data: st.DataObject) -> None:
    gaps = Gaps()
    gaps.add_values(np.array(values))
    gone = data.draw(st.permutations(values).map(lambda order: order[: len(order) // 2]))
    noise = data.draw(st.sampled_from([-1e-13, 0.0, 1e-13]))
    gaps.replace_values(np.array(gone) + noise, np.full(len(gone), 0.75))
    left = sorted(values)
    for value in gone:
        left.remove(value)
    sample = gaps.sample()
    assert (sample.count > 0).all()
    want = sorted([*left, *[0.75] * len(gone)])
    assert np.repeat(sample.value_s, sample.count) == pytest.approx(want, abs=1e-12)
    assert not math.isnan(sample.value_s.sum())
