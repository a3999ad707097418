"""Unit costs give the whole cost back; margins, penalties and carbon prices by hand; unknown stays unknown."""

from __future__ import annotations

import io
from typing import Any

import pytest

from analysis.economics import Terms
from analysis.metrics import summarize
from analysis.table import print_table
from sim.results import Result
from tests.analysis.conftest import make_result

TERMS = Terms(usd_per_mtok_in=40.0, usd_per_mtok_out=90.0, usd_per_request=1e-4)


def test_split_unit_costs_give_the_whole_cost_back(result: Result) -> None:
    summary = summarize(result)
    for scope in [summary["total"], *summary["by_pool"].values(), *summary["by_slo_class"].values()]:
        back = scope["usd_per_mtok_in"] * scope["prompt_tokens"] + scope["usd_per_mtok_out"] * scope["output_tokens"]
        assert back / 1e6 == pytest.approx(scope["cost_usd"])
        assert scope["usd_per_mtok_in"] * scope["prompt_tokens"] / 1e6 == pytest.approx(0.2 * scope["cost_usd"])
    total = summary["total"]
    met = total["slo_attainment"] * total["requests"]["arrived"]
    assert total["usd_per_slo_request"] == pytest.approx(total["cost_usd"] / met)


def test_margin_is_revenue_less_cost_penalties_and_carbon_if_asked(result: Result) -> None:
    def section(**more: Any) -> dict[str, Any]:
        terms = Terms(40.0, 90.0, 1e-4, **more)
        return summarize(result, terms)["economics"]  # type: ignore[no-any-return]

    total = summarize(result)["total"]
    revenue = (40.0 * total["prompt_tokens"] + 90.0 * total["output_tokens"]) / 1e6
    revenue += 1e-4 * total["requests"]["completed"]
    plain = section()
    assert plain["revenue_usd"] == pytest.approx(revenue)
    assert plain["margin_usd"] == pytest.approx(revenue - total["cost_usd"])
    assert plain["price_factor_without_margin"] == pytest.approx(total["cost_usd"] / revenue)
    assert (plain["slo_violations_usd"], plain["carbon_usd"]) == (None, None)
    fined = section(slo_violation_usd=0.01)
    owed = 0.01 * (1.0 - total["slo_attainment"]) * total["requests"]["arrived"]
    assert owed > 0.0
    assert fined["margin_usd"] == pytest.approx(plain["margin_usd"] - owed)
    taxed = section(carbon_usd_per_t=100.0)
    assert taxed["carbon_usd"] == pytest.approx(total["carbon_kg"]["total"] * 0.1)
    assert taxed["margin_usd"] == plain["margin_usd"]
    counted = section(carbon_usd_per_t=100.0, carbon_in_cost=True)
    assert counted["margin_usd"] == pytest.approx(plain["margin_usd"] - taxed["carbon_usd"])


def test_what_is_unknown_stays_so_and_without_terms_there_is_no_section(result: Result) -> None:
    dark = summarize(make_result(unknown=True), TERMS)
    assert dark["total"]["usd_per_mtok_in"] is None
    assert dark["economics"]["revenue_usd"] > 0.0
    assert dark["economics"]["margin_usd"] is None
    assert "economics" not in summarize(result, Terms())


def test_the_terminal_says_what_was_asked(result: Result) -> None:
    file = io.StringIO()
    print_table(summarize(result, Terms(slo_violation_usd=0.01)), file)
    assert "owed for missed SLOs [USD]" in file.getvalue()
    assert "revenue" not in file.getvalue()
