"""Cost rates by hand-computed values: rent, annuity, sinking fund, ownership."""

from __future__ import annotations

import math

import pytest

from sim import Constant
from sim.accounting.billing import billed_s
from sim.accounting.cost import Owned, Rent, capital_recovery, sinking_fund
from sim.errors import InputError
from sim.results import STATUSES
from tests.sim.conftest import fleet_of, pool, simulate

HOUR, YEAR, KWH = 3600.0, 8760 * 3600.0, 3.6e6
ROWS = [(0.4 * i, 30 + i, 40) for i in range(90)]


def test_rent_bills_time_and_includes_power():
    rates = Rent(2.69, as_of="2025-11", region="us", source="a price list").rates()
    assert rates.usd_per_xpu_s * HOUR == pytest.approx(2.69)
    assert rates.usd_per_facility_j == 0.0
    assert rates.basis == "rent at 2.69 USD per xPU hour, power included (2025-11, us, a price list)"


@pytest.mark.parametrize(
    ("rate", "years", "expected"),
    [(0.08, 5, 0.2504564546), (0.10, 10, 0.1627453949), (0.0, 4, 0.25), (1e-14, 4, 0.25)],
)
def test_capital_recovery_factor(rate, years, expected):
    assert capital_recovery(rate, years) == pytest.approx(expected, rel=1e-9)


def test_sinking_fund_factor():
    assert sinking_fund(0.08, 5) == pytest.approx(0.1704564546, rel=1e-9)
    assert sinking_fund(0.0, 5) == pytest.approx(0.2)


def test_an_annuity_pays_the_loan_back():
    debt = 1000.0
    payment = debt * capital_recovery(0.07, 6)
    for _ in range(6):
        debt = debt * 1.07 - payment
    assert debt == pytest.approx(0.0, abs=1e-9)


def test_owned_by_hand():
    owned = Owned(
        purchase_usd_per_xpu=30_000,
        lifetime_years=5,
        discount_rate=0.08,
        salvage_share=0.1,
        nameplate_kw_per_xpu=1.275,
        colo_usd_per_kw_month=200,
        opex_usd_per_year=500,
        electricity_usd_per_kwh=0.10,
    )
    # 30,000 * .2504565 = 7,513.69; 3,000 * .1704565 = 511.37; 1.275 * 200 * 12 = 3,060
    assert owned.usd_per_xpu_year() == pytest.approx(7513.6936 - 511.3694 + 3060 + 500, abs=1e-3)
    rates = owned.rates()
    assert rates.usd_per_xpu_s * YEAR == pytest.approx(owned.usd_per_xpu_year(), rel=1e-12)
    assert rates.usd_per_facility_j * KWH == pytest.approx(0.10, rel=1e-12)
    assert rates.basis.startswith("owned: 30000 USD per xPU over 5 years at 8.0%")


def test_owned_without_interest_is_straight_line():
    owned = Owned(8760, lifetime_years=2, discount_rate=0, salvage_share=0.5)
    assert owned.usd_per_xpu_year() == pytest.approx(8760 / 2 - 4380 / 2)


@pytest.mark.parametrize(
    ("build", "key"),
    [
        (lambda: Rent(-1), "cost.usd_per_xpu_hour"),
        (lambda: Rent(math.nan), "cost.usd_per_xpu_hour"),
        (lambda: Rent("cheap"), "cost.usd_per_xpu_hour"),
        (lambda: Rent(None), "cost.usd_per_xpu_hour"),
        (lambda: Rent(1, currency="EUR"), "cost.currency"),
        (lambda: Rent(1, plan="free"), "cost.plan"),
        (lambda: Rent(1, discount=0.1), "cost.discount"),
        (lambda: Rent(1, plan="spot", discount=1.1), "cost.discount"),
        (lambda: Rent(1, plan="reserved", discount=0.1), "cost.term_years"),
        (lambda: Rent(1, plan="spot", term_years=1), "cost.term_years"),
        (lambda: Rent(1, interruptions_per_hour=1), "cost.interruptions_per_hour"),
        (lambda: Rent(1, billing_unit_s=-1), "cost.billing_unit_s"),
        (lambda: Owned(1, staff_per_xpu=-1), "cost.staff_per_xpu"),
        (lambda: Owned(-1), "cost.purchase_usd_per_xpu"),
        (lambda: Owned(1, lifetime_years=0), "cost.lifetime_years"),
        (lambda: Owned(1, discount_rate=8), "cost.discount_rate"),
        (lambda: Owned(1, salvage_share=1.5), "cost.salvage_share"),
        (lambda: Owned(1, nameplate_kw_per_xpu=-1), "cost.nameplate_kw_per_xpu"),
        (lambda: Owned(1, colo_usd_per_kw_month=math.inf), "cost.colo_usd_per_kw_month"),
        (lambda: Owned(1, opex_usd_per_year=-1), "cost.opex_usd_per_year"),
        (lambda: Owned(1, electricity_usd_per_kwh=True), "cost.electricity_usd_per_kwh"),
        (lambda: Owned(1, currency="CNY"), "cost.currency"),
    ],
)
def test_bad_values_name_their_key(build, key):
    with pytest.raises(InputError) as error:
        build()
    assert error.value.key == key


