"""Hourly intensity: hours, clock, prefix sums, wrapping, files good and bad; the annual presets."""

from __future__ import annotations

import csv
import math
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from sim.accounting import series_file
from sim.accounting.grid import HourlySignal, Market, preset
from sim.errors import InputError
from sim.hardware.catalogue import load_entry

ROOT = Path(__file__).parents[2]
DATA = Path(os.environ.get("HYBRIDFLEET_DATA", ROOT.parent / "shared" / "data")) / "carbon"
MIDNIGHT = datetime(2024, 1, 1, tzinfo=UTC)
VALUES = [100.0, 0.0, 300.0, 50.0]
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"no carbon data at {DATA} (set HYBRIDFLEET_DATA)")


def signal(start="2024-01-01T00:00", wrap=False, values=VALUES):
    return HourlySignal(values, MIDNIGHT, start, "lca", "a test", wrap)


def write(tmp_path, text, name="grid.csv"):
    path = tmp_path / name
    path.write_text(text)
    return path


def hourly(*rows):
    return "datetime_utc,A,B\n" + "".join(f"2024-01-01 {hour:02}:00:00,{a},{b}\n" for hour, (a, b) in enumerate(rows))


def half_hourly(*values):
    rows = (f"2024-01-01 {at // 2:02}:{at % 2 * 30:02}:00,{value},0\n" for at, value in enumerate(values))
    return "datetime_utc,A,B\n" + "".join(rows)


#: local clock of a zone that leaves summer time
AMSTERDAM = "datetime_utc,A\n2024-10-27T01:00+02:00,1\n2024-10-27T02:00+02:00,1\n2024-10-27T02:00+01:00,1\n"


def test_a_value_holds_until_the_next_hour():
    grid = signal()
    assert [grid.at(t) for t in (0, 3599.999, 3600, 7200, 14399.9)] == [100, 100, 0, 300, 50]
    assert [grid.next_change(t) for t in (0, 1800, 3600, 14000)] == [3600, 3600, 7200, 14400]


@pytest.mark.parametrize(
    "start",
    [
        "2024-01-01T02:30",
        "2024-01-01 02:30:00",
        "2024-01-01T02:30Z",
        "2024-01-01T04:30+02:00",
        "2023-12-31T21:30-05:00",
    ],
)
def test_start_utc_is_the_instant_of_time_zero(start):
    grid = signal(start)
    assert grid.at(0) == 300
    assert grid.next_change(0) == 1800
    assert grid.at(1800) == 50
    assert grid.at(-3600) == 0


def test_integral_by_hand():
    grid = signal("2024-01-01T00:30")
    assert grid.integral(0, 900) == 100 * 900
    assert grid.integral(0, 1800 + 3600 + 600) == 100 * 1800 + 300 * 600
    assert grid.integral(0, 3.5 * 3600) == 100 * 1800 + (0 + 300 + 50) * 3600
    assert grid.integral(3.5 * 3600, 3.5 * 3600) == 0  # the end of the data, where there is no hour


def test_a_short_interval_late_in_the_year_keeps_its_digits():
    grid = signal(values=[321.0] * 8784)
    t0 = 8783 * 3600 - 0.0005
    assert grid.integral(t0, t0 + 0.001) == pytest.approx(321 * ((t0 + 0.001) - t0), rel=1e-9)


@given(
    st.lists(st.floats(0, 900), min_size=1, max_size=30),
    st.integers(0, 10**6),
    st.floats(0, 10**5),
    st.floats(0, 10**5),
)
def test_integral_is_the_sum_over_changes(values, start_s, t0, length):
    start = datetime.fromtimestamp(MIDNIGHT.timestamp() + start_s, UTC).isoformat()
    grid = signal(start, wrap=True, values=values)
    total, t, end = 0.0, t0, t0 + length
    while t < end:
        upto = min(grid.next_change(t), end)
        assert upto > t
        total += grid.at(t) * (upto - t)
        t = upto
    assert grid.integral(t0, end) == pytest.approx(total, rel=1e-9, abs=1e-6)


