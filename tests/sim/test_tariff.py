"""Electricity at a price that varies: dollars as exact as grams, to 1e-9, whatever PUE and intensity do."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from sim import Constant, EngineSettings, Fleet, Owned, Result, Site
from sim.accounting import ClockTariff, LoadPue, market_tariff
from sim.accounting.signal import Unknown
from sim.errors import InputError
from sim.units import JOULES_PER_KWH
from tests.sim.conftest import StepSignal, owned, pool, simulate

ROWS = [(0.03 * i, 25 + i, 10 + 3 * (i % 7)) for i in range(30)]
TIGHT = EngineSettings(kv_blocks=12, max_num_seqs=6)  # some are preempted
PRICES = [0.10, 0.55, -0.02, 0.25]
REL = 1e-9
PUES: list[Any] = [1.3, StepSignal(0.07, [1.0, 1.5, 1.25]), LoadPue(1.4, 0.5)]
INTENSITIES: list[Any] = [Constant(400.0, "lca"), StepSignal(0.11, [300.0, 0.0, 500.0]), Unknown()]


def paid(tariff: Any) -> Owned:
    return Owned(20_000.0, nameplate_kw_per_xpu=0.5, colo_usd_per_kw_month=100.0, tariff=tariff)


def run(tariff: Any, pue: Any, intensity: Any, **changes: Any) -> Result:
    settings = {name: changes.pop(name) for name in ("drain", "horizon_s") if name in changes}
    site = Site("site", "edge", (pool(cost=paid(tariff), **changes),), intensity, pue)
    return simulate(Fleet((site,)), ROWS, keep_spans=True, **settings)


def product(signals: list[Any], t0: float, t1: float) -> float:
    """Integral of a product of signals, slowly [unit * s]."""
    total, t = 0.0, t0
    while t < t1:
        end = min(t1, *(signal.next_change(t) for signal in signals))
        total += math.prod(signal.at(t) for signal in signals) * (end - t)
        t = end
    return total


@pytest.mark.parametrize("pue", PUES, ids=["pue fixed", "pue varies", "pue by load"])
@pytest.mark.parametrize("intensity", INTENSITIES, ids=["grid fixed", "grid varies", "grid unknown"])
@pytest.mark.parametrize("changes", [{}, {"engine": TIGHT}, {"replicas": 3, "boot_s": 0.05}])
def test_a_tariff_that_steps_is_exact(pue: Any, intensity: Any, changes: dict[str, Any]) -> None:
    tariff = StepSignal(0.05, PRICES)
    result = run(tariff, pue, intensity, **changes)
    totals, requests, spans = result.pools[0], result.requests, result.spans
    assert spans is not None
    assert totals.cost_usd is not None
    boot_s, replicas = changes.get("boot_s", 0.0), changes.get("replicas", 1)
    slope: Any = Constant(1.0)
    fixed_w = 0.0
    if isinstance(pue, LoadPue):
        slope, fixed_w = Constant(pue.slope), pue.fixed_w(330.0)
    elif isinstance(pue, float):
        slope = Constant(pue)
    else:
        slope = pue
    busy = busy_usd_s = 0.0
    for start, k, a, b, dyn_j in zip(*(spans[name] for name in ("t0_s", "steps", "a_s", "b_s", "dyn_j"))):
        # a span ends where the tariff changes, or is one step, of even power
        seconds = k * a + b * k * (k - 1) / 2
        power = 80.0 + 30.0 + dyn_j / seconds
        price = product([tariff, slope], start, start + seconds)
        fixed = fixed_w * tariff.integral(start, start + seconds)
        busy += power * price + fixed
        busy_usd_s += price * 70.0 + fixed
    whole_s = 70.0 * replicas * product([tariff, slope], boot_s, result.end_s)
    idle = whole_s + fixed_w * replicas * tariff.integral(boot_s, result.end_s) - busy_usd_s
    boot = replicas * (110.0 * product([tariff, slope], 0.0, boot_s) + fixed_w * tariff.integral(0.0, boot_s))
    per_s = paid(tariff).rates().usd_per_xpu_s
    parts = totals.cost_usd
    assert parts["active"] + parts["wasted"] == pytest.approx(per_s * totals.busy_s + busy / JOULES_PER_KWH, rel=REL)
    assert parts["idle"] == pytest.approx(per_s * totals.idle_s + idle / JOULES_PER_KWH, rel=REL)
    assert parts["boot"] == pytest.approx(per_s * totals.boot_s + boot / JOULES_PER_KWH, rel=REL)
    assert requests["cost_usd"].sum() == pytest.approx(parts["active"] + parts["wasted"], rel=REL)
    assert requests["cost_provisioned_usd"].sum() == pytest.approx(sum(parts.values()), rel=REL)


@pytest.mark.parametrize("pue", PUES, ids=["fixed", "varies", "by load"])
@pytest.mark.parametrize("intensity", INTENSITIES, ids=["fixed", "varies", "unknown"])
def test_a_tariff_that_does_not_change_equals_a_price(pue: Any, intensity: Any) -> None:
    flat, price = run(StepSignal(0.05, [0.2]), pue, intensity), run(Constant(0.2), pue, intensity)
    assert price.pools[0].cost_usd == pytest.approx(flat.pools[0].cost_usd, rel=REL)
    for column in ("cost_usd", "energy_j", "energy_provisioned_j", "carbon_operational_provisioned_g", "e2e_s"):
        assert flat.requests[column] == pytest.approx(price.requests[column], rel=REL, nan_ok=True), column
    one = simulate(Fleet((Site("site", "edge", (pool(cost=owned()),), intensity, pue),)), ROWS)
    assert price.pools[0].cost_usd == pytest.approx(one.pools[0].cost_usd, rel=REL)  # owned() pays 0.2, too


def test_books_balance_at_a_horizon_that_cuts_steps() -> None:
    result = run(StepSignal(0.05, PRICES), 1.3, INTENSITIES[1], drain=False, horizon_s=0.513)
    totals = result.pools[0]
    assert totals.cost_usd is not None
    assert (result.requests["status"] == 5).any()
    shares = result.requests["cost_usd"].sum()
    busy = totals.cost_usd["active"] + totals.cost_usd["wasted"]
    assert 0.9 * busy < shares <= busy  # the step that the end cut short belongs to nobody
    mean_price = 3.6e6 * (sum(totals.cost_usd.values()) - paid(None).rates().usd_per_xpu_s * 0.513)
    mean_price /= sum(totals.facility_energy_j.values())
    assert min(PRICES) < mean_price < max(PRICES)


def test_hours_weekends_and_months_by_local_time() -> None:
    weekday, weekend = [0.1] * 16 + [0.5] * 5 + [0.1] * 3, [0.08] * 24
    months = [1.0] * 5 + [2.0] * 4 + [1.0] * 3
    tariff = ClockTariff(weekday, "America/Los_Angeles", "2024-05-31T22:30", weekend, months)  # Friday, 15:30 there
    assert tariff.at(0.0) == 0.1
    assert tariff.next_change(0.0) == 1800.0
    assert tariff.at(1800.0) == 0.5  # 16:00
    assert tariff.at(8.6 * 3600.0) == 2 * 0.08  # Saturday, and June
    assert tariff.integral(0.0, 3600.0) == pytest.approx(0.5 * 3600 * 0.6, rel=1e-12)
    spring = ClockTariff([float(hour) for hour in range(24)], "America/Los_Angeles", "2024-03-10T09:00")
    assert [spring.at(hour * 3600.0) for hour in (0, 1, 2)] == [1.0, 3.0, 4.0]  # no hour from 2 to 3 that night


def test_a_file_of_prices(tmp_path: Path) -> None:
    path = tmp_path / "prices.csv"
    path.write_text("datetime_utc,DAM\n2024-01-01T00:00,40\n2024-01-01T01:00,-10\n2024-01-01T02:00,90\n")
    tariff = market_tariff(path, "DAM", "2024-01-01T00:30", unit="USD/MWh")
    assert [tariff.at(t) for t in (0.0, 1800.0, 5400.0)] == pytest.approx([0.04, -0.01, 0.09])
    with pytest.raises(InputError, match=r"look like USD/MWh"):
        market_tariff(path, "DAM", "2024-01-01T00:30")
    site = Site("site", "edge", (pool(cost=paid(tariff)),), Constant(400.0))
    with pytest.raises(InputError, match="tariff"):  # said before the run, not at its end
        simulate(Fleet((site,)), ROWS, horizon_s=9100.0)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: ClockTariff([0.1] * 23, "UTC", "2024-01-01"), "tariff.hours"),
        (lambda: ClockTariff("a price", "UTC", "2024-01-01"), "tariff.hours"),  # type: ignore[arg-type]
        (lambda: ClockTariff([math.nan] * 24, "UTC", "2024-01-01"), "tariff.hours"),
        (lambda: ClockTariff([0.1] * 24, "UTC", "2024-01-01", weekend=[1.0]), "tariff.weekend"),
        (lambda: ClockTariff([0.1] * 24, "UTC", "2024-01-01", months=[1.0]), "tariff.months"),
        (lambda: ClockTariff([0.1] * 24, "Mars/Olympus", "2024-01-01"), "tariff.zone"),
        (lambda: ClockTariff([0.1] * 24, "UTC", None), "tariff.start_utc"),
        (lambda: Owned(1.0, tariff=0.1), "cost.tariff"),  # type: ignore[arg-type]
    ],
)
def test_bad_tariffs_name_their_key(make: Any, key: str) -> None:
    with pytest.raises(InputError) as error:
        make()
    assert error.value.key == key
