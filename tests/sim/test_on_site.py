"""Solar plants, batteries and contracts of a site: the balance closes, and books with them still sum to the totals."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis.ghg import rows
from analysis.metrics import summarize
from sim import Constant, Fleet, Result, Site
from sim.accounting import ClockTariff, Market
from sim.accounting.battery import Battery, CarbonAware, SelfConsumption, Store
from sim.accounting.forecast import Oracle
from sim.accounting.on_site import OnSite
from sim.accounting.ppa import Ppa, matched
from sim.accounting.solar import ClearSky, Solar, daily, measured
from sim.accounting.water import Water
from sim.errors import InputError
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import StepSignal, owned, pool, simulate

ROWS = [(9.0 * i, 25 + i, 10 + 3 * (i % 7)) for i in range(30)]
GRID = StepSignal(60.0, [500.0, 100.0, 300.0])
SUN = StepSignal(45.0, [0.0, 0.35, 0.02, 0.6])
SMALL = Battery(0.004, 0.3, 0.81, embodied_kg_per_kwh=(61.0, 83.5, 106.0))
STEP_S = 5.0


def one(on_site: OnSite | None = None, intensity=GRID, **site) -> Result:
    """Two pools at one site, one of them owned, for 300 s."""
    pools = (pool("a", cost=site.pop("cost", owned())), pool("b", replicas=2))
    return simulate(
        Fleet((Site("site", "edge", pools, intensity, on_site=on_site, **site),)),
        ROWS,
        horizon_s=300.0,
        timeline_bin_s=STEP_S,
    )


def of_building(result: Result, name: str) -> float:
    return sum(sum(v for k, v in getattr(each, name).items() if k != "network") for each in result.pools)


def check_balance(result: Result, battery: Battery | None) -> None:
    (site,) = result.sites
    step, kwh = site.steps, site.kwh
    charged, discharged = np.maximum(-step["battery_kw"], 0.0), np.maximum(step["battery_kw"], 0.0)
    into = step["solar_kw"] + discharged + step["import_kw"]
    out = step["load_kw"] + charged + step["export_kw"] + step["curtailed_kw"]
    assert into == pytest.approx(out, rel=1e-9, abs=1e-12)
    for name in ("import_kw", "export_kw", "curtailed_kw", "stored_kwh"):
        assert step[name].min() >= 0.0
    assert kwh["charged"] - kwh["discharged"] - kwh["battery_losses"] == pytest.approx(kwh["stored"], abs=1e-12)
    metered = sum(
        sum(v for k, v in each.facility_energy_j.items() if k not in ("network", "on_site")) for each in result.pools
    )
    assert kwh["load"] == pytest.approx(metered / JOULES_PER_KWH, rel=1e-9)
    if battery is not None:
        assert step["stored_kwh"].max() <= battery.kwh
        assert np.abs(step["battery_kw"]).max() <= battery.kw * (1.0 + 1e-12)
        assert (discharged <= np.maximum(step["load_kw"] - step["solar_kw"], 0.0) + 1e-12).all()


@pytest.mark.parametrize("policy", [SelfConsumption(), CarbonAware(window_s=180.0, slot_s=60.0)])
@pytest.mark.parametrize("export", [True, False])
@pytest.mark.parametrize("pue", [1.0, StepSignal(7.0, [1.1, 1.4])])
def test_the_balance_of_every_step_closes(policy, export, pue):
    battery = replace(SMALL, policy=policy, forecast=Oracle())
    result = one(OnSite(Solar(SUN, 41.0, export), battery, step_s=STEP_S), pue=pue)
    check_balance(result, battery)
    (site,) = result.sites
    assert site.kwh["charged"] > site.kwh["discharged"] > 0.0
    assert (site.kwh["exported"] > 0.0, site.kwh["curtailed"] > 0.0) == (export, not export)
    assert site.kwh["battery_losses"] > 0.0


@given(
    st.floats(0.0, 5.0), st.floats(0.0, 3.0), st.floats(0.05, 1.0),
    st.lists(st.tuples(st.floats(-9.0, 9.0) | st.just(-math.inf), st.floats(-2.0, 4.0)), max_size=40),
)  # fmt: skip
def test_a_battery_is_never_overdrawn_or_overfull(kwh, kw, efficiency, asked):
    store, into, out = Store(Battery(kwh, kw, efficiency)), 0.0, 0.0
    for wanted, lacking in asked:
        power = store.move(wanted, lacking, 0.25)
        assert 0.0 <= store.kwh <= kwh
        assert 0.0 <= store.soc <= 1.0
        assert abs(power) <= kw
        assert power <= max(lacking, 0.0)
        into, out = into + max(-power, 0.0) * 0.25, out + max(power, 0.0) * 0.25
    assert into - out - store.lost_kwh == pytest.approx(store.kwh, abs=1e-9)
    assert out <= efficiency * into + 1e-9


def test_a_round_trip_loses_what_the_efficiency_says():
    store = Store(Battery(10.0, 4.0, 0.64))
    assert store.move(-3.0, 0.0, 1.0) == -3.0
    assert store.kwh == pytest.approx(2.4)
    assert store.move(9.0, 9.0, 1.0) == pytest.approx(0.64 * 3.0)
    assert (store.kwh, store.lost_kwh) == (0.0, pytest.approx(0.36 * 3.0))


def test_a_plant_of_nothing_changes_no_byte_of_what_was_served():
    plain, none = one(), one(OnSite(Solar(Constant(0.0)), Battery(0.0, 0.0, 0.9), step_s=STEP_S))
    for table in ("requests", "timeline"):
        for name, values in getattr(plain, table).items():
            assert values.tobytes() == getattr(none, table)[name].tobytes(), name
    for old, new in zip(plain.pools, none.pools):
        for parts in ("facility_energy_j", "carbon_operational_g", "cost_usd", "it_energy_j"):
            known = getattr(new, parts)
            assert known.pop("on_site", 0.0) == 0.0
            assert known == getattr(old, parts)
    assert not plain.sites
    assert "by_site" not in summarize(plain)
    assert "on_site" not in summarize(plain)["attribution"]["common"]
    (site,) = none.sites
    assert site.kwh["imported"] == site.kwh["load"] > 0.0


def test_shares_and_parts_still_sum_to_the_totals():
    result = one(OnSite(Solar(SUN, 41.0, usd_per_year=500.0), replace(SMALL, usd_per_year=90.0), step_s=STEP_S))
    table = summarize(result)["attribution"]
    for amount, total in table["total"].items():
        for shares in (table["by_tenant"], table["by_slo_class"], table["by_model"]):
            found = sum(row[amount] for row in (*shares.values(), *table["common"].values()))
            assert found == pytest.approx(total, rel=1e-9)
    (site,) = result.sites
    step = site.steps
    hours = step["step_s"] / 3600.0
    grid_g = (step["import_kw"] * hours * step["intensity_g_per_kwh"]).sum()
    used = site.kwh["solar"] - site.kwh["exported"]
    assert of_building(result, "carbon_operational_g") == pytest.approx(grid_g + 41.0 * used, rel=1e-9)
    assert site.carbon_kg["operational"] == pytest.approx((grid_g + 41.0 * used) / 1e3, rel=1e-9)
    share_of_a = sum(result.pools[0].facility_energy_j[k] for k in ("active", "wasted", "idle")) / (
        site.kwh["load"] * JOULES_PER_KWH
    )
    years = 300.0 / (8760.0 * 3600.0)
    assert result.pools[0].carbon_embodied_g["on_site"] == pytest.approx(
        83.5e3 * 0.004 * years / 15.0 * share_of_a, rel=1e-9
    )
    # the rented pool saves nothing on electricity and bears its part of the plant
    assert 0.0 < result.pools[1].cost_usd["on_site"] < 590.0 * years


def test_solar_for_all_of_the_load_leaves_its_life_cycle_alone():
    plenty = OnSite(Solar(Constant(5.0), 41.0), step_s=STEP_S)
    lca, direct = (one(plenty, Constant(400.0, basis)) for basis in ("lca", "direct"))
    assert lca.sites[0].kwh["imported"] == 0.0
    assert of_building(lca, "carbon_operational_g") == pytest.approx(41.0 * 5.0 * 300.0 / 3600.0, rel=1e-9)
    assert of_building(direct, "carbon_operational_g") == pytest.approx(0.0, abs=1e-9)


def test_tariffs_of_the_hour_price_what_was_not_bought():
    tariff = ClockTariff([0.3] * 12 + [0.1] * 12, "UTC", "2024-06-01T11:57:00")  # the price falls after 180 s
    cost = replace(owned(), tariff=tariff, electricity_usd_per_kwh=0.0)
    sun = Solar(StepSignal(60.0, [0.1, 0.0, 0.05, 0.0, 0.0]), usd_per_year=0.0)
    result = one(OnSite(sun, step_s=STEP_S), cost=cost)
    step, own = result.sites[0].steps, result.timeline
    price = np.where(step["t_s"] < 180.0, 0.3, 0.1)
    by_pool = own["energy_j"].reshape(2, -1)
    saved_kwh = (step["load_kw"] - step["import_kw"]) * step["step_s"] / 3600.0
    saved = (saved_kwh * by_pool[0] / by_pool.sum(axis=0) * price).sum()
    assert -result.pools[0].cost_usd["on_site"] == pytest.approx(saved, rel=1e-9)
    assert result.pools[1].cost_usd["on_site"] == 0.0
    earning = one(OnSite(Solar(Constant(5.0), export=True, export_usd_per_kwh=0.5, usd_per_year=0.0), step_s=STEP_S))
    bought_by_a = sum(v for k, v in earning.pools[0].facility_energy_j.items() if k != "on_site") / JOULES_PER_KWH
    paid = earning.sites[0].kwh["exported"] * 0.5
    assert -earning.sites[0].cost_usd == pytest.approx(paid + 0.2 * bought_by_a, rel=1e-9)


def test_a_battery_that_knows_the_grid_moves_load_to_clean_hours():
    def carbon(battery: Battery | None) -> float:
        return of_building(one(OnSite(battery=battery, step_s=STEP_S)), "carbon_operational_g")

    aware = replace(SMALL, policy=CarbonAware(window_s=180.0, slot_s=60.0), forecast=Oracle())
    assert carbon(aware) < 0.99 * carbon(None)
    assert carbon(replace(aware, policy=SelfConsumption())) == pytest.approx(carbon(None), rel=1e-12)
    level = one(OnSite(battery=aware, step_s=STEP_S), Constant(300.0, "lca"))
    assert level.sites[0].kwh["charged"] == 0.0  # nothing to win, and losses to bear


def test_contracts_cover_the_hour_or_the_year():
    start = np.arange(6) * 1800.0
    imported, contracted = np.array([1.0, 1, 1, 1, 1, 1]), np.array([4.0, 0, 0.5, 0.5, 0, 0])
    assert matched(imported, contracted, start, "hourly") == pytest.approx([1, 1, 0.5, 0.5, 0, 0])
    assert matched(imported, contracted, start, "annual") == pytest.approx(np.full(6, 5.0 / 6.0))


@pytest.mark.parametrize(("residual", "left"), [(500.0, 500.0), ("grid", 400.0)])
def test_market_based_carbon_of_a_contract(residual, left):
    grid = Constant(400.0, "lca")
    load_kwh = of_building(one(None, grid), "facility_energy_j") / JOULES_PER_KWH
    half = Ppa(Constant(0.5 * load_kwh * 12.0), "annual", 11.0, residual)
    result = one(OnSite(ppa=half, step_s=STEP_S), grid)
    bought = sum(each.carbon_market_g - each.carbon_operational_g["network"] for each in result.pools)
    assert bought == pytest.approx(load_kwh * 0.5 * (11.0 + left), rel=1e-9)
    assert result.sites[0].matched_share == pytest.approx({"hourly": 0.5, "annual": 0.5}, rel=1e-9)
    assert of_building(result, "carbon_operational_g") == pytest.approx(400.0 * load_kwh, rel=1e-9)
    unknown = one(OnSite(ppa=replace(half, residual_g_per_kwh=None), step_s=STEP_S), grid)
    assert unknown.pools[0].carbon_market_g is None
    plain = one(OnSite(Solar(Constant(0.02), 41.0), step_s=STEP_S), grid, market=Market(0.4, 10.0, 500.0))
    site = plain.sites[0]
    expected = site.kwh["imported"] * (0.4 * 10 + 0.6 * 500) + 41.0 * site.kwh["solar"]
    assert site.carbon_kg["operational_market"] == pytest.approx(expected / 1e3, rel=1e-9)


def test_power_plants_behind_the_meter_take_no_water():
    plant = OnSite(Solar(Constant(5.0)), step_s=STEP_S)
    wet, dry = (one(each, water=Water(0.5, 3.0)) for each in (None, plant))
    assert [each.water_on_l for each in wet.pools] == [each.water_on_l for each in dry.pools]
    assert wet.pools[0].water_off_l > dry.pools[0].water_off_l == 0.0


def test_what_is_unknown_stays_unknown():
    result = one(OnSite(Solar(SUN), Battery(1.0, 1.0, 0.9), step_s=STEP_S))
    assert any("cost of the solar plant" in text for text in result.pools[0].incomplete)
    assert result.pools[0].carbon_embodied_g is None
    dark = simulate(Fleet((Site("s", "edge", (pool(),), on_site=OnSite(Solar(SUN))),)), ROWS)
    summary = summarize(dark)
    assert summary["total"]["carbon_kg"]["operational"] is None
    assert summary["by_site"]["s"]["carbon_kg"]["operational"] is None


def test_the_sun_of_a_clear_sky():
    equator = ClearSky(2.0, 0.0, 0.0, "2024-03-20T00:00", 0.8)
    noon = equator.at(12.0 * 3600.0)
    assert noon == pytest.approx(2.0 * 0.8 * 1.098 * math.exp(-0.057), rel=0.01)  # the sun is overhead
    assert equator.at(0.0) == equator.at(5.5 * 3600.0) == equator.at(19.0 * 3600.0) == 0.0
    day = equator.integral(0.0, 86400.0) / 3600.0
    assert 0.95 * noon * 24.0 / math.pi < day < noon * 24.0 / math.pi
    east = ClearSky(2.0, 0.0, 90.0, "2024-03-20T00:00", 0.8)
    assert east.at(6.0 * 3600.0) == pytest.approx(noon, rel=0.01)
    north = ClearSky(2.0, 60.0, 0.0, "2024-12-21T00:00", 0.8)
    assert 0.0 < north.at(12.0 * 3600.0) < 0.15 * noon
    assert ClearSky(2.0, 0.0, 0.0, "2024-03-20", 0.8, [0.5] * 12).at(43200.0) == pytest.approx(0.5 * noon)


def test_solar_by_the_hour_and_from_a_file(tmp_path):
    shares = [0.0] * 12 + [0.5] + [0.0] * 11
    assert daily(4.0, shares, None).integral(0.0, 2 * 86400.0) == pytest.approx(2 * 2.0 * 3600.0)
    rows = [f"2024-06-01 {hour:02}:00:00,{hour / 100},{hour}" for hour in range(24)]
    file = tmp_path / "sun.csv"
    file.write_text("datetime_utc,share,w\n" + "\n".join(rows) + "\n")
    assert measured(file, "share", "2024-06-01T10:00", "kW/kWp", 50.0).at(0.0) == pytest.approx(5.0)
    assert measured(file, "w", "2024-06-01T10:00", "W").at(3600.0) == pytest.approx(0.011)
    file.write_text("datetime_utc,share,w\n" + "\n".join(rows[:3] + rows[4:]) + "\n")
    with pytest.raises(InputError, match=r"line 5.*2024-06-01 03:00.*missing"):
        measured(file, "share", "2024-06-01", "kW/kWp", 50.0)
    file.write_text("datetime_utc,share,w\n" + "\n".join(rows[:3]) + "\n2024-06-01 03:00:00,-1,5\n")
    with pytest.raises(InputError, match=r"line 5.*share='-1'"):
        measured(file, "share", "2024-06-01", "kW/kWp", 50.0)
    with pytest.raises(InputError, match=r"line 5.*w=5"):
        measured(file, "w", "2024-06-01", "kW/kWp", 50.0)
    with pytest.raises(InputError, match="peak_kw"):
        measured(file, "w", "2024-06-01", "kW", 50.0)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Battery(-1.0, 1.0, 0.9), "battery.kwh"),
        (lambda: Battery(1.0, -1.0, 0.9), "battery.kw"),
        (lambda: Battery(1.0, 1.0, 1.01), "battery.efficiency"),
        (lambda: Battery(1.0, 1.0, 0.0), "battery.efficiency"),
        (lambda: Battery(1.0, 1.0, 0.9, policy=SelfConsumption), "battery.policy"),
        (lambda: CarbonAware(clean=1.5), "battery.policy.clean"),
        (lambda: Solar(3.0), "solar.power"),
        (lambda: Solar(SUN, -1.0), "solar.life_cycle_g_per_kwh"),
        (lambda: Ppa(SUN, "weekly"), "ppa.matching"),
        (lambda: Ppa(SUN, "hourly", 0.0, "mix"), "ppa.residual_g_per_kwh"),
        (lambda: ClearSky(1.0, 91.0, 0.0, "2024-01-01", 0.8), "solar.latitude"),
        (lambda: ClearSky(1.0, 0.0, 0.0, None, 0.8), "solar.start_utc"),
        (lambda: daily(1.0, [1.0] * 23, None), "solar.hours"),
        (lambda: OnSite(step_s=0.0), "step_s"),
        (lambda: OnSite(solar=SUN), "solar"),
    ],
)
def test_bad_input_names_the_key(make, key):
    with pytest.raises(InputError) as caught:
        make()
    assert caught.value.key == key


def test_a_policy_that_returns_no_number_is_refused():
    class Lost:
        def dispatch(self, *args):
            return math.nan

    with pytest.raises(InputError, match="NaN"):
        one(OnSite(battery=replace(SMALL, policy=Lost()), step_s=STEP_S))


def test_an_inventory_buys_what_was_imported():
    def scope_2(basis: str, on_site: OnSite | None) -> float | None:
        grid = Constant(400.0, basis, other=300.0)
        found = rows(summarize(one(on_site, grid)))
        return next(row.kg for row in found if (row.scope, row.method) == ("2", "location-based"))

    sun = OnSite(Solar(Constant(0.1), 41.0), step_s=STEP_S)
    bought = one(sun, Constant(400.0, "direct"))
    assert scope_2("direct", sun) == pytest.approx(
        sum(g for part, g in bought.pools[0].carbon_operational_g.items() if part != "network") / 1e3, rel=1e-9
    )
    assert scope_2("direct", sun) < 0.8 * scope_2("direct", None)
    assert scope_2("lca", None) is not None
    assert scope_2("lca", sun) is None  # a mean of the other basis does not tell when it was imported
