"""A battery behind a site's meter. When it charges and discharges is a policy: one method, `dispatch`."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from sim.accounting.forecast import ForecastModel, Noisy
from sim.errors import InputError, number, provider
from sim.units import SECONDS_PER_HOUR, SECONDS_PER_YEAR

_SHARE = "a share in [0, 1]"


class BatteryPolicy(Protocol):
    """When a battery charges and discharges."""

    def dispatch(
        self, t_s: float, load_kw: float, solar_kw: float, intensity: Callable[[float], float], soc: float
    ) -> float:
        """Power wanted of the battery in the step that begins at `t_s` [kW]: above 0 into the site, below 0 charging.

        The battery does what it can of it: no more than its power, its content, and what the site lacks.

        Args:
            t_s: simulated time [s].
            load_kw, solar_kw: means of the step at the facility's meter [kW].
            intensity: carbon intensity of the grid at a time from `t_s` on, as forecast now [g/kWh]; NaN if unknown.
            soc: state of charge, in [0, 1].
        """
        ...


class SelfConsumption:
    """Takes the sun's surplus and gives it back as soon as the site needs it."""

    def dispatch(
        self, t_s: float, load_kw: float, solar_kw: float, intensity: Callable[[float], float], soc: float
    ) -> float:
        """See `BatteryPolicy.dispatch`."""
        return load_kw - solar_kw


