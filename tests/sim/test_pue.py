"""PUE that varies: signals, and books that stay exact to 1e-9 whatever the building does."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import numpy as np
import pytest

from sim import Constant, Fleet, Site
from sim.accounting import ClockPue, LoadPue, measured_pue, weather_pue
from sim.accounting.signal import Unknown
from sim.errors import InputError
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import StepSignal, pool, simulate

ROWS = [(0.03 * i, 25 + i, 10 + 3 * (i % 7)) for i in range(30)]
TIGHT = {"kv_blocks": 12, "max_num_seqs": 6}  # some are preempted
HOURS = [1.1 + 0.01 * hour for hour in range(24)]
REL = 1e-9


def fleet(pue, intensity, **changes):
    return Fleet((Site("site", "edge", (pool(**changes),), intensity, pue),))


@pytest.mark.parametrize("intensity", [Constant(400.0, "lca"), StepSignal(0.11, [300.0, 0.0, 500.0])])
@pytest.mark.parametrize("changes", [{}, {"engine": TIGHT}, {"replicas": 3, "boot_s": 0.05}, {"tp": 2}])
@pytest.mark.parametrize("drain", [True, False])
def test_a_pue_that_steps_is_exact(intensity, changes, drain):
    pue = StepSignal(0.07, [1.0, 1.5, 1.25])
    if "engine" in changes:
        changes = changes | {"engine": pool().engine.__class__(**changes["engine"])}
    settings = {"keep_spans": True} | ({} if drain else {"drain": False, "horizon_s": 0.8})
    result = simulate(fleet(pue, intensity, **changes), ROWS, **settings)
    totals, spans, requests = result.pools[0], result.spans, result.requests
    static_w, idle_w, host_w = 80.0 * changes.get("tp", 1), 40.0 * changes.get("tp", 1), 30.0 * changes.get("tp", 1)
    busy_j = busy_g = busy_it = busy_pue_s = busy_product_s = 0.0
    for start, k, a, b, dyn_j in zip(*(spans[name] for name in ("t0_s", "steps", "a_s", "b_s", "dyn_j"))):
        seconds = k * a + b * k * (k - 1) / 2
        power = (static_w + host_w) + dyn_j / seconds
        product = _product(pue, intensity, start, start + seconds)
        busy_it += power * seconds
        busy_j += power * pue.integral(start, start + seconds)
        busy_g += power * product / JOULES_PER_KWH
        busy_pue_s += pue.integral(start, start + seconds)
        busy_product_s += product
    parts, grams = totals.facility_energy_j, totals.carbon_operational_g
    own = requests["energy_j"].sum(), requests["energy_wasted_j"].sum(), requests["carbon_operational_g"].sum()
    if drain:
        assert parts["active"] + parts["wasted"] == pytest.approx(busy_j, rel=REL)
        assert (own[0], own[0] + own[1]) == pytest.approx((parts["active"], busy_j), rel=REL)
        assert own[2] == pytest.approx(busy_g, rel=REL)
        boot_s, replicas = changes.get("boot_s", 0.0), changes.get("replicas", 1)
        idle_pue_s = replicas * (pue.integral(0, result.end_s) - pue.integral(0, boot_s)) - busy_pue_s
        assert parts["idle"] == pytest.approx((idle_w + host_w) * idle_pue_s, rel=REL)
        assert parts["boot"] == pytest.approx((static_w + host_w) * replicas * pue.integral(0, boot_s), rel=REL)
        idle_product_s = replicas * _product(pue, intensity, boot_s, result.end_s) - busy_product_s
        assert grams["idle"] == pytest.approx((idle_w + host_w) * idle_product_s / JOULES_PER_KWH, rel=REL)
        assert totals.it_energy_j["active"] + totals.it_energy_j["wasted"] == pytest.approx(busy_it, rel=REL)
        provisioned = requests["energy_provisioned_j"].sum() + own[1]
        assert provisioned == pytest.approx(sum(parts.values()), rel=REL)
    else:
        assert own[0] == pytest.approx(parts["active"], rel=REL)
        assert own[1] <= parts["wasted"] * (1 + REL)  # the rest was cut off within a step
    ratio = sum(parts.values()) / sum(totals.it_energy_j.values())
    assert totals.pue == pytest.approx(ratio, rel=REL)
    assert 1.0 < totals.pue < 1.5


def _product(pue, intensity, start, end):
    """Integral of the product, on a grid of all changes."""
    edges = {start, end}
    for signal in (pue, intensity):
        t = signal.next_change(start)
        while t < end:
            edges.add(t)
            t = signal.next_change(t)
    times = sorted(edges)
    return sum(pue.at((a + b) / 2) * intensity.at((a + b) / 2) * (b - a) for a, b in pairwise(times))


def test_one_value_all_the_time_is_a_number():
    steady, number = (simulate(fleet(pue, Constant(400.0)), ROWS) for pue in (Constant(1.3), 1.3))
    assert steady.pools[0] == number.pools[0]


def test_an_unknown_intensity_leaves_the_energy_known():
    result = simulate(fleet(StepSignal(0.07, [1.0, 1.5]), Unknown()), ROWS)
    assert np.isnan(result.requests["carbon_operational_g"]).all()
    assert not np.isnan(result.requests["energy_j"]).any()
    assert sum(result.pools[0].facility_energy_j.values()) > sum(result.pools[0].it_energy_j.values())


def test_a_fixed_overhead_is_drawn_whatever_the_load():
    load = LoadPue(1.4, 0.5)
    result = simulate(fleet(load, Constant(400.0), replicas=2), ROWS)
    totals = result.pools[0]
    spec = pool()
    nameplate_w = 2 * (spec.xpu.tdp_w + 30.0)
    fixed_j = 0.4 * 0.5 * nameplate_w * result.end_s
    it_j = sum(totals.it_energy_j.values())
    whole = 1.2 * it_j + fixed_j
    assert sum(totals.facility_energy_j.values()) == pytest.approx(whole, rel=REL)
    assert sum(totals.carbon_operational_g.values()) == pytest.approx(whole * 400.0 / JOULES_PER_KWH, rel=REL)
    assert totals.pue == pytest.approx(whole / it_j, rel=REL)
    assert totals.pue == pytest.approx(load.at_load(it_j / result.end_s / nameplate_w), rel=REL)
    assert result.timeline["energy_j"].sum() == pytest.approx(whole, rel=REL)
    assert load.at_load(1.0) == pytest.approx(1.4)
    assert it_j == pytest.approx(
        sum(simulate(fleet(1.0, Constant(400.0), replicas=2), ROWS).pools[0].it_energy_j.values()), rel=REL
    )


def test_the_clock_is_the_local_one():
    winter = ClockPue(HOURS, "Europe/Berlin", "2024-01-15T00:30")
    assert [winter.at(t) for t in (0, 1799, 1800)] == pytest.approx([1.11, 1.11, 1.12])  # 01:30 there
    assert winter.next_change(0) == 1800
    assert ClockPue(HOURS, "Europe/Berlin", "2024-07-15T00:30").at(0) == pytest.approx(1.12)
    assert winter.integral(900, 2700) == pytest.approx(1.11 * 900 + 1.12 * 900)
    change = ClockPue(HOURS, "Europe/Berlin", "2024-03-31T00:00")  # 01:00; at 02:00 clocks go to 03:00
    assert [change.at(t) for t in (0, 3600, 7200)] == pytest.approx([1.11, 1.13, 1.14])
    half = ClockPue(HOURS, "Asia/Kolkata", "2024-01-15T00:00")  # 05:30
    assert (half.at(0), half.next_change(0)) == (pytest.approx(1.15), 1800)


def test_months_scale_the_overhead():
    months = [0.5] * 6 + [2.0] * 6
    assert ClockPue(HOURS, "UTC", "2024-01-15T00:00", months).at(0) == pytest.approx(1.05)
    assert ClockPue(HOURS, "UTC", "2024-08-15T00:00", months).at(0) == pytest.approx(1.2)


def test_files_of_pue_and_of_weather(tmp_path):
    path = tmp_path / "site.csv"
    path.write_text("datetime_utc,pue,t_c\n2024-01-01T00:00,1.2,-5\n2024-01-01T01:00,1.3,28\n")
    assert [measured_pue(path, "pue", "2024-01-01").at(t) for t in (0, 3600)] == [1.2, 1.3]
    warm = weather_pue(path, "t_c", datetime(2024, 1, 1, tzinfo=UTC), 1.1, 0.01, 18.0)
    assert [warm.at(t) for t in (0, 3600)] == pytest.approx([1.1, 1.2])
    with pytest.raises(InputError, match=r"pue hour='2024-01-01 02:00'.*pue.wrap=true"):
        warm.at(7200)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda p: ClockPue([0.9] * 24, "UTC", "2024-01-01"), "pue.hours"),
        (lambda p: ClockPue([1.1] * 23, "UTC", "2024-01-01"), "pue.hours"),
        (lambda p: ClockPue(HOURS, "Mars/Olympus", "2024-01-01"), "pue.zone"),
        (lambda p: ClockPue(HOURS, "", "2024-01-01"), "pue.zone"),
        (lambda p: ClockPue(HOURS, "UTC", None), "pue.start_utc"),
        (lambda p: ClockPue(HOURS, "UTC", "2024-01-01", [1.0] * 11), "pue.months"),
        (lambda p: LoadPue(0.99, 0.5), "pue.full_load"),
        (lambda p: LoadPue(1.2, 1.5), "pue.fixed_share"),
        (lambda p: measured_pue(p, "pue", "2024-01-01"), "pue"),
        (lambda p: measured_pue(p, "no", "2024-01-01"), "pue.column"),
        (lambda p: weather_pue(p, "pue", "2024-01-01", 0.5, 0.1, 10), "pue.base"),
        (lambda p: weather_pue(p, "pue", "2024-01-01", 1.5, -0.1, 10), "pue.per_degree"),
    ],
)
def test_bad_values_name_their_key(tmp_path, make, key):
    path = tmp_path / "site.csv"
    path.write_text("datetime_utc,pue\n2024-01-01T00:00,0.8\n")
    with pytest.raises(InputError) as error:
        make(path)
    assert error.value.key == key


def test_a_site_refuses_a_pue_below_one():
    with pytest.raises(InputError, match=r"sites.site.pue=0.5"):
        fleet(0.5, Constant(400.0))
