"""Embodied carbon: ACT against hand-checked chips, intervals, boundaries, refusals."""

from __future__ import annotations

import math

import pytest

from sim.accounting.embodied import (
    BOUNDARIES,
    Embodied,
    act,
    act_of,
    by_use,
    in_second_life,
    llmcarbon,
    llmcarbon_of,
    published,
    shared_with_other_uses,
)
from sim.errors import InputError
from sim.fleet.spec import Host
from sim.hardware.catalogue import list_entries, load_entry
from sim.hardware.xpu import XPU, PowerCoefficients, TimingCoefficients
from sim.units import GIB

SECONDS_IN_5_YEARS = 5 * 8760 * 3600


@pytest.mark.parametrize(
    ("die_mm2", "node_nm", "memory_gb", "memory_type", "low_kg"),
    [
        (545, 12, 16, "GDDR6", 9.67),  # T4
        (609, 4, 48, "GDDR6", 20.19),  # RTX 6000 Ada, L40S
        (609, 5, 24, "GDDR6X", 18.63),  # RTX 4090
        (294, 4, 24, "GDDR6", 9.88),  # L4
        (814, 4, 80, "HBM3", 27.96),  # H100
        (814, 4, 141, "HBM3e", 31.93),  # H200
        (826, 7, 80, "HBM2e", 24.50),  # A100 80 GB
        (826, 7, 40, "HBM2e", 21.90),  # A100 40 GB
        (815, 12, 32, "HBM2", 14.92),  # V100
        (455, 8, 64, "LPDDR5", 11.44),  # Jetson AGX Orin
    ],
)
def test_act_of_known_chips(die_mm2, node_nm, memory_gb, memory_type, low_kg):
    found = act(die_mm2, node_nm, memory_gb, memory_type)
    assert found.low_kg == pytest.approx(low_kg, abs=0.01)
    assert (found.boundary, found.method) == ("die+memory", "ACT")
    assert found.lifetime_s == SECONDS_IN_5_YEARS


def test_act_by_hand():
    # 1 cm2 at 7 nm: (583 * 2.15 + 275 + 500) / 0.875 g, one package of 150 g, 10 GB of DDR4 at 65 g.
    assert act(100, 7, 10, "DDR4").central_kg == pytest.approx((2028.45 / 0.875 + 150 + 650) / 1000, rel=1e-12)
    assert act(100, 7, 0, "DDR4", yield_=1, fab_g_per_kwh=0, packages=0).central_kg == pytest.approx(0.775, rel=1e-12)


def test_the_interval_comes_from_the_memory_factor_alone():
    h100 = act(814, 4, 80, "HBM3")
    assert h100.central_kg - h100.low_kg == pytest.approx(80 * (400 - 65) / 1000)
    assert h100.high_kg - h100.low_kg == pytest.approx(80 * (860 - 65) / 1000)
    t4 = act(545, 12, 16, "GDDR6")
    assert t4.low_kg == t4.central_kg == t4.high_kg


def test_rate_is_mass_over_lifetime():
    value = published(157.68, "board", "a test", lifetime_years=5, low_kg=100, high_kg=200)
    assert value.g_per_s() == pytest.approx(1e-3)
    assert value.g_per_s("low") < value.g_per_s("central") < value.g_per_s("high")
    assert published(157.68, "board", "a test", lifetime_years=2.5).g_per_s() == pytest.approx(2e-3)


def chip(**changes):
    fields = {"die_mm2": 545.0, "node_nm": 12.0, "memory_type": "GDDR6", "memory_bytes": 16 * GIB} | changes
    timing = TimingCoefficients(1, 1, 1, 1, 0, 0, 0)
    power = PowerCoefficients(0.2, 0.5, 0.3)
    return XPU(
        "t4",
        "T4",
        {"fp16": 65e12},
        bandwidth_bytes_per_s=320e9,
        tdp_w=70,
        idle_w=11,
        timing=timing,
        power=power,
        **fields,
    )


def test_act_of_a_chip_uses_its_own_facts():
    assert act_of(chip()) == act(545, 12, 16, "GDDR6")
    assert act_of(chip(), lifetime_years=3).lifetime_s == 3 * 8760 * 3600


