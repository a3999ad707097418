"""Cost rates by hand-computed values: rent, annuity, sinking fund, ownership."""

from __future__ import annotations

import math

import pytest

from sim.accounting.cost import Owned, Rent, capital_recovery, sinking_fund
from sim.errors import InputError

HOUR, YEAR, KWH = 3600.0, 8760 * 3600.0, 3.6e6


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
