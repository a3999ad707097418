"""The way out: delays behind the engine equal those of a loop over every token, and nothing else changes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim import Fleet, Result, Site, observer, qoe, run
from sim.routing import Random
from sim.serving import step_clock
from sim.serving.detokenizer import Detokenizer
from sim.serving.sequence import Sequence
from sim.serving.spans import Spans
from tests.sim.conftest import CHAT, fleet_of, pool, simulate, xpu
from tests.sim.test_determinism import hybrid, workload

STEP_S = 0.01


@st.composite
def clocks(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a clock, and when prompts yielded a token at the end of some of them."""
    t, rows, singles = 0.0, [], []
    for _ in range(draw(st.integers(1, 15))):
        t += draw(st.sampled_from([0.0, 0.0, 0.3]))
        k, a = draw(st.integers(1, 20)), draw(st.floats(2e-3, 0.05))
        b = draw(st.sampled_from([0.0, 1e-6, 3e-4, -5e-5]))
        rows.append((t, k, a, b, draw(st.integers(0, 6)), 0, 10, 0, 1.0))
        t += k * a + b * (k * (k - 1) * 0.5)
        singles += [t] * draw(st.integers(0, 3))
    return np.array(rows, dtype=np.float64), np.array(singles)


def slow(rows: np.ndarray, singles: np.ndarray, token_s: float) -> tuple[list[float], list[float]]:
    """Every step's end, and when the last of its tokens is through, token by token [s]."""
    free, ends, out = 0.0, [], []
    for row in rows:
        t, k, a, b, n = row[:5]
        for i in range(1, int(k) + 1):
            end = t + i * a + b * (i * (i - 1) * 0.5)
            tokens = int(n) + (np.count_nonzero(np.abs(singles - end) < 1e-9) if i == k else 0)
            for _ in range(tokens):
                free = max(free, end) + token_s
            ends.append(end)
            out.append(max(free, end))
    return ends, out


@settings(max_examples=200, deadline=None)
@given(clocks(), st.sampled_from([1e-4, 1e-3, 5e-3, 0.02]), st.data())
def test_delays_equal_a_loop_over_tokens_however_it_is_folded(
    clock: tuple[np.ndarray, np.ndarray], token_s: float, data: st.DataObject
) -> None:
    rows, singles = clock
    ends, out = slow(rows, singles, token_s)
    last = np.cumsum(rows[:, step_clock.STEPS]).astype(int) - 1
    detokenizer, seen, begin, done = Detokenizer(token_s), [], 0, 0
    while done < len(rows):
        until = data.draw(st.integers(done + 1, len(rows)))
        kept = rows[begin:until]
        detokenizer.take(kept, until - done, singles[singles <= ends[last[until - 1]] + 1e-9])
        fold = detokenizer.client_clock(kept)
        got = (fold[:, step_clock.START] + fold[:, step_clock.A])[int(rows[begin:done, step_clock.STEPS].sum()) :]
        seen += got.tolist()
        at = np.array([ends[i] for i in last[begin:until]])
        want = np.array([out[i] for i in last[begin:until]]) - at
        assert detokenizer.delay_s(at) == pytest.approx(want, abs=1e-11)
        done = until
        drop = data.draw(st.integers(0, until - begin))
        detokenizer.drop(drop)
        begin += drop
    assert seen == pytest.approx(out, abs=1e-10)


def served(rows: list[tuple[float, int, int]], **engine: Any) -> Result:
    """On a replica whose every step takes 10 ms."""
    zero = {
        "step_overhead_s": STEP_S, "layer_overhead_s": 0.0, "seq_overhead_s": 0.0, "compute_eff": 1e9,
        "weight_eff": 1e9, "kv_eff": 1e9, "attn_eff": 1e9,
    }  # fmt: skip
    return simulate(fleet_of(pool(xpu=xpu(timing=zero), engine=engine)), rows)


def test_one_request_by_hand() -> None:
    requests = served([(0.0, 10, 5)], detokenize_s=1e-3).requests
    assert requests["ttft_s"][0] == pytest.approx(0.011, rel=1e-6)
    assert requests["e2e_s"][0] == pytest.approx(0.051, rel=1e-6)
    assert requests["tpot_s"][0] == pytest.approx(0.010, rel=1e-6)
    assert requests["decode_s"][0] == pytest.approx(0.040, rel=1e-6)
    assert requests["downlink_s"][0] == pytest.approx(0.001, rel=1e-9)


def test_a_slow_detokenizer_sets_the_pace() -> None:
    result = served([(0.0, 10, 101)], detokenize_s=0.03)
    requests = result.requests
    assert requests["ttft_s"][0] == pytest.approx(STEP_S + 0.03, rel=1e-6)
    assert requests["e2e_s"][0] == pytest.approx(STEP_S + 101 * 0.03, rel=1e-6)
    assert requests["tpot_s"][0] == pytest.approx(0.03, rel=1e-6)
    assert requests["itl_max_s"][0] == pytest.approx(0.03, rel=1e-6)
    assert result.gaps[0, 0].value_s == pytest.approx([0.03] * 100, rel=1e-6)
    times = STEP_S + 0.03 * np.arange(1, 102)
    want = qoe.token_qoe_v1_walk(times, CHAT.expected_ttft_s, CHAT.digest_tokens_per_s)
    assert requests["token_qoe"][0] == pytest.approx(want, rel=1e-6)


def test_a_stalled_stream_is_walked_as_clients_see_it() -> None:
    """80 ms a token is slower than the 50 ms at which a user reads."""
    requests = served([(0.0, 10, 40)], detokenize_s=0.08).requests
    times = STEP_S + 0.08 * np.arange(1, 41)
    for name, walk in (("token_qoe", qoe.token_qoe_v1_walk), ("token_qoe_v2", qoe.token_qoe_v2_walk)):
        assert requests[name][0] == pytest.approx(walk(times, CHAT.expected_ttft_s, CHAT.digest_tokens_per_s), rel=1e-6)


