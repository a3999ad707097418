"""summary.json: percentiles as numpy's, sums that add up, and null where nothing is known."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import gaps
from analysis.metrics import distribution, plain, summarize
from sim.results import STATUSES, GapSample, Result
from tests.analysis.conftest import make_result

SCOPE_KEYS = {
    "requests", "ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s", "goodput_rps", "slo_attainment", "token_qoe",
    "token_qoe_share_095", "energy_kwh", "it_energy_kwh", "carbon_kg", "cost_usd", "usd_per_mtok", "g_per_mtok",
    "j_per_token", "usd_per_request", "g_per_request", "j_per_request", "usd_per_mtok_in_out", "output_tokens",
    "throughput_tokens_per_s", "parts", "incomplete",
}  # fmt: skip


def scopes(summary: dict[str, Any]) -> list[dict[str, Any]]:
    return [summary["total"], *summary["by_pool"].values(), *summary["by_slo_class"].values()]


@pytest.fixture(scope="module")
def summary(result: Result) -> dict[str, Any]:
    return summarize(result)


@given(
    st.lists(st.tuples(st.floats(0.0, 1e3), st.integers(1, 50)), min_size=1, max_size=60),
    st.lists(st.floats(0.0, 100.0), min_size=1, max_size=8),
)
def test_gap_percentiles_are_numpys_over_the_expanded_sample(pairs: list[tuple[float, int]], q: list[float]) -> None:
    value, count = np.array([p[0] for p in pairs]), np.array([p[1] for p in pairs])
    order = np.argsort(value)
    halves = [
        GapSample(value[order][::2], count[order][::2]),
        GapSample(value[order][1::2], count[order][1::2]),
    ]
    merged, expanded = gaps.merge(halves), np.repeat(value, count)
    assert gaps.percentiles(merged, q).tolist() == np.percentile(expanded, q).tolist()
    assert gaps.mean(merged) == pytest.approx(expanded.mean())


def test_no_gaps_have_no_percentiles() -> None:
    empty = gaps.merge([])
    assert np.isnan(gaps.percentiles(empty, [50.0])).all()
    assert np.isnan(gaps.mean(empty))


def test_every_scope_has_every_key(summary: dict[str, Any]) -> None:
    accounts = {"attribution", "sci", "resources"}
    assert set(summary) == {"total", "by_pool", "by_slo_class", "by_link", "performance"} | accounts
    assert list(summary["by_pool"]) == ["edge_l4", "cloud_h100"]
    assert list(summary["by_slo_class"]) == ["chat", "batch"]
    for scope in scopes(summary):
        assert set(scope) >= SCOPE_KEYS
        for name in ("ttft_s", "tpot_s", "itl_s", "e2e_s", "queue_s"):
            assert set(scope[name]) == {"mean", "p50", "p90", "p95", "p99"}
    assert set(summary["performance"]) == {"wall_s", "requests_per_s", "peak_rss_mb"}


def test_latencies_are_of_counted_completed_requests(result: Result, summary: dict[str, Any]) -> None:
    rows = [
        (t, e, p)
        for t, e, p, counted, status in zip(
            *(result.requests[name] for name in ("ttft_s", "e2e_s", "tpot_s", "counted", "status"))
        )
        if counted and STATUSES[status] == "completed"
    ]
    assert summary["total"]["ttft_s"]["p99"] == np.percentile([row[0] for row in rows], 99)
    assert summary["total"]["e2e_s"]["mean"] == pytest.approx(np.mean([row[1] for row in rows]))
    assert summary["total"]["tpot_s"]["p50"] == np.percentile([row[2] for row in rows if row[2] == row[2]], 50)


def test_requests_add_up(result: Result, summary: dict[str, Any]) -> None:
    for scope in scopes(summary):
        assert scope["requests"]["arrived"] == sum(scope["requests"][name] for name in STATUSES)
    total = summary["total"]["requests"]
    assert total["arrived"] == len(result)
    assert total["failed"] > 0
    for name in total:
        assert total[name] == sum(scope["requests"][name] for scope in summary["by_slo_class"].values())
    nowhere = int((result.requests["pool"] < 0).sum())
    assert total["arrived"] - nowhere == sum(scope["requests"]["arrived"] for scope in summary["by_pool"].values())


def test_lost_requests_miss_their_slo(result: Result, summary: dict[str, Any]) -> None:
    column, total = result.requests, summary["total"]
    counted = column["counted"]
    assert total["requests"]["counted"] == counted.sum() < len(result)
    assert total["slo_attainment"] == pytest.approx((column["slo_met"] & counted).sum() / counted.sum())
    assert total["goodput_rps"] * result.observed_s == pytest.approx(total["requests"]["slo_met"])
    assert 0.0 < total["token_qoe"] < 1.0
    assert 0.0 < total["token_qoe_share_095"] < 1.0


def test_energy_carbon_and_cost_add_up(summary: dict[str, Any]) -> None:
    total = summary["total"]
    for group in ("by_pool", "by_slo_class"):
        for read in (
            lambda s: s["energy_kwh"],
            lambda s: s["it_energy_kwh"],
            lambda s: s["carbon_kg"]["operational"],
            lambda s: s["carbon_kg"]["embodied"],
            lambda s: s["carbon_kg"]["total"],
            lambda s: s["cost_usd"],
        ):
            assert sum(read(scope) for scope in summary[group].values()) == pytest.approx(read(total), rel=1e-9)
    for scope in scopes(summary):
        known = [value for value in scope["parts"]["energy_kwh"].values() if value is not None]
        assert sum(known) == pytest.approx(scope["energy_kwh"])
    assert total["it_energy_kwh"] < total["energy_kwh"]
    assert total["carbon_kg"]["embodied_low"] < total["carbon_kg"]["embodied"] < total["carbon_kg"]["embodied_high"]


def test_denominators(result: Result, summary: dict[str, Any]) -> None:
    total, column = summary["total"], result.requests
    done = column["status"] == 0
    tokens = column["output_tokens"][done].sum()
    both = tokens + column["prompt_tokens"][done].sum()
    assert total["output_tokens"] == tokens
    assert total["usd_per_mtok"] == pytest.approx(total["cost_usd"] / tokens * 1e6)
    assert total["usd_per_mtok_in_out"] == pytest.approx(total["cost_usd"] / both * 1e6)
    assert total["g_per_mtok"] == pytest.approx(total["carbon_kg"]["total"] * 1e3 / tokens * 1e6)
    assert total["j_per_token"] == pytest.approx(total["energy_kwh"] * 3.6e6 / tokens)
    assert total["j_per_request"] == pytest.approx(total["energy_kwh"] * 3.6e6 / done.sum())
    assert total["throughput_tokens_per_s"] == pytest.approx(tokens / result.end_s)


def test_unknown_is_null_and_named(partly_unknown: Result) -> None:
    summary = summarize(partly_unknown)
    total, cloud, edge = summary["total"], summary["by_pool"]["cloud_h100"], summary["by_pool"]["edge_l4"]
    for scope in (total, cloud, *summary["by_slo_class"].values()):
        assert scope["carbon_kg"]["embodied"] is None
        assert scope["carbon_kg"]["total"] is None
        assert scope["carbon_kg"]["operational"] > 0.0
        assert scope["cost_usd"] is None
        assert scope["usd_per_mtok"] is None
        assert scope["g_per_mtok"] is None
        assert scope["g_operational_per_mtok"] > 0.0
        assert any("cost unknown" in line for line in scope["incomplete"])
    assert edge["cost_usd"] > 0.0
    assert edge["incomplete"] == []
    assert total["incomplete"][0].startswith("cloud_h100: ")


def test_a_run_without_requests_is_all_null() -> None:
    empty = make_result(requests=0, end_s=10.0)
    empty.observed_s = 0.0
    summary = summarize(empty)
    for scope in scopes(summary):
        assert scope["ttft_s"]["p99"] is None
        assert scope["itl_s"]["mean"] is None
        assert scope["slo_attainment"] is None
        assert scope["goodput_rps"] is None
        assert scope["j_per_token"] is None
    assert summary["total"]["energy_kwh"] > 0.0
    json.dumps(summary, allow_nan=False)


def test_summary_is_json_and_deterministic(result: Result, summary: dict[str, Any]) -> None:
    assert summary["total"]["window"]["horizon_s"] is None  # infinite
    again = summarize(make_result())
    for key in ("total", "by_pool", "by_slo_class"):
        assert json.dumps(again[key], allow_nan=False) == json.dumps(summary[key], allow_nan=False)


def test_plain_knows_every_scalar() -> None:
    given_value = {1: (np.int16(2), np.float32(0.5)), "x": {"b", "a"}, "n": [np.nan, np.inf, None, np.bool_(True)]}
    assert plain(given_value) == {"1": [2, 0.5], "x": ["a", "b"], "n": [None, None, None, True]}


def test_distribution_ignores_what_does_not_apply() -> None:
    assert distribution(np.array([np.nan, 1.0, 3.0]))["p50"] == 2.0
    assert distribution(np.array([np.nan]))["mean"] is None
