"""Attribution that sums to the totals, SCI by hand, and the five resources."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import attribution, five_resources, report_accounts, sci
from analysis.metrics import plain, summarize
from sim import Constant, Fleet, Link, Result, Site
from sim.accounting.work import useful_flop
from tests.sim.conftest import StepSignal, pool, simulate

ROWS = [(0.05 * i, 30 + i, 10 + 3 * (i % 5)) for i in range(20)]
AMOUNTS = ("energy_kwh", "carbon_operational_kg", "carbon_embodied_kg", "cost_usd")


def two_pools(**settings) -> Result:
    edge = Site("edge", "edge", (pool("edge", boot_s=0.1),), StepSignal(0.3, [400.0, 100.0]), 1.3)
    cloud = Site("cloud", "cloud", (pool("cloud", tp=2),), Constant(300.0, "lca"), StepSignal(0.2, [1.1, 1.4]))
    link = Link("l", "client", "edge", 0.01, energy_j_per_byte=1e-3)
    return simulate(Fleet((edge, cloud), (link,)), ROWS, **settings)


@pytest.mark.parametrize("settings", [{}, {"drain": False, "horizon_s": 0.6}])
@pytest.mark.parametrize("table", ["by_tenant", "by_slo_class", "by_model"])
def test_shares_and_common_parts_sum_to_the_total(table, settings):
    result = two_pools(**settings)
    found = attribution.of(result)
    for amount in AMOUNTS:
        whole = sum(row[amount] for row in (*found[table].values(), *found["common"].values()))
        assert whole == pytest.approx(found["total"][amount], rel=1e-9)
        if not settings:  # nothing was cut: the meters and the shares say the same
            assert abs(found["common"]["cut_off"][amount]) <= 1e-9 * found["total"][amount]
        else:
            assert found["common"]["cut_off"][amount] >= -1e-9 * found["total"][amount]
    assert sum(row["requests"] for row in found[table].values()) == len(result)


def test_totals_are_those_of_the_summary(result):
    summary = summarize(result)
    found = summary["attribution"]["total"]
    assert found["energy_kwh"] == pytest.approx(summary["total"]["energy_kwh"])
    assert found["carbon_embodied_kg"] == pytest.approx(summary["total"]["carbon_kg"]["embodied"])
    assert found["cost_usd"] == pytest.approx(summary["total"]["cost_usd"])


def test_what_is_unknown_stays_unknown(partly_unknown):
    found = summarize(partly_unknown)
    assert found["attribution"]["total"]["cost_usd"] is None
    assert all(row["cost_usd"] is None for row in found["attribution"]["by_model"].values())
    assert all(score is None for score in found["sci"]["g_per_unit"].values())
    html = report_accounts.attribution(found["attribution"], found["sci"]) + report_accounts.five(found["resources"])
    assert "unknown" in html


def test_tenants_are_told_apart():
    result = two_pools()
    result.requests["tenant"] = (np.arange(len(result)) % 3).astype(np.int32)
    found = attribution.of(result)["by_tenant"]
    own = result.requests["energy_j"] + result.requests["energy_wasted_j"]
    for tenant in range(3):
        mine = result.requests["tenant"] == tenant
        assert found[str(tenant)]["energy_kwh"] == pytest.approx(own[mine].sum() / 3.6e6)
        assert found[str(tenant)]["requests"] == mine.sum()


def test_sci_by_hand():
    assert sci.sci(0.05, 400.0, 10.0, 2.0) == pytest.approx((0.05 * 400 + 10) / 2)
    assert sci.sci(0.05, 400.0, 10.0, 0.0) is None
    assert sci.reserved_g(1000e3, 3600.0, 4 * 8760 * 3600.0, 2, 8) == pytest.approx(1000e3 / (4 * 8760) / 4)


@pytest.mark.parametrize(
    ("kwh", "total_kg", "share", "published_g"),
    [
        (0.0656, 1205.52, (2, 16), 66.6906),  # application server
        (0.048, 1433.12, (2, 16), 50.76),  # database server
        (0.0036 + 0.01216, 350.0, (1, 1), 24.96),  # laptop
    ],
)
def test_sci_of_a_published_case(kwh: float, total_kg: float, share: tuple[int, int], published_g: float) -> None:
    """The Green Software Foundation's own case study, eShoppen: an hour of a life of 35,040, at 951 g/kWh."""
    embodied_g = sci.reserved_g(total_kg * 1e3, 3600.0, 35_040 * 3600.0, *share)
    assert sci.sci(kwh, 951.0, embodied_g, 1) == pytest.approx(published_g, abs=0.05)


@pytest.mark.parametrize(("total_kg", "published_g"), [(1000.0, 28.54), (1100.0, 31.39)])  # bare, with two cores
def test_sci_of_the_worked_example(total_kg: float, published_g: float) -> None:
    """An hour of a server's four years: the foundation's Impact Framework, SciEmbodied."""
    assert sci.reserved_g(total_kg * 1e3, 3600.0, 35_040 * 3600.0, 1, 1) == pytest.approx(published_g, abs=0.005)


def test_sci_of_the_quick_guide() -> None:
    """The foundation's quick guide: a month of 4 of 32 cores, 1,329 g in operation, 20,000 calls."""
    embodied_g = sci.reserved_g(1230.3e3, 1.0, 48.0, 4, 32)
    assert sci.sci(1.0, 1329.0, embodied_g, 20_000) == pytest.approx(0.226, abs=0.001)


def test_sci_of_a_run_is_its_carbon_per_functional_unit(result):
    summary = summarize(result)
    total, scores = summary["total"], summary["sci"]["g_per_unit"]
    grams = 1e3 * total["carbon_kg"]["total"]
    assert scores["request"] == pytest.approx(grams / total["requests"]["completed"])
    assert scores["output_token"] == pytest.approx(grams / total["output_tokens"])
    assert scores["slo_request"] >= scores["request"]
    assert "die+memory" in summary["sci"]["boundary"]


def test_useful_work_by_counting():
    model = pool().model
    prompt, cached, output = 7, 3, 4
    expected = 0.0
    for position in range(cached, prompt + output - 1):
        prefill = position < prompt
        expected += model.gemm_flops_per_token()
        expected += model.attention_flops_per_pair(prefill=prefill) * (position + 1)
        if model.window_layers:
            expected += model.attention_flops_per_pair(True, prefill) * min(position + 1, model.window)
    counted = useful_flop(model, np.array([prompt]), np.array([cached]), np.array([output]))
    assert counted == pytest.approx(expected, rel=1e-12)


def test_five_resources():
    result = two_pools()
    tokens = int(result.requests["output_tokens"].sum())
    found = plain(five_resources.of(result, tokens))
    assert set(found) == {"compute", "memory", "energy", "money", "network"}
    energy = sum(sum(each.facility_energy_j.values()) for each in result.pools) / 3.6e6
    assert found["energy"]["facility [kWh]"]["absolute"] == pytest.approx(energy)
    assert found["energy"]["facility [kWh]"]["per_1000_tokens"] == pytest.approx(energy / tokens * 1e3)
    mfu = found["compute"]["MFU while busy, of the 16-bit peak [0 to 1]"]
    assert 0.0 < mfu["absolute"] < 1.0
    assert mfu["per_1000_tokens"] is None
    memory = found["memory"]
    assert 0.0 < memory["KV cache at its peak [GB]"]["absolute"] <= memory["KV cache there is [GB]"]["absolute"]
    assert five_resources.of(result, 0)["money"]["cost [USD]"]["per_1000_tokens"] is None
