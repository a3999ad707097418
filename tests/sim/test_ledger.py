"""The ledger on runs whose totals are known: parts, bases, what is unknown, and shares of what nobody asked for."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from analysis.metrics import summarize
from sim import Constant, Fleet, Host, Link, Pool, Rent, Result, Site
from sim.accounting import Market
from sim.accounting.embodied import by_use
from sim.accounting.ledger import PARTS, rates_of
from sim.accounting.water import Water
from sim.units import JOULES_PER_KWH, SECONDS_PER_HOUR
from tests.sim.conftest import StepSignal, embodied, fleet_of, live_pool, owned, pool, simulate

ROWS = [(0.2 * i, 30 + i, 10 + 3 * i) for i in range(12)]
TIGHT = {"kv_blocks": 10, "max_num_seqs": 6}  # nine usable blocks of 16: some of `CROWD` is preempted
CROWD = [(0.001 * i, 25, 30) for i in range(8)]


def one(rows: list[Any] = ROWS, site: dict[str, Any] | None = None, settings: Any = None, **changes: Any) -> Result:
    """A run on one pool of a site at 400 g/kWh."""
    return simulate(
        fleet_of(pool(**changes), **({"intensity": Constant(400.0, "lca", "test")} | (site or {}))),
        rows, **(settings or {}),
    )  # fmt: skip


def whole(parts: dict[str, float]) -> float:
    assert set(parts) == set(PARTS)
    return sum(parts.values())


def test_rates_scale_with_tensor_parallelism_and_the_host() -> None:
    lone, pair = (rates_of(live_pool(pool(tp=tp))) for tp in (1, 2))
    assert (lone.active_w, lone.idle_w) == (80.0 + 30.0, 40.0 + 30.0)
    assert (pair.active_w, pair.idle_w) == (220.0, 140.0)
    assert lone.embodied_g_per_s == pytest.approx((0.07, 0.14, 0.28))
    assert pair.embodied_g_per_s == pytest.approx((0.14, 0.28, 0.56))
    assert lone.usd_per_s == 3.6 / SECONDS_PER_HOUR
    assert pair.usd_per_s == 2 * 3.6 / SECONDS_PER_HOUR
    bare = rates_of(live_pool(pool(host=None)))
    assert (bare.active_w, bare.idle_w) == (80.0, 40.0)
    assert bare.embodied_g_per_s == pytest.approx((0.05, 0.1, 0.2))
    assert "host" not in bare.boundary
    assert "xPU: board" in lone.boundary
    assert "host: board" in lone.boundary


def test_pue_scales_facility_energy_and_leaves_it_energy() -> None:
    base, loss = one(), one(site={"pue": 1.5})
    for part in PARTS:
        assert loss.pools[0].it_energy_j[part] == pytest.approx(base.pools[0].it_energy_j[part], rel=1e-12)
        assert loss.pools[0].facility_energy_j[part] == pytest.approx(1.5 * base.pools[0].facility_energy_j[part])
        grams = base.pools[0].carbon_operational_g[part]
        assert loss.pools[0].carbon_operational_g[part] == pytest.approx(1.5 * grams)
    assert loss.requests["energy_j"] == pytest.approx(1.5 * base.requests["energy_j"])
    assert loss.pools[0].cost_usd == base.pools[0].cost_usd  # rent includes power


def test_network_energy_is_outside_pue_and_known_or_said_to_be_missing() -> None:
    def over(energy: float | None) -> Result:
        site = Site("site", "edge", (pool(),), Constant(400.0), pue=1.5)
        link = Link("l", "client", "site", 0.01, energy_j_per_byte=energy)
        return simulate(Fleet((site,), (link,)), ROWS)

    known, unknown = over(2e-3), over(None)
    asked = sum(4 * prompt + 200 * output for _, prompt, output in ROWS)
    totals = known.pools[0]
    assert totals.it_energy_j["network"] == totals.facility_energy_j["network"] == pytest.approx(2e-3 * asked)
    assert totals.carbon_operational_g["network"] == pytest.approx(2e-3 * asked * 400.0 / JOULES_PER_KWH)
    assert totals.bytes_up + totals.bytes_down == asked
    assert unknown.pools[0].facility_energy_j["network"] == 0.0
    assert any("network" in text for text in unknown.pools[0].incomplete)
    assert not any("network" in text for text in totals.incomplete)


def test_market_based_carbon_stands_beside_the_location_based() -> None:
    site = Site("site", "edge", (pool(),), Constant(400.0, "lca"), 1.5, Market(0.4, 10.0, 500.0))
    link = Link("l", "client", "site", 0.01, energy_j_per_byte=2e-3)
    totals = simulate(Fleet((site,), (link,)), ROWS).pools[0]
    building_kwh = (whole(totals.facility_energy_j) - totals.facility_energy_j["network"]) / JOULES_PER_KWH
    network_g = totals.facility_energy_j["network"] * 400.0 / JOULES_PER_KWH
    assert totals.carbon_market_g == pytest.approx(building_kwh * (0.4 * 10 + 0.6 * 500) + network_g, rel=1e-12)
    assert whole(totals.carbon_operational_g) == pytest.approx(building_kwh * 400.0 + network_g, rel=1e-12)
    assert one(site={"market": Market(0.4, 10.0)}).pools[0].carbon_market_g is None
    assert one().pools[0].carbon_market_g is None


def test_amortised_by_use_idle_time_carries_nothing() -> None:
    spec = pool()
    assert spec.embodied is not None
    by_hours = by_use(spec.embodied, 1000.0)
    result = one(embodied=by_hours, embodied_shares={"rack": embodied(60.0)}, host=None, settings={"horizon_s": 20.0})
    totals, requests = result.pools[0], result.requests
    rack_g_s, use_g_s = embodied(60.0).g_per_s(), by_hours.g_per_s()
    parts = totals.carbon_embodied_g
    assert parts is not None
    assert parts["idle"] == pytest.approx(rack_g_s * totals.idle_s, rel=1e-12)
    assert whole(parts) == pytest.approx(rack_g_s * 20.0 + use_g_s * totals.busy_s, rel=1e-12)
    assert requests["carbon_embodied_provisioned_g"].sum() == pytest.approx(whole(parts), rel=1e-9)
    assert totals.carbon_embodied_range_g is not None
    assert totals.carbon_embodied_range_g[1] == pytest.approx(whole(parts), rel=1e-12)
    assert "rack: board" in totals.embodied_boundary
    unknown = one(embodied_shares={"network": None}).pools[0]
    assert unknown.carbon_embodied_g is None
    assert any("embodied carbon of the network is unknown" in text for text in unknown.incomplete)


def test_water_is_that_of_the_building_and_unknown_without_factors() -> None:
    result = one(site={"pue": 1.5, "water": Water(0.5, 3.0)})
    it_kwh = whole(result.pools[0].it_energy_j) / JOULES_PER_KWH
    assert result.pools[0].water_on_l == pytest.approx(0.5 * it_kwh, rel=1e-12)
    assert result.pools[0].water_off_l == pytest.approx(1.5 * 3.0 * it_kwh, rel=1e-12)
    summary = summarize(result)
    assert summary["total"]["water_l"]["total"] == pytest.approx((0.5 + 4.5) * it_kwh, rel=1e-12)
    assert summary["total"]["l_per_request"] == pytest.approx(5.0 * it_kwh / len(ROWS), rel=1e-12)
    by_class = [section["water_l"]["total"] for section in summary["by_slo_class"].values()]
    assert sum(each or 0.0 for each in by_class) == pytest.approx(5.0 * it_kwh, rel=1e-9)
    half = one(site={"water": Water(0.5)})
    assert half.pools[0].water_off_l is None
    assert summarize(half)["total"]["water_l"]["total"] is None
    assert summarize(one())["total"]["l_per_request"] is None


def test_ownership_pays_for_every_joule_once() -> None:
    result = one(cost=owned())
    totals, rates = result.pools[0], owned().rates()
    expected = rates.usd_per_xpu_s * result.end_s + rates.usd_per_facility_j * whole(totals.facility_energy_j)
    assert whole(totals.cost_usd) == pytest.approx(expected, rel=1e-12)
    assert totals.cost_usd["idle"] > rates.usd_per_xpu_s * totals.idle_s


def test_rent_pays_for_provisioned_time() -> None:
    result = one(replicas=3, tp=2, boot_s=0.5, settings={"horizon_s": 20.0})
    assert whole(result.pools[0].cost_usd) == pytest.approx(3 * 2 * 20.0 * 3.6 / SECONDS_PER_HOUR, rel=1e-12)
    assert result.pools[0].provisioned_s == 120.0
    assert whole(result.pools[0].carbon_embodied_g) == pytest.approx(6 * 20.0 * 140e3 / 1e6, rel=1e-12)
    low, central, high = result.pools[0].carbon_embodied_range_g
    assert (low, high) == pytest.approx((central / 2, central * 2))


@pytest.mark.parametrize(
    ("changes", "columns", "words"),
    [
        ({"cost": None}, ("cost_usd", "cost_prefill_usd", "cost_provisioned_usd"), "cost is unknown"),
        ({"embodied": None}, ("carbon_embodied_g", "carbon_embodied_provisioned_g"), "embodied carbon of the xPU"),
        ({"host": Host(30.0)}, ("carbon_embodied_g", "carbon_embodied_provisioned_g"), "embodied carbon of the host"),
    ],
)
def test_what_is_unknown_is_never_zero(changes: dict[str, Any], columns: tuple[str, ...], words: str) -> None:
    result = one(**changes)
    assert any(words in text for text in result.pools[0].incomplete)
    for column in columns:
        assert np.isnan(result.requests[column]).all()
    total = result.pools[0].cost_usd if "cost" in changes else result.pools[0].carbon_embodied_g
    assert total is None
    whole = one().requests
    known = {name for name, values in whole.items() if not np.isnan(values.astype(float)).any()} - set(columns)
    assert {"ttft_s", "energy_j"} < known
    for column in known:
        assert not np.isnan(result.requests[column].astype(float)).any(), column


def test_unknown_intensity_makes_carbon_unknown() -> None:
    result = simulate(fleet_of(pool()), ROWS)
    assert np.isnan(result.requests["carbon_operational_g"]).all()
    assert all(math.isnan(each) for each in result.pools[0].carbon_operational_g.values())
    assert any("intensity" in text for text in result.pools[0].incomplete)
    assert whole(result.pools[0].facility_energy_j) > 0.0


def test_waste_is_counted_apart_and_belongs_to_whom_it_happened() -> None:
    result = one(CROWD, engine=TIGHT)
    requests, parts = result.requests, result.pools[0].facility_energy_j
    hit = requests["preemptions"] > 0
    assert hit.any()
    assert not hit.all()
    assert (requests["energy_wasted_j"][hit] > 0.0).all()
    assert (requests["energy_wasted_j"][~hit] == 0.0).all()
    assert parts["wasted"] == pytest.approx(requests["energy_wasted_j"].sum(), rel=1e-12)
    assert parts["wasted"] > 0.01 * parts["active"]
    roomy = one(CROWD, engine=TIGHT | {"kv_blocks": 200})
    assert roomy.pools[0].facility_energy_j["wasted"] == 0.0
    assert whole(roomy.pools[0].facility_energy_j) < whole(parts)


def test_idle_is_spread_by_active_time() -> None:
    result = one(boot_s=0.1, replicas=2)
    requests, totals = result.requests, result.pools[0]
    share = requests["xpu_s"] / requests["xpu_s"].sum()
    idle = totals.facility_energy_j["idle"] + totals.facility_energy_j["boot"]
    assert requests["energy_provisioned_j"] - requests["energy_j"] == pytest.approx(share * idle, rel=1e-9)
    idle_g = totals.carbon_operational_g["idle"] + totals.carbon_operational_g["boot"]
    spread = requests["carbon_operational_provisioned_g"] - requests["carbon_operational_g"]
    assert spread == pytest.approx(share * idle_g, rel=1e-9)


def test_rejected_requests_carry_nothing() -> None:
    result = one([(0.0, 20, 5), (0.1, 5000, 5)], settings={"oversize": "reject"})
    for column, values in result.requests.items():
        if column.startswith(("energy", "carbon", "cost", "xpu")):
            assert values[1] == 0.0, column
            assert values[0] > 0.0 or column in ("energy_wasted_j", "energy_network_j"), column


def test_an_idle_pool_draws_idle_power_and_gives_nobody_a_share() -> None:
    busy, idle = pool("busy"), pool("idle", replicas=2, boot_s=0.25)
    result = simulate(fleet_of(busy, idle, intensity=Constant(400.0)), ROWS)
    totals = result.pools[1]
    assert totals.busy_s == 0.0
    assert totals.facility_energy_j["active"] == totals.facility_energy_j["wasted"] == 0.0
    assert totals.facility_energy_j["idle"] == pytest.approx(2 * 70.0 * (result.end_s - 0.25), rel=1e-12)
    assert totals.facility_energy_j["boot"] == pytest.approx(2 * 110.0 * 0.25, rel=1e-12)
    assert totals.steps == totals.output_tokens == 0
    alone = simulate(fleet_of(busy, intensity=Constant(400.0)), ROWS)
    for column, values in alone.requests.items():
        assert np.array_equal(result.requests[column], values, equal_nan=True), column


def test_a_run_shorter_than_the_boot_only_boots() -> None:
    result = one([(0.5, 20, 5)], boot_s=5.0, settings={"horizon_s": 2.0, "drain": False})
    parts = result.pools[0].facility_energy_j
    assert parts == pytest.approx({"boot": 220.0, "idle": 0.0, "active": 0.0, "wasted": 0.0, "network": 0.0})
    assert result.requests["status"].tolist() == [5]
    assert result.timeline["energy_j"].sum() == pytest.approx(220.0)


def test_a_signal_that_does_not_change_equals_a_constant() -> None:
    fixed = one(CROWD, engine=TIGHT, boot_s=0.1)
    flat = one(CROWD, site={"intensity": StepSignal(0.03, [400.0])}, engine=TIGHT, boot_s=0.1)
    for column in ("carbon_operational_g", "carbon_operational_provisioned_g"):
        assert flat.requests[column] == pytest.approx(fixed.requests[column], rel=1e-9)
    assert flat.pools[0].carbon_operational_g == pytest.approx(fixed.pools[0].carbon_operational_g, rel=1e-9, abs=1e-15)
    for column in ("ttft_s", "e2e_s", "energy_j", "cost_usd"):  # cutting spans at every change moves nothing
        assert flat.requests[column] == pytest.approx(fixed.requests[column], rel=1e-9)


def test_carbon_follows_the_grid_and_a_cleaner_one_never_emits_more() -> None:
    dirty, clean = (
        one(site={"intensity": StepSignal(0.11, [scale * 500.0, scale * 20.0])}, boot_s=0.05) for scale in (1.0, 0.5)
    )
    assert clean.requests["carbon_operational_g"] == pytest.approx(dirty.requests["carbon_operational_g"] / 2)
    assert whole(clean.pools[0].carbon_operational_g) == pytest.approx(whole(dirty.pools[0].carbon_operational_g) / 2)
    per_joule = dirty.requests["carbon_operational_g"] / (
        dirty.requests["energy_j"] + dirty.requests["energy_wasted_j"]
    )
    assert (per_joule * JOULES_PER_KWH >= 20.0).all()
    assert (per_joule * JOULES_PER_KWH <= 500.0).all()
    assert np.ptp(per_joule) > 0.0


def test_provenance_reaches_the_totals() -> None:
    totals = one(cost=Rent(3.6, as_of="2025-01")).pools[0]
    assert (totals.intensity_basis, totals.intensity_source, totals.intensity_mean) == ("lca", "test", 400.0)
    assert "2025-01" in totals.cost_basis
    assert (totals.site, totals.site_kind, totals.model, totals.xpu) == ("site", "cloud", "toy", "toy")
    assert totals.incomplete == ()


def test_unused_pool_spec_is_not_shared_between_runs() -> None:
    spec: Pool = pool(embodied=embodied(10.0))
    once, again = (simulate(fleet_of(spec, intensity=Constant(1.0)), ROWS) for _ in range(2))
    assert once.pools == again.pools