def test_wrapping_repeats_the_data():
    grid = signal(wrap=True)
    assert [grid.at(4 * 3600 + t) for t in (0, 3600, 7200)] == [100, 0, 300]
    assert grid.at(-1) == 50
    assert grid.integral(0, 8 * 3600) == 2 * sum(VALUES) * 3600
    grid.require(1e9)


@pytest.mark.parametrize("use", [lambda g: g.at(14400), lambda g: g.integral(14000, 14401), lambda g: g.require(14401)])
def test_past_the_end_names_what_is_covered(use):
    message = "grid hour='2024-01-01 04:00' .* from 2024-01-01 00:00 to 2024-01-01 03:00 UTC.*grid.wrap=true"
    with pytest.raises(InputError, match=message):
        use(signal())


def test_the_whole_of_the_data_can_be_used():
    grid = signal()
    grid.require(14400)
    assert grid.integral(0, 14400) == sum(VALUES) * 3600


@pytest.mark.parametrize("start", ["2023-12-31T23:59", "2024-01-01T04:00", "2025-01-01"])
def test_a_start_outside_the_data_is_refused_at_once(start):
    with pytest.raises(InputError, match="grid hour"):
        signal(start)


@pytest.mark.parametrize("start", [None, "", "noon", "2024-13-01", 5, True, "2024-01-01T00:00:00.5"])
def test_bad_start_utc(start):
    with pytest.raises(InputError) as error:
        signal(start)
    assert error.value.key == "grid.start_utc"


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        ({"values": []}, "grid.values"),
        ({"values": [1.0, -1.0]}, "grid.values"),
        ({"values": [math.nan]}, "grid.values"),
        ({"wrap": "yes"}, "grid.wrap"),
    ],
)
def test_bad_arguments(arguments, key):
    with pytest.raises(InputError) as error:
        signal(**arguments)
    assert error.value.key == key


def test_reading_a_file(tmp_path):
    grid = HourlySignal.from_csv(write(tmp_path, hourly((10, 20), (30, 0))), "B", "direct", "2024-01-01")
    assert (grid.at(0), grid.at(3600), grid.basis, grid.source) == (20, 0, "direct", "grid.csv, zone B")


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        (hourly((10, 20), ("x", 20)), 3, "A='x'"),
        (hourly((10, 20), ("", 20)), 3, "A=''"),
        (hourly((10, 20), ("nan", 20)), 3, "A='nan'"),
        (hourly((10, 20), ("inf", 20)), 3, "A='inf'"),
        (hourly((10, 20)) + "2024-01-01 02:00:00,1,2\n", 3, "that one is missing"),
        (hourly((10, 20)) + "2024-01-01 00:00:00,1,2\n", 3, "this one is repeated or out of order"),
        (hourly((10, 20)) + "2024-01-01 01:00:00+00:00,1,2\n", 3, "one time zone in all rows, that of line 2"),
        (AMSTERDAM, 4, "one time zone in all rows, that of line 2 (2024-10-27T01:00+02:00)"),
        (half_hourly(1, 2) + "2024-01-01 01:30:00,1,2\n", 4, "2024-01-01 01:00 (every 30 minutes once"),
        (hourly((10, 20), (-3, 20)), 3, "A='-3'"),
        (hourly((10, 20)) + "2024-01-01 02:00:00,1,2\n", 3, "accepted: 2024-01-01 01:00"),
        (hourly((10, 20)) + "2024-01-01 00:00:00,1,2\n", 3, "accepted: 2024-01-01 01:00"),
        (hourly((10, 20)) + "2024-01-01 01:30:00,1,2\n", 3, "the beginning of an hour"),
        (hourly((10, 20)) + "tomorrow,1,2\n", 3, "datetime_utc='tomorrow'"),
        (hourly((10, 20)) + "2024-01-01 01:00:00\n", 3, "a value in every row"),
        (hourly((10, 20)) + "\n", 3, "a value in every row"),
        (hourly((0.4, 20), (0.5, 20)), 2, "grid.unit=kg/kWh"),
        ("time,A\n", 1, "first column='time'"),
        ("", 1, "first column=None"),
    ],
)
def test_a_malformed_row_is_named_by_its_line(tmp_path, text, line, told):
    path = write(tmp_path, text)
    with pytest.raises(InputError) as error:
        HourlySignal.from_csv(path, "A", "lca", "2024-01-01")
    assert str(error.value).startswith(f"{path} line {line}: ")
    assert told in str(error.value)