class CarbonAware:
    """Charges in the cleanest hours of the coming day, from the grid as well, and serves the site in the dirtiest.

    Where the clean hours are not clean enough to make up for losses, it keeps to the sun's surplus.

    Args:
        clean, dirty: shares of the coming hours that count as clean and as dirty, in [0, 1].
        gain: charge from the grid only below this share of what dirty hours are at; best below the efficiency.
        window_s, slot_s: how far it looks ahead, and in which steps [s].
    """

    def __init__(
        self,
        clean: float = 0.25,
        dirty: float = 0.25,
        gain: float = 0.8,
        window_s: float = 24.0 * SECONDS_PER_HOUR,
        slot_s: float = SECONDS_PER_HOUR,
    ) -> None:
        self._clean = number("battery.policy.clean", clean, _SHARE, low=0.0, high=1.0)
        self._dirty = number("battery.policy.dirty", dirty, _SHARE, low=0.0, high=1.0)
        self._gain = number("battery.policy.gain", gain, _SHARE, low=0.0, high=1.0)
        self._slot_s = number("battery.policy.slot_s", slot_s, "a time > 0 s", above=0.0)
        self._window_s = number("battery.policy.window_s", window_s, "a time of at least slot_s", low=slot_s)
        self._slot, self._low, self._high = -1, math.nan, math.nan

    def dispatch(
        self, t_s: float, load_kw: float, solar_kw: float, intensity: Callable[[float], float], soc: float
    ) -> float:
        """See `BatteryPolicy.dispatch`."""
        slot = int(t_s // self._slot_s)
        if slot != self._slot:
            self._look_ahead(t_s, intensity)
            self._slot = slot
        now, lacking = intensity(t_s), load_kw - solar_kw
        worthwhile = self._low < self._gain * self._high  # false where the forecast is unknown
        if not worthwhile or lacking <= 0.0:
            charge = worthwhile and now <= self._low
            return -math.inf if charge else lacking
        return -math.inf if now <= self._low else lacking if now >= self._high else 0.0

    def _look_ahead(self, t_s: float, intensity: Callable[[float], float]) -> None:
        slots = int(self._window_s // self._slot_s)
        known = sorted(x for i in range(slots) if math.isfinite(x := intensity(t_s + i * self._slot_s)))
        if not known:
            self._low = self._high = math.nan
            return
        most = len(known) - 1
        self._low, self._high = known[round(self._clean * most)], known[round((1.0 - self._dirty) * most)]


@dataclass(frozen=True, slots=True)
class Battery:
    """What it is; it begins empty, and neither ages nor leaks.

    Attributes:
        kwh: what it can hold [kWh].
        kw: most power in and out, on the side of the site [kW].
        efficiency: energy out over energy in; half of the loss, as a factor, on either way.
        policy: when it charges and discharges.
        forecast: what the policy may know of the grid.
        embodied_kg_per_kwh: low, central, high [kg CO2e/kWh of capacity]; None where unknown.
        lifetime_years: over which that is spread [years].
        usd_per_year: capital and upkeep [USD/year]; None where unknown.
    """

    kwh: float
    kw: float
    efficiency: float
    policy: BatteryPolicy = field(default_factory=SelfConsumption)
    forecast: ForecastModel = field(default_factory=Noisy)
    embodied_kg_per_kwh: tuple[float, float, float] | None = None
    lifetime_years: float = 15.0
    usd_per_year: float | None = None

    def __post_init__(self) -> None:
        number("battery.kwh", self.kwh, "an energy >= 0 kWh", low=0.0)
        number("battery.kw", self.kw, "a power >= 0 kW", low=0.0)
        number("battery.efficiency", self.efficiency, "a share in (0, 1]", above=0.0, high=1.0)
        number("battery.lifetime_years", self.lifetime_years, "a number of years > 0", above=0.0)
        for name, value in zip(("low", "central", "high"), self.embodied_kg_per_kwh or ()):
            number(f"battery.embodied_kg_per_kwh.{name}", value, "a mass >= 0 kg CO2e/kWh", low=0.0)
        if self.usd_per_year is not None:
            number("battery.usd_per_year", self.usd_per_year, "USD a year, or null where it is unknown", low=0.0)
        provider("battery.policy", self.policy, ["dispatch"], "a policy, made: SelfConsumption(), CarbonAware()")
        provider("battery.forecast", self.forecast, ["of"], "a forecast, made: Noisy(), Oracle()")

    def embodied_g(self, seconds: float) -> tuple[float, float, float] | None:
        """Low, central and high embodied carbon of so much time [g CO2e]; None where unknown."""
        if self.embodied_kg_per_kwh is None:
            return None
        share = 1e3 * self.kwh * seconds / (self.lifetime_years * SECONDS_PER_YEAR)
        low, central, high = (share * kg for kg in self.embodied_kg_per_kwh)
        return low, central, high


class Store:
    """A battery's content over time.

    Attributes:
        kwh: content [kWh], from 0 to the battery's; lost_kwh: lost so far [kWh].
    """

    def __init__(self, battery: Battery) -> None:
        self._battery, self._one_way = battery, math.sqrt(battery.efficiency)
        self.kwh = self.lost_kwh = 0.0

    @property
    def soc(self) -> float:
        """State of charge, in [0, 1]."""
        return self.kwh / self._battery.kwh if self._battery.kwh > 0.0 else 0.0

    def move(self, wanted_kw: float, lacking_kw: float, hours: float) -> float:
        """Do what is possible of `wanted_kw` for so many hours; returns the power, above 0 into the site [kW].

        Args:
            lacking_kw: what the site draws beyond its solar power: no more is discharged [kW].
        """
        if math.isnan(wanted_kw):
            raise InputError("battery.policy", "NaN", "a policy whose dispatch returns a power in kW")
        battery, one_way = self._battery, self._one_way
        if wanted_kw > 0.0:
            power = max(0.0, min(wanted_kw, battery.kw, lacking_kw, self.kwh * one_way / hours))
            self.kwh = max(0.0, self.kwh - power * hours / one_way)
            self.lost_kwh += power * hours * (1.0 / one_way - 1.0)
            return power
        power = max(0.0, min(-wanted_kw, battery.kw, (battery.kwh - self.kwh) / (one_way * hours)))
        self.kwh = min(battery.kwh, self.kwh + power * hours * one_way)
        self.lost_kwh += power * hours * (1.0 - one_way)
        return -power