def test_a_reservation_by_hand():
    rent = Rent(3.0, plan="reserved", discount=0.4, term_years=1.0)
    assert rent.rates().usd_per_xpu_s * HOUR == pytest.approx(1.8)
    assert rent.commitment_usd_per_xpu == pytest.approx(1.8 * 8760)
    assert "15,768 USD per xPU owed in all" in rent.rates().basis
    assert "date not recorded" in rent.rates().basis


def test_billing_units_are_billed_when_they_start():
    hourly = Rent(3.6, billing_unit_s=3600.0)
    assert billed_s(hourly, (), 3600.0) == 3600.0
    assert billed_s(hourly, (), 3600.0 * (1 + 1e-12)) == 3600.0  # rounding starts no hour
    assert billed_s(hourly, (), 3601.0) == 7200.0
    assert billed_s(Rent(3.6), (), 3600.7) == 3600.7
    assert billed_s(hourly, (), 0.0) == 0.0


def test_a_spot_pool_is_not_billed_while_it_is_taken_away():
    outages = ((100.0, 160.0), (300.0, 900.0))
    spot = Rent(3.6, plan="spot", discount=0.5)
    assert billed_s(spot, outages, 500.0) == 100.0 + 140.0
    assert billed_s(spot, outages, 1000.0) == 100.0 + 140.0 + 100.0
    assert billed_s(Rent(3.6, plan="spot", billing_unit_s=60.0), outages, 500.0) == 120.0 + 180.0
    assert billed_s(Rent(3.6), outages, 500.0) == 500.0  # whatever else fails is paid for


def test_staff_and_space_by_hand():
    owned = Owned(
        0.0, nameplate_kw_per_xpu=1.275, colo_usd_per_kw_month=200, staff_per_xpu=0.01, staff_usd_per_year=150e3
    )
    assert owned.usd_per_xpu_year() == pytest.approx(1.275 * 200 * 12 + 1500)


def _parts(rent, **changes):
    result = simulate(fleet_of(pool(cost=rent, **changes.pop("pool", {})), intensity=Constant(100.0)), ROWS, **changes)
    return result, result.pools[0]


def test_started_hours_are_idle_cost_and_everybody_pays_their_part():
    result, totals = _parts(Rent(3.6, billing_unit_s=3600.0), pool={"replicas": 2})
    assert totals.billed_s == 7200.0
    assert sum(totals.cost_usd.values()) == pytest.approx(7.2, rel=1e-12)
    assert result.requests["cost_provisioned_usd"].sum() == pytest.approx(7.2, rel=1e-9)


def test_interruptions_are_drawn_by_name_and_not_billed():
    spot = Rent(3.6, plan="spot", interruptions_per_hour=720.0, restart_s=1.0)  # one in five seconds
    result, totals = _parts(spot, horizon_s=40.0)
    again = _parts(spot, horizon_s=40.0)[1]
    assert totals == again
    out_s = 40.0 - totals.billed_s
    assert 1.0 < out_s < 20.0
    assert out_s == pytest.approx(round(out_s), abs=1.0)
    assert sum(totals.cost_usd.values()) == pytest.approx(1e-3 * totals.billed_s, rel=1e-12)
    assert (result.requests["status"] == STATUSES.index("failed")).any()
    whole = sum(totals.cost_usd.values())  # steps that an interruption cut short belong to nobody
    assert 0.99 * whole < result.requests["cost_provisioned_usd"].sum() < whole
    with pytest.raises(InputError, match="horizon_s"):
        _parts(spot)
