"""What hardware costs: rent by the hour, or ownership by an annuity, energy and space."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from sim.errors import InputError, number
from sim.units import JOULES_PER_KWH, SECONDS_PER_HOUR, SECONDS_PER_YEAR


@dataclass(frozen=True, slots=True)
class CostRates:
    """What a pool's cost grows by.

    Attributes:
        usd_per_xpu_s: per provisioned xPU second, used or not [USD/s].
        usd_per_facility_j: per joule at the facility's meter, after PUE [USD/J]; 0 where the first rate includes power.
        basis: in words, for the report.
    """

    usd_per_xpu_s: float
    usd_per_facility_j: float
    basis: str


class CostModel(Protocol):
    """Anything that can name its rates."""

    def rates(self) -> CostRates:
        """The two rates and their basis."""
        ...


@dataclass(frozen=True, slots=True)
class Rent:
    """Rent by the xPU hour. It includes power and PUE, and unused hours are billed; billing is by the second.

    Attributes:
        usd_per_xpu_hour: price of one xPU [USD/h].
        as_of, region, source: when, where and by whom the price was asked.
        currency: ``USD``; results are in USD, so other prices have to be converted first.
    """

    usd_per_xpu_hour: float
    as_of: str = ""
    region: str = ""
    source: str = ""
    currency: str = "USD"

    def __post_init__(self) -> None:
        number("cost.usd_per_xpu_hour", self.usd_per_xpu_hour, "a price >= 0 USD/h", low=0.0)
        _check_currency(self.currency)

    def rates(self) -> CostRates:
        """Rent per second; power is included."""
        basis = _basis(f"rent at {self.usd_per_xpu_hour:g} USD per xPU hour, power included", self)
        return CostRates(self.usd_per_xpu_hour / SECONDS_PER_HOUR, 0.0, basis)


@dataclass(frozen=True, slots=True)
class Owned:
    """Ownership: capital as an annuity less salvage, space by nameplate power, operations, and electricity.

    USD of a run = H / 8760 * (capex * CRF - salvage * SFF + kW * colo * 12 + opex) + E_facility * tariff, where H are
    provisioned hours; utilisation is an output, never an input. E_facility is metered energy times PUE.

    Attributes:
        purchase_usd_per_xpu: price of an xPU with its share of server and network [USD].
        lifetime_years: years in use.
        discount_rate: interest per year, as a share (0.08 is 8 %).
        salvage_share: share of the purchase price that remains at the end, in [0, 1].
        nameplate_kw_per_xpu: power that the space is booked for, with the host's share [kW].
        colo_usd_per_kw_month: price of space without energy [USD/kW/month].
        opex_usd_per_year: upkeep per xPU [USD/year].
        electricity_usd_per_kwh: tariff at the meter [USD/kWh].
        as_of, region, source, currency: as for `Rent`.
    """

    purchase_usd_per_xpu: float
    lifetime_years: float = 5.0
    discount_rate: float = 0.08
    salvage_share: float = 0.0
    nameplate_kw_per_xpu: float = 0.0
    colo_usd_per_kw_month: float = 0.0
    opex_usd_per_year: float = 0.0
    electricity_usd_per_kwh: float = 0.0
    as_of: str = ""
    region: str = ""
    source: str = ""
    currency: str = "USD"

    def __post_init__(self) -> None:
        number("cost.purchase_usd_per_xpu", self.purchase_usd_per_xpu, "a price >= 0 USD", low=0.0)
        number("cost.lifetime_years", self.lifetime_years, "a number of years > 0", above=0.0)
        number("cost.discount_rate", self.discount_rate, "a share per year in [0, 1], such as 0.08", low=0.0, high=1.0)
        number("cost.salvage_share", self.salvage_share, "a share in [0, 1]", low=0.0, high=1.0)
        number("cost.nameplate_kw_per_xpu", self.nameplate_kw_per_xpu, "a power >= 0 kW", low=0.0)
        number("cost.colo_usd_per_kw_month", self.colo_usd_per_kw_month, "a price >= 0 USD/kW/month", low=0.0)
        number("cost.opex_usd_per_year", self.opex_usd_per_year, "a cost >= 0 USD/year", low=0.0)
        number("cost.electricity_usd_per_kwh", self.electricity_usd_per_kwh, "a price >= 0 USD/kWh", low=0.0)
        _check_currency(self.currency)

    def rates(self) -> CostRates:
        """Capital, space and upkeep per second, and electricity per joule."""
        basis = _basis(
            f"owned: {self.purchase_usd_per_xpu:g} USD per xPU over {self.lifetime_years:g} years at "
            f"{self.discount_rate:.1%}, space {self.colo_usd_per_kw_month:g} USD/kW/month, "
            f"electricity {self.electricity_usd_per_kwh:g} USD/kWh",
            self,
        )
        tariff = self.electricity_usd_per_kwh / JOULES_PER_KWH
        return CostRates(self.usd_per_xpu_year() / SECONDS_PER_YEAR, tariff, basis)

    def usd_per_xpu_year(self) -> float:
        """What an xPU costs a year of 8,760 h, without electricity [USD/year]."""
        capital = self.purchase_usd_per_xpu * capital_recovery(self.discount_rate, self.lifetime_years)
        salvage = self.purchase_usd_per_xpu * self.salvage_share * sinking_fund(self.discount_rate, self.lifetime_years)
        space = self.nameplate_kw_per_xpu * self.colo_usd_per_kw_month * 12.0
        return capital - salvage + space + self.opex_usd_per_year


def capital_recovery(discount_rate: float, years: float) -> float:
    """Capital recovery factor i / (1 - (1 + i)^-n): the yearly payment for one USD today [1/year]; 1/n at i = 0.

    Source: engineering economics, the level annuity.
    """
    return sinking_fund(discount_rate, years) + discount_rate


def sinking_fund(discount_rate: float, years: float) -> float:
    """Sinking fund factor i / ((1 + i)^n - 1): the yearly saving for one USD after n years [1/year]; 1/n at i = 0.

    Source: engineering economics, the level annuity.
    """
    # expm1 and log1p keep the limit at tiny rates, where (1 + i)^n - 1 would cancel.
    growth = math.expm1(years * math.log1p(discount_rate))
    return discount_rate / growth if growth > 0.0 else 1.0 / years


def _basis(text: str, priced: Rent | Owned) -> str:
    place = ", ".join(part for part in (priced.as_of, priced.region, priced.source) if part)
    return f"{text} ({place})" if place else text


def _check_currency(currency: str) -> None:
    if currency != "USD":
        raise InputError("cost.currency", currency, "USD; convert other prices and say when in as_of")
