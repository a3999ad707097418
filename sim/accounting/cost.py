"""What hardware costs: rent by the hour (on demand, reserved or spot), or an annuity, energy, space and staff."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from sim.accounting.signal import Signal
from sim.errors import InputError, number, provider
from sim.units import JOULES_PER_KWH, SECONDS_PER_HOUR, SECONDS_PER_YEAR

ON_DEMAND, RESERVED, SPOT = "on_demand", "reserved", "spot"
PLANS = (ON_DEMAND, RESERVED, SPOT)
_HOURS_PER_YEAR = SECONDS_PER_YEAR / SECONDS_PER_HOUR


@dataclass(frozen=True, slots=True)
class CostRates:
    """What a pool's cost grows by.

    Attributes:
        usd_per_xpu_s: per billed xPU second, used or not [USD/s].
        usd_per_facility_j: per joule at the facility's meter, after PUE [USD/J]; 0 where the first rate includes power.
        basis: in words, for the report.
        tariff: price at the meter where it varies over time [USD/kWh], instead of `usd_per_facility_j`.
        billing_unit_s: seconds are billed in units of so many, started ones in full; 0 bills what is provisioned [s].
        pauses_in_outages: True if an outage is not billed, for the provider has taken the machine away.
    """

    usd_per_xpu_s: float
    usd_per_facility_j: float
    basis: str
    tariff: Signal | None = None
    billing_unit_s: float = 0.0
    pauses_in_outages: bool = False


class CostModel(Protocol):
    """Anything that can name its rates."""

    def rates(self) -> CostRates:
        """The rates and their basis."""
        ...


@dataclass(frozen=True, slots=True)
class Rent:
    """Rent by the xPU hour. It includes power and PUE, and unused hours are billed.

    Attributes:
        usd_per_xpu_hour: price of one xPU on demand [USD/h].
        as_of, region, source: when, where and by whom the price was asked.
        currency: ``USD``; results are in USD, so other prices have to be converted first.
        plan: ``on_demand``; ``reserved`` for `term_years`, at a discount; or ``spot``, at a discount, not billed while
            the provider has taken the machines away, which are the pool's outages.
        discount: of the price on demand, as a share in [0, 1).
        term_years: length of a reservation, for which every hour has to be paid [years].
        billing_unit_s: seconds are billed in units of so many; 0 bills exactly what is provisioned [s].
        interruptions_per_hour: how often the provider takes a spot pool away, all replicas at once [1/h]; drawn as
            outages up to the run's horizon.
        restart_s: time from an interruption until the pool serves again, weights loaded [s].
    """

    usd_per_xpu_hour: float
    as_of: str = ""
    region: str = ""
    source: str = ""
    currency: str = "USD"
    plan: str = ON_DEMAND
    discount: float = 0.0
    term_years: float = 0.0
    billing_unit_s: float = 0.0
    interruptions_per_hour: float = 0.0
    restart_s: float = 600.0

    def __post_init__(self) -> None:
        number("cost.usd_per_xpu_hour", self.usd_per_xpu_hour, "a price >= 0 USD/h", low=0.0)
        if self.plan not in PLANS:
            raise InputError("cost.plan", self.plan, " | ".join(PLANS))
        accepted = "0 on demand" if self.plan == ON_DEMAND else "a share in [0, 1], such as 0.4"
        number("cost.discount", self.discount, accepted, low=0.0, high=0.0 if self.plan == ON_DEMAND else 1.0)
        if self.plan == RESERVED:
            number("cost.term_years", self.term_years, "a number of years > 0 for a reservation", above=0.0)
        elif self.term_years != 0.0:
            raise InputError("cost.term_years", self.term_years, f"0, for {self.plan} has no term")
        accepted = "a rate >= 0 per hour of a spot pool, and 0 of any other"
        most = math.inf if self.plan == SPOT else 0.0
        number("cost.interruptions_per_hour", self.interruptions_per_hour, accepted, low=0.0, high=most)
        number("cost.restart_s", self.restart_s, "a time > 0 s", above=0.0)
        number("cost.billing_unit_s", self.billing_unit_s, "a time >= 0 s, such as 1 or 3600", low=0.0)
        _check_currency(self.currency)

    @property
    def usd_per_hour(self) -> float:
        """Price of an xPU hour after the discount [USD/h]."""
        return self.usd_per_xpu_hour * (1.0 - self.discount)

    @property
    def commitment_usd_per_xpu(self) -> float:
        """What a reservation owes for its term, used or not; 0 without one [USD]."""
        return self.usd_per_hour * self.term_years * _HOURS_PER_YEAR

    def rates(self) -> CostRates:
        """Rent per second; power is included."""
        text = f"rent at {self.usd_per_hour:g} USD per xPU hour, power included"
        if self.plan != ON_DEMAND:
            text += f", {self.plan}: {self.discount:.0%} off {self.usd_per_xpu_hour:g}"
        if self.plan == RESERVED:
            text += f" for {self.term_years:g} years, {self.commitment_usd_per_xpu:,.0f} USD per xPU owed in all"
        if self.plan == SPOT:
            text += f", {self.interruptions_per_hour:g} interruptions an hour of {self.restart_s:g} s, not billed"
        if self.billing_unit_s:
            text += f", billed by the started {self.billing_unit_s:g} s"
        return CostRates(
            self.usd_per_hour / SECONDS_PER_HOUR,
            0.0,
            _basis(text, self),
            billing_unit_s=self.billing_unit_s,
            pauses_in_outages=self.plan == SPOT,
        )


@dataclass(frozen=True, slots=True)
class Owned:
    """Ownership: capital as an annuity less salvage, space by nameplate power, upkeep, staff, and electricity.

    USD of a run = H / 8760 * (capex * CRF - salvage * SFF + kW * colo * 12 + opex + staff) + the integral of facility
    power * tariff, where H are provisioned hours; utilisation is an output, never an input.

    Attributes:
        purchase_usd_per_xpu: price of an xPU with its share of server and network [USD].
        lifetime_years: years in use.
        discount_rate: interest per year, as a share (0.08 is 8 %).
        salvage_share: share of the purchase price that remains at the end, in [0, 1].
        nameplate_kw_per_xpu: power that the space is booked for, with the host's share [kW].
        colo_usd_per_kw_month: price of space without energy, one's own or colocation [USD/kW/month].
        opex_usd_per_year: upkeep per xPU [USD/year].
        electricity_usd_per_kwh: tariff at the meter where it is one price [USD/kWh].
        as_of, region, source, currency: as for `Rent`.
        tariff: price at the meter over time [USD/kWh]; takes the place of `electricity_usd_per_kwh`.
        staff_per_xpu: people who run it, per xPU [full-time equivalents].
        staff_usd_per_year: what one of them costs [USD/year].
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
    tariff: Signal | None = None
    staff_per_xpu: float = 0.0
    staff_usd_per_year: float = 0.0

    def __post_init__(self) -> None:
        number("cost.purchase_usd_per_xpu", self.purchase_usd_per_xpu, "a price >= 0 USD", low=0.0)
        number("cost.lifetime_years", self.lifetime_years, "a number of years > 0", above=0.0)
        number("cost.discount_rate", self.discount_rate, "a share per year in [0, 1], such as 0.08", low=0.0, high=1.0)
        number("cost.salvage_share", self.salvage_share, "a share in [0, 1]", low=0.0, high=1.0)
        number("cost.nameplate_kw_per_xpu", self.nameplate_kw_per_xpu, "a power >= 0 kW", low=0.0)
        number("cost.colo_usd_per_kw_month", self.colo_usd_per_kw_month, "a price >= 0 USD/kW/month", low=0.0)
        number("cost.opex_usd_per_year", self.opex_usd_per_year, "a cost >= 0 USD/year", low=0.0)
        number("cost.electricity_usd_per_kwh", self.electricity_usd_per_kwh, "a price >= 0 USD/kWh", low=0.0)
        number("cost.staff_per_xpu", self.staff_per_xpu, "a number of people >= 0", low=0.0)
        number("cost.staff_usd_per_year", self.staff_usd_per_year, "a cost >= 0 USD/year", low=0.0)
        if self.tariff is not None:
            methods = ["at", "next_change", "integral"]
            provider("cost.tariff", self.tariff, methods, "a Signal such as ClockTariff(...) [USD/kWh], or None")
        _check_currency(self.currency)

    def rates(self) -> CostRates:
        """Capital, space, upkeep and staff per second, and electricity per joule."""
        tariff, usd_per_kwh = self.tariff, self.electricity_usd_per_kwh
        if tariff is not None and math.isinf(tariff.next_change(0.0)):
            usd_per_kwh, tariff = tariff.at(0.0), None
        electricity = f"{usd_per_kwh:g} USD/kWh" if tariff is None else f"at a tariff over time ({tariff.source})"
        staff = f", staff {self.staff_per_xpu * self.staff_usd_per_year:g} USD/year" if self.staff_per_xpu else ""
        basis = _basis(
            f"owned: {self.purchase_usd_per_xpu:g} USD per xPU over {self.lifetime_years:g} years at "
            f"{self.discount_rate:.1%}, space {self.colo_usd_per_kw_month:g} USD/kW/month{staff}, "
            f"electricity {electricity}",
            self,
        )
        usd_per_j = 0.0 if tariff is not None else usd_per_kwh / JOULES_PER_KWH
        return CostRates(self.usd_per_xpu_year() / SECONDS_PER_YEAR, usd_per_j, basis, tariff)

    def usd_per_xpu_year(self) -> float:
        """What an xPU costs a year of 8,760 h, without electricity [USD/year]."""
        capital = self.purchase_usd_per_xpu * capital_recovery(self.discount_rate, self.lifetime_years)
        salvage = self.purchase_usd_per_xpu * self.salvage_share * sinking_fund(self.discount_rate, self.lifetime_years)
        space = self.nameplate_kw_per_xpu * self.colo_usd_per_kw_month * 12.0
        return capital - salvage + space + self.opex_usd_per_year + self.staff_per_xpu * self.staff_usd_per_year


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
    where = (priced.as_of or "date not recorded", priced.region or "region not recorded", priced.source)
    return f"{text} ({', '.join(part for part in where if part)})"


def _check_currency(currency: str) -> None:
    if currency != "USD":
        raise InputError("cost.currency", currency, "USD; convert other prices and say when in as_of")