@pytest.mark.parametrize("unknown", ["die_mm2", "node_nm", "memory_type"])
def test_unknown_facts_make_an_unknown_not_a_zero(unknown):
    assert act_of(chip(**{unknown: None})) is None


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: act(0, 7, 80, "HBM3"), "embodied.die_mm2"),
        (lambda: act(math.nan, 7, 80, "HBM3"), "embodied.die_mm2"),
        (lambda: act("big", 7, 80, "HBM3"), "embodied.die_mm2"),
        (lambda: act(800, 6, 80, "HBM3"), "embodied.node_nm"),
        (lambda: act(800, "7 nm", 80, "HBM3"), "embodied.node_nm"),
        (lambda: act(800, None, 80, "HBM3"), "embodied.node_nm"),
        (lambda: act(800, 7, -1, "HBM3"), "embodied.memory_gb"),
        (lambda: act(800, 7, 80, "core rope"), "embodied.memory_type"),
        (lambda: act(800, 7, 80, None), "embodied.memory_type"),
        (lambda: act(800, 7, 80, "HBM3", lifetime_years=0), "embodied.lifetime_years"),
        (lambda: act(800, 7, 80, "HBM3", yield_=0), "embodied.yield"),
        (lambda: published(-1, "board", "x"), "embodied.kg"),
        (lambda: published(1, "planet", "x"), "embodied.boundary"),
        (lambda: published(1, "board", "x", lifetime_years=-5), "embodied.lifetime_years"),
        (lambda: published(1, "board", "x", low_kg=2), "embodied.low_kg, central_kg, high_kg"),
        (lambda: published(1, "board", "x", high_kg=math.inf), "embodied.high_kg"),
        (lambda: Embodied(1, 1, 1, "board", "x", 0, "x"), "embodied.lifetime_s"),
        (lambda: published(1, "board", "x").g_per_s("median"), "embodied estimate"),
    ],
)
def test_bad_values_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key


def test_every_host_file_builds_a_host():
    assert set(list_entries("host")) >= {"hgx_8gpu", "a6000_server", "edge_box", "jetson", "phone"}
    for name in list_entries("host"):
        entry = load_entry("host", name)
        kg = entry.values["embodied_kg"]
        source, years = entry.provenance["embodied_kg"][1], entry.values["lifetime_years"]
        embodied = None if kg is None else published(kg, entry.values["boundary"], source, years)
        assert Host(entry.values["power_w"], embodied).power_w >= 0.0
        assert entry.values["boundary"] in BOUNDARIES


def test_a_gpus_share_of_an_8_gpu_host():
    values = load_entry("host", "hgx_8gpu").values
    assert (values["power_w"], values["embodied_kg"]) == (1200 / 8, 5700 / 8)


@pytest.mark.parametrize("boundary", BOUNDARIES)
def test_every_boundary_is_kept(boundary):
    assert published(1, boundary, "x").boundary == boundary


def test_llmcarbon_by_hand():
    assert llmcarbon(814, 4, 80).central_kg == pytest.approx(8.14 * 1.8 + 80 * 0.4)
    assert llmcarbon(826, 7, 40).boundary == "die+memory"
    assert llmcarbon_of(chip(node_nm=7)) == llmcarbon(545, 7, 16)
    assert llmcarbon_of(chip(node_nm=8)) is None  # it has no factor: unknown, not another node's
    assert llmcarbon_of(chip(die_mm2=None)) is None
    with pytest.raises(InputError, match=r"embodied.node_nm=8"):
        llmcarbon(814, 8, 80)


def test_a_second_life_carries_what_the_years_left_are_of_all():
    first = published(120, "board", "a test", lifetime_years=4)
    assert in_second_life(first, 2).g_per_s() == pytest.approx(120e3 / 3 / (2 * 8760 * 3600))
    assert in_second_life(first, 2).g_per_s() == pytest.approx(120e3 / (6 * 8760 * 3600))  # every year the same
    assert in_second_life(first, 2, 0.5).g_per_s() == pytest.approx(60e3 / (2 * 8760 * 3600))
    assert in_second_life(first, 2, 0.0).g_per_s() == 0.0  # sunk


def test_amortised_by_use_and_shared_with_other_uses():
    device = published(60, "board", "a test", low_kg=50, high_kg=90)
    assert by_use(device, 5000).g_per_s("high") == pytest.approx(90e3 / (5000 * 3600))
    assert by_use(device, 5000).per == "use"
    assert shared_with_other_uses(device, 0.1).g_per_s("low") == pytest.approx(0.1 * device.g_per_s("low"))


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda e: by_use(e, 0), "embodied.active_hours"),
        (lambda e: in_second_life(e, 0), "embodied.second_life.years"),
        (lambda e: in_second_life(e, 2, 1.5), "embodied.second_life.share"),
        (lambda e: shared_with_other_uses(e, -0.1), "embodied.use_share"),
    ],
)
def test_bad_lives_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build(published(60, "board", "a test"))
    assert error.value.key == key
