"""Solar, battery and contracts in a configuration: what a preset leaves behind, and what bad keys say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from analysis.load import load_run
from analysis.sites import lines
from scenarios.build_fleet import build_fleet
from scenarios.entries import Catalogue
from scenarios.schema import Section
from sim.accounting.battery import CarbonAware
from sim.errors import InputError
from tests.scenarios.command import run

SHORT = ("workload.limit=20", "progress=none")
NO_PAGES = ("figures=false", "report=false")
SITE: dict[str, Any] = {"kind": "cloud", "grid": 400, "model": "llama_3_2_1b", "xpu": "l4"}
BATTERY = {"kwh": 4, "kw": 1}
CONTRACT = {"peak_kw": 2, "hours": [0.5] * 24, "matching": "hourly", "g_per_kwh": 11}


def built(**keys: Any) -> Any:
    return build_fleet(Section(SITE | keys, "fleet"), Catalogue(), start_utc="2024-06-01T00:00").sites[0].on_site


def test_the_preset_writes_balance_table_and_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("analysis.figures.NAMES", ("power",))  # and that of its sites
    out = tmp_path / "run"
    done = run(["run", "fleet=solar_roof", *SHORT, "horizon_s=86400", f"out={out}"], capsys)
    assert (out / "figures" / "sites_column.pdf").is_file()
    assert done.status == 0, done.err
    assert "site cloud: load" in done.out
    loaded = load_run(out)
    site = loaded.summary["by_site"]["cloud"]
    assert loaded.sites is not None
    assert len(loaded.sites) == 288
    assert loaded.sites["site"].unique().to_list() == ["cloud"]
    hours = loaded.sites["step_s"] / 3600.0
    for column, name in (("load_kw", "load"), ("solar_kw", "solar"), ("import_kw", "imported")):
        assert (loaded.sites[column] * hours).sum() == pytest.approx(site["energy_kwh"][name], rel=1e-9)
    assert 0.0 < site["energy_kwh"]["imported"] < site["energy_kwh"]["load"]
    page = (out / "report.html").read_text(encoding="utf-8")
    for text in ("solar plant and battery", "<h2>Sites</h2>", "of it curtailed [kWh]"):
        assert text in page
    assert loaded.manifest["provenance"]["published"] > 0
    assert len(list(lines(loaded.summary))) == 2
    bare = tmp_path / "bare"
    run(["run", "fleet=solar_day", *SHORT, *NO_PAGES, "horizon_s=86400", f"out={bare}"], capsys)
    without = load_run(bare)
    assert without.sites is None
    assert "by_site" not in without.summary
    assert (bare / "requests.parquet").read_bytes() == (out / "requests.parquet").read_bytes()
    assert (bare / "timeline.parquet").read_bytes() == (out / "timeline.parquet").read_bytes()
    assert json.dumps(without.summary["resources"]["compute"]) == json.dumps(loaded.summary["resources"]["compute"])


def test_keys_become_what_they_say(tmp_path):
    file = tmp_path / "sun.csv"
    file.write_text("datetime_utc,kw\n2024-06-01 00:00:00,1.5\n2024-06-01 01:00:00,2.5\n")
    made = built(
        solar={"path": str(file), "column": "kw", "export": True, "export_usd_per_kwh": 0.05},
        battery=BATTERY | {"policy": "carbon_aware", "forecast": "oracle", "embodied_kg_per_kwh": 70},
        ppa=CONTRACT | {"residual_g_per_kwh": "grid"}, settlement_s=60,
    )  # fmt: skip
    assert (made.solar.power.at(4000.0), made.solar.export, made.step_s) == (2.5, True, 60.0)
    assert (made.battery.efficiency, made.battery.embodied_kg_per_kwh) == (0.85, (70.0, 70.0, 70.0))
    assert isinstance(made.battery.policy, CarbonAware)
    assert (made.ppa.power.at(0.0), made.ppa.residual_g_per_kwh) == (1.0, "grid")
    own = {"_target_": "sim.accounting.battery.CarbonAware", "clean": 0.4}
    assert isinstance(built(battery=BATTERY | {"policy": own}).battery.policy, CarbonAware)
    assert built() is None


@pytest.mark.parametrize(
    ("keys", "key"),
    [
        ({"battery": BATTERY | {"kwh": -4}}, "fleet.battery.kwh"),
        ({"battery": BATTERY | {"efficiency": 1.2}}, "fleet.battery.efficiency"),
        ({"battery": {"kwh": 4}}, "fleet.battery.kw"),
        ({"battery": BATTERY | {"policy": "greedy"}}, "fleet.battery.policy"),
        ({"battery": BATTERY | {"forecast": "psychic"}}, "fleet.battery.forecast"),
        ({"battery": BATTERY | {"kva": 4}}, "fleet.battery.kva"),
        ({"solar": {"peak_kw": 2}}, "fleet.solar"),
        ({"solar": {"peak_kw": 2, "latitude": 5, "longitude": 5, "hours": [1] * 24}}, "fleet.solar"),
        ({"solar": {"peak_kw": 2, "latitude": 95, "longitude": 0}}, "fleet.solar.latitude"),
        ({"solar": {"peak_kw": 2, "hours": [1] * 23}}, "fleet.solar.hours"),
        ({"solar": {"peak_kw": 2, "hours": [1] * 24, "export_usd_per_kwh": 0.1}}, "fleet.solar.export_usd_per_kwh"),
        ({"solar": {"path": "no.csv", "column": "kw"}}, "fleet.solar.path"),
        ({"ppa": CONTRACT | {"matching": "weekly"}}, "fleet.ppa.matching"),
        ({"ppa": CONTRACT, "market": {"contract_share": 0.5}}, "fleet.ppa"),
        ({"battery": BATTERY, "settlement_s": 0}, "fleet.settlement_s"),
    ],
)
def test_bad_keys_are_named(keys, key):
    with pytest.raises(InputError) as caught:
        built(**keys)
    assert caught.value.key == key


SUN = {"peak_kw": 2, "hours": [0.0] * 8 + [0.5] * 8 + [0.0] * 8}


def budget(**keys: Any) -> Any:
    return build_fleet(Section(SITE | keys, "fleet"), Catalogue(), start_utc="2024-06-01T00:00").sites[0].power_budget


def test_a_budget_is_a_number_or_goes_by_hours_a_file_or_the_sun(tmp_path):
    file = tmp_path / "budget.csv"
    file.write_text("datetime_utc,w\n2024-06-01 00:00:00,90\n2024-06-01 01:00:00,80\n")
    assert budget(power_budget=0.1).kw.at(0.0) == 0.1
    assert budget(power_budget={"hours": [0.1] * 23 + [0.2]}).kw.at(23.5 * 3600.0) == 0.2
    assert budget(power_budget={"path": str(file), "column": "w", "unit": "W"}).kw.at(3600.0) == 0.08
    follows = budget(solar=SUN, power_budget={"kw": 0.1, "plus_solar": True}).kw
    assert (follows.at(0.0), follows.at(9.0 * 3600.0)) == (0.1, 1.1)
    assert follows.next_change(0.0) == 3600.0
    assert budget() is None


@pytest.mark.parametrize(
    ("given", "key"),
    [
        (0, "fleet.power_budget.kw"),
        ("much", "fleet.power_budget.kw"),
        (0.001, "fleet.power_budget"),
        ({"hours": [0.1] * 23}, "fleet.power_budget.hours"),
        ({"kw": 0.1, "plus_solar": True}, "fleet.power_budget.plus_solar"),
        ({"kw": 0.1, "clock_law": "none"}, "fleet.power_budget.clock_law"),
        ({"kw": 0.1, "hours": [0.1] * 24}, "fleet.power_budget.hours"),
        ({"path": "no.csv", "column": "w"}, "fleet.power_budget.path"),
    ],
)
def test_bad_budgets_are_named(given, key):
    with pytest.raises(InputError) as caught:
        budget(power_budget=given)
    assert caught.value.key == key


def test_a_run_under_a_budget_says_how_far_below_it_was(tmp_path, capsys):
    out = tmp_path / "run"
    keys = ["fleet.sites.cloud.power_budget=0.6", "+fleet.sites.cloud.settlement_s=1", *NO_PAGES]
    done = run(["run", "fleet=solar_day", *SHORT, *keys, f"out={out}"], capsys)
    assert done.status == 0, done.err
    peak = load_run(out).summary["by_site"]["cloud"]["peak_kw"]
    assert peak["load"] + peak["least_below_budget"] == pytest.approx(0.6)
    assert peak["least_below_budget"] > 0.0
    assert "below its budget" in done.out