def test_units(tmp_path):
    path = write(tmp_path, hourly((0.4, 0), (0.5, 0)))
    assert HourlySignal.from_csv(path, "A", "lca", "2024-01-01", unit="kg/kWh").at(0) == pytest.approx(400)
    assert HourlySignal.from_csv(path, "A", "lca", "2024-01-01", unit="g/kWh").at(0) == pytest.approx(0.4)
    assert HourlySignal.from_csv(path, "B", "lca", "2024-01-01").at(0) == 0  # zero is an intensity, not a mistake


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"path": "nowhere.csv"}, "grid.path"),
        ({"path": "."}, "grid.path"),
        ({"path": None}, "grid.path"),
        ({"path": 1}, "grid.path"),
        ({"zone": "C"}, "grid.zone"),
        ({"zone": None}, "grid.zone"),
        ({"basis": "marginal"}, "grid.basis"),
        ({"unit": "lb/MWh"}, "grid.unit"),
        ({"start_utc": None}, "grid.start_utc"),
    ],
)
def test_bad_settings_name_their_key(tmp_path, change, key):
    arguments = {"path": write(tmp_path, hourly((10, 20))), "zone": "A", "basis": "lca", "start_utc": "2024-01-01"}
    with pytest.raises(InputError) as error:
        HourlySignal.from_csv(**arguments | change)
    assert error.value.key == key


def test_an_unknown_zone_lists_the_zones(tmp_path):
    with pytest.raises(InputError, match=r"grid.zone='a' .* accepted: A \| B$"):
        HourlySignal.from_csv(write(tmp_path, hourly((10, 20))), "a", "lca", "2024-01-01")


def test_a_file_that_is_not_text_or_has_no_hours(tmp_path):
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"datetime_utc,A\n\xff\xfe\n")
    for path in (binary, write(tmp_path, "datetime_utc,A\n")):
        with pytest.raises(InputError) as error:
            HourlySignal.from_csv(path, "A", "lca", "2024-01-01")
        assert error.value.key == "grid.path"


def test_a_basis_that_contradicts_the_file_name_is_refused(tmp_path):
    path = write(tmp_path, hourly((10, 20)), "zone_2024_direct_g.csv")
    with pytest.raises(InputError, match=r"grid.basis='lca' .* accepted: direct"):
        HourlySignal.from_csv(path, "A", "lca", "2024-01-01")
    assert HourlySignal.from_csv(path, "A", "direct", "2024-01-01").at(0) == 10


def test_finer_intervals(tmp_path):
    grid = HourlySignal.from_csv(
        write(tmp_path, half_hourly(10, 20, 30)), "A", "lca", "2024-01-01T00:30", kind="marginal"
    )
    assert [grid.at(t) for t in (0, 1799, 1800)] == [20, 20, 30]
    assert grid.next_change(100) == 1800
    assert grid.integral(900, 2700) == 20 * 900 + 30 * 900
    assert grid.kind == "marginal"
    with pytest.raises(InputError, match="from 2024-01-01 00:00 to 2024-01-01 01:00 UTC"):
        grid.at(3600)


def test_a_file_that_changed_is_read_again(tmp_path):
    path = write(tmp_path, hourly((10, 20)))
    assert HourlySignal.from_csv(path, "A", "lca", "2024-01-01").at(0) == 10
    write(tmp_path, hourly((11, 20), (12, 20)))
    assert HourlySignal.from_csv(path, "A", "lca", "2024-01-01").at(3600) == 12


@pytest.mark.parametrize(
    ("market", "expected"),
    [
        (Market(0.4, 11.0, 450.0), 0.4 * 11 + 0.6 * 450),
        (Market(1.0, 0.0), 0.0),
        (Market(0.0, None, 450.0), 450.0),
        (Market(0.4, 11.0), None),
        (Market(0.4, None, 450.0), None),
    ],
)
def test_what_is_bought_is_known_only_with_contracts_and_residual_mix(market, expected):
    assert market.g_per_kwh() == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize("values", [(1.1,), (-0.1,), (0.5, -1.0), (0.5, 1.0, math.nan)])