def test_a_batch_comes_out_as_a_whole() -> None:
    requests = served([(0.0, 10, 3)] * 4, detokenize_s=1e-3).requests
    assert requests["ttft_s"] == pytest.approx([0.014] * 4, rel=1e-6)
    assert requests["e2e_s"] == pytest.approx([0.034] * 4, rel=1e-6)


def test_saturation_grows_without_bound() -> None:
    late = [served([(0.0, 10, 101)] * n, detokenize_s=0.004).requests["downlink_s"][0] for n in (2, 3, 4)]
    # after 101 steps of 10 ms, n tokens of 4 ms each: 8 and 12 and 16 ms of work a step
    assert late == pytest.approx([0.008, 0.012 + 100 * 0.002, 0.016 + 100 * 0.006], rel=1e-5)


def twice(fleet: Fleet, detokenize_s: float, **settings_: Any) -> tuple[Result, Result]:
    """A run without detokenizers, and with."""

    def with_(each: float) -> Fleet:
        def pools(site: Site) -> list[Any]:
            return [replace(p, engine=replace(p.engine, detokenize_s=each)) for p in site.pools]

        return Fleet(tuple(replace(site, pools=tuple(pools(site))) for site in fleet.sites), fleet.links)

    off, on = (
        run(with_(each), workload(), Random(), seed=5, keep_spans=True, **settings_) for each in (0.0, detokenize_s)
    )
    return off, on


def test_the_engine_does_not_notice() -> None:
    off, on = twice(hybrid(), 1e-3)
    moved = {"ttft_s", "ttfv_s", "tpot_s", "e2e_s", "downlink_s", "itl_max_s", "token_qoe", "token_qoe_v2", "slo_met"}
    for name, values in off.requests.items():
        assert name in moved or np.array_equal(values, on.requests[name], equal_nan=values.dtype.kind == "f"), name
    for name, values in off.timeline.items():
        assert np.array_equal(values, on.timeline[name]), name
    assert (on.requests["e2e_s"] > off.requests["e2e_s"]).all()


@pytest.mark.parametrize("token_s", [2e-4, 1e-3])
def test_a_whole_run_equals_a_loop_over_tokens(monkeypatch: pytest.MonkeyPatch, token_s: float) -> None:
    """With preemptions, on five replicas: first and last tokens come as late as they would one by one."""
    first_token, singles = Spans._first_token, []

    def noted(self: Spans, seq: Sequence, t: float, chunk: int) -> None:
        singles.append((seq.request.id, t))
        first_token(self, seq, t, chunk)

    monkeypatch.setattr(Spans, "_first_token", noted)
    off, on = twice(hybrid(), token_s)
    singles = singles[: len(singles) // 2]  # both runs tell the same
    requests, spans = off.requests, off.spans
    assert requests["preemptions"].sum() > 20
    assert spans is not None
    for pool_, replica in {(p, r) for p, r in zip(requests["pool"].tolist(), requests["replica"].tolist())}:
        mine = (spans["pool"] == pool_) & (spans["replica"] == replica)
        rows = np.column_stack([spans[name][mine] for name in ("t0_s", "steps", "a_s", "b_s", "decoding")])
        here = np.flatnonzero((requests["pool"] == pool_) & (requests["replica"] == replica))
        ends, out = (np.array(each) for each in slow(rows, np.array([t for i, t in singles if i in here]), token_s))
        for ttft in ("ttft_s", "e2e_s"):
            emitted = (requests["arrival_s"] + requests[ttft] - requests["downlink_s"])[here]
            step = np.abs(ends[None, :] - emitted[:, None]).argmin(axis=1)
            late = (on.requests[ttft] - requests[ttft])[here]
            assert late == pytest.approx((out - ends)[step], abs=1e-9)


@pytest.mark.parametrize(("rows", "check"), [(0, 1), (320, 3)])
@pytest.mark.parametrize("settings_", [{}, {"horizon_s": 3.0, "drain": False}])
def test_folding_often_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, rows: int, check: int, settings_: dict[str, Any]
) -> None:
    _, whole = twice(hybrid(), 1e-3, **settings_)
    monkeypatch.setattr(observer, "FOLD_ROWS", rows)
    monkeypatch.setattr(observer, "FOLD_CHECK", check)
    _, parts = twice(hybrid(), 1e-3, **settings_)
    for name, values in whole.requests.items():
        assert parts.requests[name] == pytest.approx(values, rel=1e-9, abs=1e-11, nan_ok=True), name
    for key, sample in whole.gaps.items():
        assert parts.gaps[key].value_s == pytest.approx(sample.value_s, abs=1e-11)
        assert parts.gaps[key].count.sum() == sample.count.sum()


def test_only_some_pools_may_have_one() -> None:
    fleet = hybrid()
    _, on = twice(fleet, 1e-3)
    off, _ = twice(fleet, 1e-3)
    edge, cloud = fleet.sites
    slow_edge = replace(edge.pools[0], engine=replace(edge.pools[0].engine, detokenize_s=1e-3))
    mixed = run(
        Fleet((replace(edge, pools=(slow_edge,)), cloud), fleet.links), workload(), Random(), seed=5, keep_spans=True
    )
    for index, want in enumerate((on, off)):
        mine = want.requests["pool"] == index
        for name, values in want.requests.items():
            assert mixed.requests[name][mine] == pytest.approx(values[mine], rel=1e-12, abs=1e-12, nan_ok=True), name