def test_bad_purchases(values):
    with pytest.raises(InputError, match=r"^market"):
        Market(*values)


@needs_data
def test_all_zones_of_a_year_load():
    path = DATA / "electricitymaps_2024_hourly_lca_gco2eq_per_kwh.csv"
    zones = path.read_text("utf-8").splitlines()[0].split(",")[1:]
    series_file._read.cache_clear()
    grids = [HourlySignal.from_csv(path, zone, "lca", "2024-01-01") for zone in zones]
    assert len(grids) == 16
    assert all(grid.integral(0, 8784 * 3600) > 0 for grid in grids)


@needs_data
def test_a_real_year_gives_the_published_mean():
    path = DATA / "electricitymaps_2023_hourly_lca_gco2eq_per_kwh.csv"
    grid = HourlySignal.from_csv(path, "US-CAL-CISO", "lca", "2023-01-01")
    year = 8760 * 3600
    assert grid.integral(0, year) / year == pytest.approx(262, rel=0.01)  # HotCarbon 2024 uses 262 g/kWh
    with pytest.raises(InputError, match="2023-12-31 23:00"):
        grid.at(year)


PRESETS = sorted(path for path in (ROOT / "conf" / "grid").glob("*.yaml") if path.stem != "hourly")


@needs_data
@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_presets_are_the_means_of_the_hourly_data(path):
    entry = yaml.safe_load(path.read_text())
    if path.stem.startswith("study_"):
        assert preset(entry, "lca").at(0) == entry["value"]["lca"]["value"]
        with pytest.raises(InputError, match=r"grid.basis='direct' .*: lca$"):
            preset(entry, "direct")
        return
    if path.stem.startswith("gcp_"):
        rows = csv.DictReader((DATA / "gcp_region_carbon_2024.csv").read_text("utf-8").splitlines())
        told = {row["Google Cloud Region"]: float(row["Grid carbon intensity (gCO2eq / kWh)"]) for row in rows}
        assert preset(entry, "direct").at(0) == told[entry["zone"]]
        with pytest.raises(InputError, match=r"grid.basis='lca' .*: direct$"):
            preset(entry, "lca")
        return
    for basis in ("lca", "direct"):
        file = DATA / f"electricitymaps_{entry['year']}_hourly_{basis}_gco2eq_per_kwh.csv"
        grid = HourlySignal.from_csv(file, entry["zone"], basis, f"{entry['year']}-01-01", wrap=True)
        hours = 8784 if entry["year"] % 4 == 0 else 8760
        found = preset(entry, basis)
        assert found.at(0) == pytest.approx(grid.integral(0, hours * 3600) / hours / 3600, abs=0.0051)
        assert found.basis == basis
        assert "Electricity Maps" in found.source


def test_there_is_a_preset_for_every_zone_and_each_says_where_it_is_from():
    zones = {(yaml.safe_load(path.read_text())["zone"], yaml.safe_load(path.read_text())["year"]) for path in PRESETS}
    assert len(PRESETS) == 20 + 16 + 3 + 44  # zones of 2023, of 2024, the study's, Google's regions
    assert len(zones) == len(PRESETS) - 2  # Quebec and California in the study are zones of 2023 too
    for path in PRESETS:
        entry = yaml.safe_load(path.read_text())
        assert isinstance(entry["zone"], str)
        assert set(load_entry("grid", path.stem).provenance) == {"value.lca", "value.direct"}


@pytest.mark.parametrize(
    ("entry", "basis"),
    [
        ({"value": 5}, "lca"),
        ({"value": {"lca": {"value": 5, "unit": "g/kWh"}}}, "marginal"),
        ({"value": {"lca": {"value": 5, "unit": "kg/kWh"}}}, "lca"),
        ({"value": {"lca": {"value": -5, "unit": "g/kWh"}}}, "lca"),
        ({"value": {}}, "lca"),
    ],
)
def test_bad_presets(entry, basis):
    with pytest.raises(InputError):
        preset(entry, basis)
